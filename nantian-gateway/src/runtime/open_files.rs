//! How many files the process may have open, which bounds its connections.

/// Raises the limit on open files as far as the system lets this process do it, and logs what it is.
///
/// A connection has a socket, and one to its backend. Systems start processes with a low limit (1024) that
/// they may raise by themselves, for the sake of programs that use `select(2)`; this one does not.
pub(crate) fn raise_open_files() {
    #[cfg(target_os = "linux")]
    match raise() {
        Ok(limit) => tracing::info!(limit, "open files"),
        Err(error) => tracing::warn!(%error, "the limit on open files stays as it is"),
    }
}

/// The limit that holds now.
#[cfg(target_os = "linux")]
fn raise() -> nix::Result<u64> {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};

    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft < hard {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    }
    Ok(hard)
}
