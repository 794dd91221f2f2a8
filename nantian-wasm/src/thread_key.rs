//! Which thread this is.

/// A number that tells running threads apart, never zero: where the thread has something of its own.
pub(crate) fn thread_key() -> u64 {
    thread_local!(static OWN: u8 = const { 0 });
    OWN.with(|own| u64::try_from(std::ptr::from_ref(own).addr()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_running_thread_has_a_key_of_its_own() {
        let own = thread_key();
        let other = std::thread::spawn(thread_key).join().unwrap();
        assert_eq!(own, thread_key());
        assert!(own != other && own != 0 && other != 0);
    }
}
