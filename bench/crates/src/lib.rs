//! Things done by the policy crates and by their peers, measured in turns, and shown as ratios.
//!
//! A number of nanoseconds depends on the machine and on its neighbours. So each pair is measured in short
//! slices, one of ours and one of the peer's after the other, and what counts is the median of the ratios of
//! neighbouring slices.

mod pair;
mod table;

pub use pair::{Figure, Work, alone, paired, two_threads};
pub use table::{Table, exit};
