//! Errors of the API server, in its own words.

use std::error::Error;

use crate::respond::ErrorChain;

/// What the server says of a request that it refuses, or why it has not answered one.
pub(crate) fn said(error: &(dyn Error + 'static)) -> String {
    let mut next = Some(error);
    while let Some(cause) = next {
        // As text it would be the message, and all that it is made of.
        if let Some(kube::Error::Api(status)) = cause.downcast_ref() {
            return status.message.clone();
        }
        next = cause.source();
    }
    ErrorChain(error).to_string()
}

#[cfg(test)]
mod tests {
    use kube::{core::Status, runtime::watcher};

    use super::*;

    #[test]
    fn a_refusal_is_told_once() {
        let refusal = || kube::Error::Api(Box::new(Status::failure("secrets is forbidden", "Forbidden")));
        assert_eq!(said(&refusal()), "secrets is forbidden");
        assert_eq!(said(&watcher::Error::WatchStartFailed(refusal())), "secrets is forbidden");
        assert_eq!(said(&std::io::Error::other("away")), "away");
    }
}
