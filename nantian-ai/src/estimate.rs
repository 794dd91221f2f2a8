//! Token counts without a tokenizer: good enough to reserve, replaced by what the provider reports.

use std::ops::AddAssign;

/// Text in quarters of a token: about four ASCII characters, two of a two-byte script such as Cyrillic, one
/// of a three-byte script such as Chinese, or half an emoji make a token.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Weight(u64);

/// Bytes looked at together.
const BLOCK: usize = 64;

/// So many blocks in a row without a space or a quote are no text but base64.
const BLOB_BLOCKS: u32 = 8;

/// What an image or another document in base64 costs, in tokens: the order of magnitude of a picture of
/// one megapixel at the large providers.
const BLOB_TOKENS: u64 = 1_000;

/// Estimates the input tokens of a request body.
///
/// Every byte of the JSON counts, names and brackets included, which stands for the few tokens that each
/// message costs besides its text: about four ASCII characters, two Cyrillic, one Chinese to a token. An
/// unbroken run of 512 or more base64 characters counts as one document of 1000 tokens, whatever its
/// length. Expect the right order of magnitude, mostly a little too much.
///
/// ```
/// let body = br#"{"model":"m","messages":[{"role":"user","content":"How far is the moon?"}]}"#;
/// assert_eq!(nantian_ai::estimate_tokens(body), 19);
/// ```
pub fn estimate_tokens(body: &[u8]) -> u64 {
    let mut sum = Weight::default();
    let mut blocks = 0;
    let mut rest = body;
    while let Some((block, after)) = rest.split_first_chunk::<BLOCK>() {
        rest = after;
        sum += Weight::of(block);
        blocks = if is_blob(block) { blocks + 1 } else { 0 };
        if blocks == BLOB_BLOCKS {
            sum.0 -= u64::from(BLOB_BLOCKS) * BLOCK as u64;
            sum.0 += BLOB_TOKENS * 4;
            blocks = 0;
            let end = memchr::memchr3(b'"', b' ', b'\\', rest).unwrap_or(rest.len());
            rest = rest.get(end..).unwrap_or_default();
        }
    }
    sum += Weight::of(rest);
    sum.tokens()
}

fn is_blob(block: &[u8; BLOCK]) -> bool {
    // Most text has one within a few bytes.
    if memchr::memchr2(b' ', b'"', block).is_some() {
        return false;
    }
    // Without branches, so that the compiler can look at many bytes at once.
    block.iter().fold(true, |all, &byte| {
        all & (byte.is_ascii_alphanumeric()
            | (byte == b'+')
            | (byte == b'/')
            | (byte == b'-')
            | (byte == b'_')
            | (byte == b'='))
    })
}

// === impl Weight ===

impl Weight {
    /// Weighs UTF-8 text, or the part of it that is here: only first bytes of characters count.
    pub(crate) fn of(text: &[u8]) -> Self {
        let of_block = |block: &[u8]| {
            if block.is_ascii() {
                return block.len() as u64;
            }
            let sum = block.iter().fold(0_u16, |sum, &byte| {
                sum + u16::from(byte < 0x80)
                    + 2 * u16::from(byte >= 0xC0)
                    + 2 * u16::from(byte >= 0xE0)
                    + 4 * u16::from(byte >= 0xF0)
            });
            u64::from(sum)
        };
        Self(text.chunks(BLOCK).map(of_block).sum())
    }

    /// Text of so many ASCII bytes.
    pub(crate) fn of_bytes(bytes: u64) -> Self {
        Self(bytes)
    }

    /// Whole tokens, rounded up.
    pub(crate) fn tokens(self) -> u64 {
        self.0.div_ceil(4)
    }
}

impl AddAssign for Weight {
    fn add_assign(&mut self, other: Self) {
        self.0 = self.0.saturating_add(other.0);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn scripts_weigh_what_they_cost() {
        assert_eq!(Weight::of(b"twelve chars").tokens(), 3);
        assert_eq!(Weight::of("привет".as_bytes()).tokens(), 3);
        assert_eq!(Weight::of("你好".as_bytes()).tokens(), 2);
        assert_eq!(Weight::of("🙂".as_bytes()).tokens(), 2);
    }

    #[test]
    fn an_image_in_base64_does_not_count_by_its_bytes() {
        let image = "iVBORw0KGgo".repeat(100_000);
        let body = format!(r#"{{"url":"data:image/png;base64,{image}","text":"what is it?"}}"#);
        let tokens = estimate_tokens(body.as_bytes());
        assert!((1_000..1_200).contains(&tokens), "{tokens}");
    }

    #[test]
    fn long_text_counts_by_its_bytes() {
        let text = "the quick brown fox ".repeat(1_000);
        assert_eq!(estimate_tokens(text.as_bytes()), 5_000);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn weight_does_not_depend_on_where_text_is_cut(text in ".{0,200}", at in 0_usize..200) {
            let bytes = text.as_bytes();
            let (head, tail) = bytes.split_at(at.min(bytes.len()));
            let mut sum = Weight::of(head);
            sum += Weight::of(tail);
            prop_assert_eq!(sum, Weight::of(bytes));
        }
    }
}
