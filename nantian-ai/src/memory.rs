//! Memory for the bodies that are read whole and for what is kept of streams, of all requests together.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::error::Error;

/// The bodies up to this length that the last quarter is kept for.
const SMALL: u64 = 1 << 20;

/// What may be kept of a stream without counting.
const LITTLE: usize = 64 << 10;

/// What the bodies that are read whole may take together: each has a limit of its own, and clients may send
/// any number of them at once, as slowly as they like.
///
/// All clones are one. It counts bytes as they arrive, whatever a request says of its length, and nobody
/// waits for room: what finds none is refused with [`Error::TooManyBodies`]. A quarter is left to bodies of
/// at most a mebibyte, so that a few long ones do not keep out all others; what is longer than the rest never
/// fits, and is [`Error::BodyTooLarge`].
///
/// What is kept of a stream counts, too, if it is more than 64 KiB: an event whose end has not come, what has
/// not had its turn, what the client's dialect says again, and of the request names, ids and what the answer
/// repeats. An event that finds no room is not metered, and a stream that is translated ends in an error.
///
/// ```
/// use nantian_ai::BodyMemory;
///
/// let memory = BodyMemory::new(4 << 20);
/// let (long, short) = (memory.begin(), memory.begin());
/// assert!(long.hold(3 << 20).is_ok());
/// assert!(long.hold((3 << 20) + 1).is_err());
/// assert!(short.hold(1 << 20).is_ok());
/// drop(long);
/// assert_eq!(memory.held(), 1 << 20);
/// ```
#[derive(Clone, Debug)]
pub struct BodyMemory(Arc<Shared>);

/// What one request, or its answer, holds of a [`BodyMemory`]. All clones are one; it is given back when the
/// last of them is dropped.
///
/// In the extensions of a request it says that somebody has begun to read its body: whoever reads further
/// counts nothing twice.
#[derive(Clone, Debug)]
pub struct HeldMemory(Arc<Held>);

#[derive(Debug)]
struct Shared {
    most: u64,
    held: AtomicU64,
    refused: AtomicU64,
}

#[derive(Debug)]
struct Held {
    memory: BodyMemory,
    bytes: AtomicU64,
}

// === impl BodyMemory ===

impl BodyMemory {
    /// Room for this many bytes.
    pub fn new(bytes: u64) -> Self {
        Self(Arc::new(Shared { most: bytes, held: AtomicU64::new(0), refused: AtomicU64::new(0) }))
    }

    /// Room for a request, which holds nothing yet.
    #[must_use]
    pub fn begin(&self) -> HeldMemory {
        HeldMemory(Arc::new(Held { memory: self.clone(), bytes: AtomicU64::new(0) }))
    }

    /// The bytes that are held now.
    pub fn held(&self) -> u64 {
        self.0.held.load(Relaxed)
    }

    /// Whether more than half of it is held. Nothing is taken back from a body whose client goes on, however
    /// slowly: whoever reads from clients had better end the slow ones then.
    pub fn is_scarce(&self) -> bool {
        self.held() > self.0.most / 2
    }

    /// How often there was no room.
    pub fn refused(&self) -> u64 {
        self.0.refused.load(Relaxed)
    }
}

// === impl HeldMemory ===

impl HeldMemory {
    /// Holds at least so many bytes from now on.
    ///
    /// # Errors
    /// [`Error::TooManyBodies`] if all together would be too many, [`Error::BodyTooLarge`] if these alone
    /// would; it goes on to hold what it held.
    pub fn hold(&self, bytes: u64) -> Result<(), Error> {
        let before = self.0.bytes.load(Relaxed);
        if bytes <= before {
            return Ok(());
        }
        let shared = &self.0.memory.0;
        let most = if bytes > SMALL { shared.most - shared.most / 4 } else { shared.most };
        if bytes > most {
            return Err(Error::BodyTooLarge { limit: most });
        }
        if !self.grow(bytes - before, most) {
            shared.refused.fetch_add(1, Relaxed);
            return Err(Error::TooManyBodies);
        }
        Ok(())
    }

    /// Holds what is kept of a stream, which may have become less; a little is not counted.
    ///
    /// # Errors
    /// [`Error::TooManyBodies`] if there is no room; it goes on to hold what it held.
    pub(crate) fn keep(&self, bytes: usize) -> Result<(), Error> {
        let counted = if bytes > LITTLE { bytes } else { 0 };
        let counted = u64::try_from(counted).unwrap_or(u64::MAX);
        let less = self.0.bytes.load(Relaxed).saturating_sub(counted);
        if less > 0 {
            self.0.bytes.fetch_sub(less, Relaxed);
            self.0.memory.0.held.fetch_sub(less, Relaxed);
        }
        self.hold(counted).map_err(|_| Error::TooManyBodies)
    }

    /// Holds at least so many bytes that nobody is refused for: three quarters of the memory are not for
    /// them. Whether there is room.
    pub(crate) fn hold_spare(&self, bytes: usize) -> bool {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        let more = bytes.saturating_sub(self.0.bytes.load(Relaxed));
        more == 0 || self.grow(more, self.0.memory.0.most / 4)
    }

    /// Holds so many bytes more, if all together are not more than `most`.
    fn grow(&self, more: u64, most: u64) -> bool {
        let sum = |held: u64| held.checked_add(more).filter(|sum| *sum <= most);
        let fits = self.0.memory.0.held.fetch_update(Relaxed, Relaxed, sum).is_ok();
        if fits {
            self.0.bytes.fetch_add(more, Relaxed);
        }
        fits
    }

    /// Room of its own in the same memory, which holds nothing yet.
    pub(crate) fn beside(&self) -> Self {
        self.0.memory.begin()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.memory.0.held.fetch_sub(self.bytes.load(Relaxed), Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_back_is_there_for_others() {
        let memory = BodyMemory::new(4 << 20);
        let (one, two) = (memory.begin(), memory.begin());
        one.hold(3 << 20).unwrap();
        one.hold(7).unwrap();
        assert_eq!(memory.held(), 3 << 20, "it never holds less");
        assert!(memory.is_scarce());
        assert!(matches!(two.hold(2 << 20), Err(Error::TooManyBodies)));
        two.hold(SMALL).unwrap();
        assert_eq!((memory.held(), memory.refused()), (4 << 20, 1));
        assert!(memory.begin().hold(1).is_err(), "small ones have a quarter and no more");
        let clone = one.clone();
        drop(one);
        assert_eq!(memory.held(), 4 << 20, "a clone holds it");
        drop(clone);
        assert_eq!(memory.held(), SMALL);
        two.hold(3 << 20).unwrap();
        drop(two);
        assert_eq!((memory.held(), memory.refused()), (0, 2));
        assert!(!memory.is_scarce());
    }

    #[test]
    fn what_is_kept_of_a_stream_counts_as_long_as_it_is_much() {
        let memory = BodyMemory::new(4 << 20);
        let (one, two) = (memory.begin(), memory.begin());
        one.keep(LITTLE).unwrap();
        assert_eq!(memory.held(), 0);
        one.keep(2 << 20).unwrap();
        assert!(matches!(two.keep(2 << 20), Err(Error::TooManyBodies)));
        assert!(matches!(two.keep(usize::MAX), Err(Error::TooManyBodies)));
        assert_eq!(memory.held(), 2 << 20);
        one.keep(LITTLE + 1).unwrap();
        assert_eq!(memory.held(), LITTLE as u64 + 1);
        one.keep(7).unwrap();
        assert_eq!(memory.held(), 0);
    }

    #[test]
    fn what_never_fits_is_not_told_to_come_again() {
        let memory = BodyMemory::new(4 << 20);
        let limit = 3 << 20;
        assert!(
            matches!(memory.begin().hold(limit + 1), Err(Error::BodyTooLarge { limit: l }) if l == limit)
        );
        assert_eq!((memory.held(), memory.refused()), (0, 0));
    }

    #[test]
    fn an_answer_is_judged_by_its_own_length_and_given_back_with_it() {
        let memory = BodyMemory::new(4 << 20);
        let request = memory.begin();
        request.hold(3 << 20).unwrap();
        for _ in 0..2 {
            let answer = request.beside();
            answer.hold(SMALL).unwrap();
            assert_eq!(memory.held(), 4 << 20);
        }
        assert_eq!(memory.held(), 3 << 20);
    }
}
