//! A choice by weight.

/// Values that are drawn by weight; those of weight 0 are left out.
#[derive(Debug, Clone)]
pub(crate) struct Weighted<T> {
    /// The running sum of weights, and the value up to there.
    choices: Vec<(u64, T)>,
}

impl<T> Weighted<T> {
    /// Draws `values` by their weights.
    pub(crate) fn new(values: impl IntoIterator<Item = (u32, T)>) -> Self {
        let mut sum = 0;
        let weighted = values.into_iter().filter(|(weight, _)| *weight > 0);
        let choices = weighted.map(|(weight, value)| {
            sum += u64::from(weight);
            (sum, value)
        });
        Self { choices: choices.collect() }
    }

    /// How many can be drawn.
    pub(crate) fn len(&self) -> usize {
        self.choices.len()
    }

    /// One of them; `None` if none has a weight.
    pub(crate) fn choose(&self) -> Option<&T> {
        match self.choices.as_slice() {
            [] => None,
            [(_, only)] => Some(only),
            [.., (sum, last)] => {
                let point = fastrand::u64(..*sum);
                Some(self.choices.iter().find(|(end, _)| point < *end).map_or(last, |(_, value)| value))
            }
        }
    }
}
