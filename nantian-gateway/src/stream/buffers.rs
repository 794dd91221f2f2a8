//! The buffers of a worker, lent to whoever has bytes in hand.

use std::{cell::RefCell, rc::Rc};

/// The bytes of one buffer: large enough that system calls cost little beside what they copy, and small
/// enough for the caches of a core.
const SIZE: usize = 64 * 1024;

/// Buffers that are kept for the next bytes.
const SPARE: usize = 32;

/// The buffers of a worker; its clones share them.
///
/// A connection that waits for bytes holds none, so that idle connections cost no more than their sockets.
#[derive(Debug, Clone, Default)]
pub(super) struct Buffers {
    spare: Rc<RefCell<Vec<Box<[u8]>>>>,
}

impl Buffers {
    /// A buffer, with bytes of no meaning in it.
    pub(super) fn take(&self) -> Box<[u8]> {
        self.spare.borrow_mut().pop().unwrap_or_else(|| vec![0; SIZE].into_boxed_slice())
    }

    /// Takes a buffer back.
    pub(super) fn give_back(&self, buffer: Box<[u8]>) {
        let mut spare = self.spare.borrow_mut();
        if spare.len() < SPARE {
            spare.push(buffer);
        }
    }

    /// How many wait for bytes.
    #[cfg(test)]
    pub(super) fn spare(&self) -> usize {
        self.spare.borrow().len()
    }
}
