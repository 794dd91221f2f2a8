//! What the sockets of both sides have in common.

use std::{io, time::Duration};

use socket2::{SockRef, TcpKeepalive};

/// How long a connection is silent before its peer is asked whether it is still there.
const SILENCE: Duration = Duration::from_secs(60);
/// Between two questions.
const INTERVAL: Duration = Duration::from_secs(15);
/// Questions without an answer after which the connection is broken.
const QUESTIONS: u32 = 4;

/// Lets the kernel notice peers that have vanished without a word, after two minutes. Connections that are accepted
/// inherit it from their listener.
///
/// # Errors
/// When the system refuses.
pub(crate) fn keep_alive<'s>(socket: impl Into<SockRef<'s>>) -> io::Result<()> {
    let keep_alive = TcpKeepalive::new().with_time(SILENCE).with_interval(INTERVAL).with_retries(QUESTIONS);
    socket.into().set_tcp_keepalive(&keep_alive)
}

/// Lets the kernel notice within the same two minutes that what was sent does not arrive; keep-alive is for silence only.
///
/// # Errors
/// When the system refuses.
pub(crate) fn limit_unanswered<'s>(socket: impl Into<SockRef<'s>>) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    socket.into().set_tcp_user_timeout(Some(SILENCE + INTERVAL * QUESTIONS))?;
    Ok(())
}
