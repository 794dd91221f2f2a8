//! Readers that never fail on a value of another shape: what providers add must not break what is known.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::estimate::Weight;

/// A number of tokens that a call may have; anything else is absent.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Count(pub(super) Option<u64>);

/// How much text a value holds, in whatever lists and objects it is wrapped.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Text(pub(super) Weight);

/// Whether a value is there and not null.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Present(pub(super) bool);

/// The items of a list, folded into one without keeping them.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Fold<T>(pub(super) T);

/// The items of a list that is not as long as nobody makes one: each may take many times its bytes.
#[derive(Clone, Debug)]
pub(crate) struct Few<T>(pub(crate) Vec<T>);

/// Items of such a list, at most.
const MOST_ITEMS: usize = 1 << 16;

struct FewVisitor<T>(PhantomData<T>);

/// What can be folded.
pub(super) trait Join: Default {
    fn join(&mut self, other: Self);
}

/// More tokens than any model reads or writes in a call: what is above is a mistake, as -1 is that a server
/// takes for a number without a sign, and would be charged and learnt from for long.
const MOST_TOKENS: u64 = 1 << 31;

struct CountVisitor;
struct TextVisitor;
struct FoldVisitor<T>(PhantomData<T>);

/// The visits that mean "not what is read here".
macro_rules! otherwise {
    ($value:expr; $($visit:ident $type:ty),*) => {
        $(fn $visit<E>(self, _: $type) -> Result<Self::Value, E> { Ok($value) })*
        fn visit_unit<E>(self) -> Result<Self::Value, E> { Ok($value) }
    };
}

// === impl Few ===

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Few<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(FewVisitor(PhantomData))
    }
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for FewVisitor<T> {
    type Value = Few<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Few<T>, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            if items.len() == MOST_ITEMS {
                return Err(serde::de::Error::custom("too many items"));
            }
            items.push(item);
        }
        Ok(Few(items))
    }
}

// === impl Count ===

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(CountVisitor)
    }
}

impl<'de> Visitor<'de> for CountVisitor {
    type Value = Count;

    otherwise!(Count(None); visit_bool bool, visit_str &str);

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_u64<E>(self, value: u64) -> Result<Count, E> {
        Ok(Count(Some(value).filter(|value| *value <= MOST_TOKENS)))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Count, E> {
        Ok(Count(u64::try_from(value).ok().filter(|value| *value <= MOST_TOKENS)))
    }

    #[expect(clippy::cast_possible_truncation, reason = "it is in the range of a u64")]
    fn visit_f64<E>(self, value: f64) -> Result<Count, E> {
        let in_range = (0.0..=MOST_TOKENS as f64).contains(&value);
        Ok(Count(in_range.then(|| value.round() as u64)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Count, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Count(None))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Count, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Count(None))
    }
}

// === impl Text ===

impl Text {
    pub(super) fn is_empty(self) -> bool {
        self.0 == Weight::default()
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TextVisitor)
    }
}

impl<'de> Visitor<'de> for TextVisitor {
    type Value = Text;

    otherwise!(Text::default(); visit_bool bool, visit_i64 i64, visit_u64 u64, visit_f64 f64);

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_str<E>(self, text: &str) -> Result<Text, E> {
        Ok(Text(Weight::of(text.as_bytes())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Text, A::Error> {
        let mut sum = Text::default();
        while let Some(Text(weight)) = seq.next_element()? {
            sum.0 += weight;
        }
        Ok(sum)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Text, A::Error> {
        let mut sum = Text::default();
        while let Some((IgnoredAny, Text(weight))) = map.next_entry()? {
            sum.0 += weight;
        }
        Ok(sum)
    }
}

// === impl Present ===

impl<'de> Deserialize<'de> for Present {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Option::<IgnoredAny>::deserialize(deserializer)?;
        Ok(Self(value.is_some()))
    }
}

// === impl Fold ===

impl<'de, T: Deserialize<'de> + Join> Deserialize<'de> for Fold<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(FoldVisitor(PhantomData))
    }
}

impl<'de, T: Deserialize<'de> + Join> Visitor<'de> for FoldVisitor<T> {
    type Value = Fold<T>;

    otherwise!(Fold(T::default()); visit_bool bool, visit_i64 i64, visit_u64 u64, visit_f64 f64, visit_str &str);

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Fold<T>, A::Error> {
        let mut folded = T::default();
        while let Some(item) = seq.next_element::<T>()? {
            folded.join(item);
        }
        Ok(Fold(folded))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fold<T>, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Fold(T::default()))
    }
}
