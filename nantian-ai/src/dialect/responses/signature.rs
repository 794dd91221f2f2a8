//! What lets a provider trust its own reasoning, in the one field that Responses has for it:
//! `encrypted_content`.
//!
//! In the common form a signature of Responses names its provider's family and the id of its item, which
//! belongs to it. To a client of Responses, a signature of another family is marked as such, so that it comes
//! back as it was.

use std::borrow::Cow;

/// What signatures of Responses begin with in the common form.
pub(in crate::dialect) const OF_RESPONSES: &str = "openai.";

/// What `encrypted_content` begins with that no provider of Responses can read.
pub(crate) const MADE_HERE: &str = "ntn1.";

/// Stands in `encrypted_content` for a signature that no provider has given, so that the item is known when
/// it comes back.
pub(super) const UNSIGNED: &str = "ntn1.none";

/// What the signature of another family begins with in `encrypted_content`.
const FOREIGN: &str = "ntn1.signed.";

/// What reasoning begins with in `encrypted_content` that another family has encrypted.
const REDACTED: &str = "ntn1.redacted.";

/// What stands in `encrypted_content`.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Encrypted {
    /// A signature, as the common form has it.
    Signature(String),
    /// Reasoning that another family has encrypted.
    Redacted(String),
    /// Nothing that a provider has signed.
    Unsigned,
}

/// Whether a signature is one of Responses, which no other family trusts.
pub(crate) fn is_of_responses(signature: &str) -> bool {
    signature.starts_with(OF_RESPONSES)
}

/// Reads `encrypted_content` of the item `id`.
pub(super) fn read(id: &str, encrypted: &str) -> Encrypted {
    if encrypted == UNSIGNED {
        Encrypted::Unsigned
    } else if let Some(data) = encrypted.strip_prefix(REDACTED) {
        Encrypted::Redacted(data.to_owned())
    } else if let Some(signature) = encrypted.strip_prefix(FOREIGN) {
        Encrypted::Signature(signature.to_owned())
    } else {
        let id = if id.contains('.') { "" } else { id };
        Encrypted::Signature(format!("{OF_RESPONSES}{id}.{encrypted}"))
    }
}

/// `encrypted_content` of a signature in an item of this id. One of Responses is marked, too, where another
/// id belongs to it, as in a stream, which has to say the id before the signature comes.
pub(super) fn write<'s>(signature: &'s str, id: &str) -> Cow<'s, str> {
    match own(signature) {
        Some((own, encrypted)) if own.is_empty() || own == id => encrypted.into(),
        _ => format!("{FOREIGN}{signature}").into(),
    }
}

/// The id and the content of a signature of Responses.
pub(super) fn own(signature: &str) -> Option<(&str, &str)> {
    signature.strip_prefix(OF_RESPONSES)?.split_once('.')
}

/// How long the mark is with which `encrypted_content` of Responses itself begins.
pub(crate) fn mark_of_own(encrypted: &str) -> Option<usize> {
    let (_, unmarked) = own(encrypted.strip_prefix(FOREIGN)?)?;
    Some(encrypted.len() - unmarked.len())
}

/// `encrypted_content` of reasoning that another family has encrypted.
pub(super) fn redacted(data: &str) -> String {
    format!("{REDACTED}{data}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_keeps_the_id_of_its_item() {
        let Encrypted::Signature(signature) = read("rs_1", "gAAA.b") else { panic!("no signature") };
        assert!(is_of_responses(&signature));
        assert_eq!(write(&signature, "rs_1"), "gAAA.b");
        let marked = write(&signature, "rs_0");
        assert_eq!(read("rs_0", &marked), Encrypted::Signature(signature.clone()));
        assert_eq!(&marked[mark_of_own(&marked).unwrap()..], "gAAA.b");
    }

    #[test]
    fn what_another_family_has_signed_or_encrypted_comes_back_as_it_was() {
        let encrypted = write("Eo8C", "rs_1");
        assert_eq!(read("rs_1", &encrypted), Encrypted::Signature("Eo8C".to_owned()));
        assert_eq!(mark_of_own(&encrypted), None);
        assert_eq!(read("rs_1", &redacted("blob")), Encrypted::Redacted("blob".to_owned()));
    }
}
