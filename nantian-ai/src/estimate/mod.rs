//! Token counts without a tokenizer: good enough to reserve, replaced by what the provider reports.

mod attachment;

use std::ops::AddAssign;

use self::attachment::Attachments;

/// Text in quarters of a token: about four ASCII characters, two of a two-byte script such as Cyrillic, one
/// of a three-byte script such as Chinese, or half an emoji make a token.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Weight(u64);

/// Bytes looked at together.
const BLOCK: usize = 64;

/// So many blocks in a row that may be base64 are worth a look at where they stand.
const RUN_BLOCKS: usize = 8;

/// Their bytes.
const RUN: usize = RUN_BLOCKS * BLOCK;

/// Estimates the input tokens of a request body.
///
/// Every byte of the JSON counts, names and brackets included, which stands for the few tokens that each
/// message costs besides its text: about four ASCII characters, two Cyrillic, one Chinese to a token. Of
/// pictures, recordings and documents in base64, 512 bytes or more in the members in which the dialects have
/// them, each counts 1000 tokens, or one for every 1000 bytes of a picture or a recording and for every 32
/// bytes of anything else, whichever is more. Expect the right order of magnitude, mostly a little too much.
///
/// ```
/// let body = br#"{"model":"m","messages":[{"role":"user","content":"How far is the moon?"}]}"#;
/// assert_eq!(nantian_ai::estimate_tokens(body), 19);
/// ```
pub fn estimate_tokens(body: &[u8]) -> u64 {
    let mut sum = Weight::default();
    let mut run = 0;
    let mut attachments = Attachments::default();
    let mut at = 0;
    while let Some(block) = body.get(at..).and_then(|rest| rest.first_chunk::<BLOCK>()) {
        let ahead = body.get(at..).and_then(|rest| rest.first_chunk::<RUN>()).filter(|_| run == 0);
        if let Some(ahead) = ahead.filter(|ahead| !ahead.last_chunk().is_some_and(may_be_base64)) {
            // None that begins in these is so long.
            sum += Weight::of(ahead);
            at += RUN;
            continue;
        }
        at += BLOCK;
        sum += Weight::of(block);
        run = if may_be_base64(block) { run + 1 } else { 0 };
        if run != RUN_BLOCKS {
            continue;
        }
        let start = at - RUN;
        if let Some(attachment) = attachments.find(body, start) {
            sum.0 -= (at - start) as u64;
            sum.0 += attachment.tokens() * 4;
            at = attachment.end;
            run = 0;
        }
    }
    sum += Weight::of(body.get(at..).unwrap_or_default());
    sum.tokens()
}

fn may_be_base64(block: &[u8; BLOCK]) -> bool {
    // Most text has one within a few bytes.
    if memchr::memchr2(b' ', b'"', block).is_some() {
        return false;
    }
    // Without branches, so that the compiler can look at many bytes at once.
    block.iter().fold(true, |all, &byte| {
        all & (byte.is_ascii_alphanumeric() | (byte == b'+') | (byte == b'/') | (byte == b'='))
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
        for body in [
            format!(r#"{{"url":"data:image/png;base64,{image}","text":"what is it?"}}"#),
            format!(
                r#"{{"image_url" : "data:image/jpeg;charset=utf-8;base64,/9j/{image}","text":"what is it?"}}"#
            ),
            format!(r#"{{"type":"base64","media_type":"image/png","data":"{image}"}}"#),
            format!(r#"{{"data":"{image}" , "type" : "base64","media_type":"image/png"}}"#),
            format!(r#"{{"images": [ "{image}" ],"text":"what is it?"}}"#),
            format!(r#"{{"input_audio":{{"data":"UklGR{image}","format":"wav"}}}}"#),
        ] {
            let tokens = estimate_tokens(body.as_bytes());
            assert!((1_100..1_200).contains(&tokens), "{tokens} {}", &body[..60]);
        }
        let two = format!(r#"{{"images":["{image}", "{image}"]}}"#);
        assert!((2_200..2_300).contains(&estimate_tokens(two.as_bytes())));
    }

    #[test]
    fn a_document_counts_by_its_length() {
        let document = "JVBERi0xLjcK".repeat(100_000);
        let body = format!(r#"{{"file_data":"data:application/pdf;base64,{document}"}}"#);
        let tokens = estimate_tokens(body.as_bytes());
        assert!((30_000..60_000).contains(&tokens), "{tokens}");
        let short = format!(r#"{{"file_data":"{}"}}"#, "A".repeat(700));
        assert!((1_000..1_100).contains(&estimate_tokens(short.as_bytes())));
    }

    #[test]
    fn of_the_beginning_of_a_body_what_may_be_a_picture_is_one() {
        let image = "iVBORw0KGgo".repeat(70_000);
        for (head, expected) in [
            (r#"{"type":"base64","data":""#, 1_000..1_100),
            (r#"{"input_audio":{"data":""#, 1_000..1_100),
            (r#"{"type":"text","data":""#, 190_000..200_000),
        ] {
            for rest in ["", "\"", "\", \"for"] {
                let tokens = estimate_tokens(format!("{head}{image}{rest}").as_bytes());
                assert!(expected.contains(&tokens), "{tokens} {head} {rest}");
            }
        }
    }

    #[test]
    fn text_counts_by_its_bytes_however_it_is_spelled() {
        let letters = "thecatsatonthemat".repeat(50_000);
        for text in [
            "the_cat_sat_on_the_mat-".repeat(40_000),
            letters.clone(),
            format!("data:image/png;base64,iVBOR{letters}"),
            format!("iVBORw0KGgo{letters}"),
            format!("iVBORw0KGgo {letters}"),
            format!(r#"\"data\":\"{letters}"#),
            format!(r#"see the \"data\": \"iVBOR{letters}"#),
        ] {
            for body in [
                format!(r#"{{"messages":[{{"role":"user","content":"{text}"}}]}}"#),
                format!(r#"{{"data":"x","input":["{text}"],"url":7}}"#),
                format!(r#"{{"images":["x","{text}"]}}"#),
                format!(r#"{{"url":"a {text}"}}"#),
                format!(r#"{{"type":"text","media_type":"text/plain","data":"{text}"}}"#),
                format!(r#"{{"type":"base64","data":"{text}","type":"text"}}"#),
                format!(r#"{{"type":"text",{}"format":"x","data":"{text}"}}"#, " ".repeat(300)),
                format!(r#"{{"type":"base64"}},{{"data":"{text}"}},{{"type":"base64"}}"#),
                format!(r#"{{"url":"data:text/plain;base64,{letters}"}}"#),
                format!(r#"{{"url":"{letters}","image_url":"data:image/png,iVBOR{letters}"}}"#),
            ] {
                let (tokens, bytes) = (estimate_tokens(body.as_bytes()), body.len() as u64);
                assert!((bytes / 5..bytes / 3).contains(&tokens), "{tokens} of {bytes}: {}", &body[..80]);
            }
        }
    }

    #[test]
    fn runs_that_are_nothing_do_not_take_long() {
        // Each is looked at once, and no further back than a head of an attachment is long.
        let body = format!(r#"{{"content":"{}"}}"#, format!("{} ", "A".repeat(700)).repeat(20_000));
        assert_eq!(estimate_tokens(body.as_bytes()), (body.len() as u64).div_ceil(4));
    }

    #[test]
    fn long_text_counts_by_its_bytes() {
        let text = "the quick brown fox ".repeat(1_000);
        assert_eq!(estimate_tokens(text.as_bytes()), 5_000);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn no_body_is_estimated_far_from_its_bytes(
            pieces in proptest::collection::vec(
                prop_oneof![
                    Just("\"type\":\"base64\",\"data\":\"".to_owned()),
                    Just("\"file_data\":\"".to_owned()),
                    Just("\"images\": [\"".to_owned()),
                    Just("data:image/png;base64,iVBOR".to_owned()),
                    Just("\"url\":\"data:;base64,".to_owned()),
                    "[\\\\\", {}\\[\\]:é]{0,3}",
                    (0_usize..1_500).prop_map(|length| "A".repeat(length)),
                ],
                0..12,
            ),
        ) {
            let body = pieces.concat();
            let by_bytes = Weight::of(body.as_bytes()).tokens();
            // An attachment has 512 bytes at least, and counts a thousand at least.
            let tokens = estimate_tokens(body.as_bytes());
            prop_assert!(tokens <= by_bytes + 1_000 * (body.len() as u64 / 512), "{tokens} {body}");
            prop_assert!(tokens >= by_bytes / 8, "{tokens} {body}");
        }

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
