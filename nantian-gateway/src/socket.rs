//! What the sockets of both sides have in common.

use std::{io, time::Duration};

use socket2::{SockRef, TcpKeepalive};

/// Too many files are open in this process, or in the system (errno(3), of every Unix).
pub(crate) const EMFILE: i32 = 24;
pub(crate) const ENFILE: i32 = 23;

/// How long a connection is silent before its peer is asked whether it is still there.
const SILENCE: Duration = Duration::from_secs(60);
/// Between two questions.
const INTERVAL: Duration = Duration::from_secs(15);
/// Questions without an answer after which the connection is broken.
const QUESTIONS: u32 = 4;

/// Lets the kernel notice peers that have vanished without a word, after two minutes. Connections that are
/// accepted inherit it from their listener.
///
/// # Errors
/// When the system refuses.
pub(crate) fn keep_alive<'s>(socket: impl Into<SockRef<'s>>) -> io::Result<()> {
    let keep_alive = TcpKeepalive::new().with_time(SILENCE).with_interval(INTERVAL).with_retries(QUESTIONS);
    socket.into().set_tcp_keepalive(&keep_alive)
}

/// How long what was sent may be unanswered: as long as a peer that has vanished can be silent.
pub(crate) const UNANSWERED: Duration = SILENCE.saturating_add(INTERVAL.saturating_mul(QUESTIONS));
/// For how long the kernel sends again if it is told nothing, with the usual `tcp_retries2`; it waits without
/// end for a peer that answers and takes nothing.
const SENT_AGAIN: Duration = Duration::from_secs(15 * 60);

/// How long what was sent may be unanswered by a peer that may take nothing for `pause`, which is the same to
/// the kernel. `None` leaves it to the kernel, where a limit would be longer than its own.
///
/// To Linux it is also the limit of silence, in the place of the number of questions: a peer that vanishes
/// while nothing is on its way is noticed as late.
pub(crate) fn unanswered(pause: Duration) -> Option<Duration> {
    Some(pause.max(UNANSWERED)).filter(|limit| *limit < SENT_AGAIN)
}

/// Lets the kernel notice within `limit` that what was sent does not arrive, or is not taken; keep-alive is
/// for silence only.
///
/// # Errors
/// When the system refuses.
pub(crate) fn limit_unanswered<'s>(
    socket: impl Into<SockRef<'s>>,
    limit: Option<Duration>,
) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    socket.into().set_tcp_user_timeout(limit)?;
    Ok(())
}

/// Bytes that may wait in the kernel until the peer has room for them.
///
/// Without a limit Linux takes megabytes, and more only once a third of them is gone: a peer that reads
/// slowly would look for a minute as if it took nothing. What is on its way is not limited.
const UNSENT: u32 = 128 * 1024;

/// Lets the kernel ask for more as soon as the peer takes some of what there is. Connections that are
/// accepted inherit it from their listener.
///
/// # Errors
/// When the system refuses.
pub(crate) fn limit_unsent<'s>(socket: impl Into<SockRef<'s>>) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    socket.into().set_tcp_notsent_lowat(UNSENT)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_pause_for_long_is_not_ended_earlier() {
        let of = |seconds| unanswered(Duration::from_secs(seconds));
        assert_eq!([of(1), of(60)], [Some(Duration::from_secs(120)); 2]);
        assert_eq!(of(600), Some(Duration::from_secs(600)));
        assert_eq!(of(86_400), None, "the kernel's own limit is shorter, and counts no pause");
    }
}
