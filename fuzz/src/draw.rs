//! One of many ways to check an input.

/// What a run tries, drawn from the first byte of its input: trying all ways in each run is slow, and one
/// that depends on the input's length, say, cannot be learnt by a fuzzer.
pub(crate) struct Draw(usize);

// === impl Draw ===

impl Draw {
    /// The draw, and the input that is left.
    pub(crate) fn split(input: &[u8]) -> Option<(Self, &[u8])> {
        let (&first, rest) = input.split_first()?;
        Some((Self(first.into()), rest))
    }

    /// One of these. What is asked for first is the lowest digit of the byte.
    pub(crate) fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        let choice = choices[self.0 % choices.len()];
        self.0 /= choices.len();
        choice
    }
}
