//! The ABI's block of key-value pairs: count, sizes, then each key and value with a NUL behind it; little
//! endian.

/// Highest number of pairs accepted from a guest: more than clients may send, for it may write back what they
/// sent.
const MAX_PAIRS: usize = 4096;

/// Largest block accepted from a guest, in bytes.
const MAX_BYTES: usize = 1 << 20;

/// Appends the block of these pairs to `out`.
///
/// The pairs are gone through three times: count and sizes come before contents. Lengths beyond `u32` cannot
/// occur: header maps are smaller.
pub(crate) fn encode<'a, I>(pairs: impl Fn() -> I, out: &mut Vec<u8>)
where
    I: Iterator<Item = (&'a [u8], &'a [u8])>,
{
    out.extend_from_slice(&length(pairs().count()));
    for (key, value) in pairs() {
        out.extend_from_slice(&length(key.len()));
        out.extend_from_slice(&length(value.len()));
    }
    for (key, value) in pairs() {
        out.extend_from_slice(key);
        out.push(0);
        out.extend_from_slice(value);
        out.push(0);
    }
}

/// Reads a block, or nothing when it is not exactly one.
pub(crate) fn decode(block: &[u8]) -> Option<Vec<(&[u8], &[u8])>> {
    if block.len() > MAX_BYTES {
        return None;
    }
    let (count, mut sizes) = word(block)?;
    if count > MAX_PAIRS {
        return None;
    }
    let mut contents = sizes.get(count.checked_mul(8)?..)?;
    let mut pairs = Vec::with_capacity(count);
    for _ in 0..count {
        let (key_length, rest) = word(sizes)?;
        let (value_length, rest) = word(rest)?;
        sizes = rest;
        let (key, rest) = text(contents, key_length)?;
        let (value, rest) = text(rest, value_length)?;
        contents = rest;
        pairs.push((key, value));
    }
    contents.is_empty().then_some(pairs)
}

fn length(value: usize) -> [u8; 4] {
    u32::try_from(value).unwrap_or(u32::MAX).to_le_bytes()
}

fn word(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let (word, rest) = bytes.split_first_chunk::<4>()?;
    Some((usize::try_from(u32::from_le_bytes(*word)).ok()?, rest))
}

fn text(bytes: &[u8], length: usize) -> Option<(&[u8], &[u8])> {
    let (text, rest) = bytes.split_at_checked(length)?;
    let (terminator, rest) = rest.split_first()?;
    (*terminator == 0).then_some((text, rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn encoded(pairs: &[(Vec<u8>, Vec<u8>)]) -> Vec<u8> {
        let mut out = Vec::new();
        encode(|| pairs.iter().map(|(key, value)| (key.as_slice(), value.as_slice())), &mut out);
        out
    }

    #[test]
    fn a_block_has_the_layout_of_the_specification() {
        let block = encoded(&[(b"a".to_vec(), b"xy".to_vec()), (b"b".to_vec(), Vec::new())]);
        assert_eq!(
            block,
            [&[2, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0][..], b"a\0xy\0b\0\0"].concat()
        );
    }

    #[test]
    fn a_count_without_sizes_is_refused() {
        assert_eq!(decode(&u32::MAX.to_le_bytes()), None);
        assert_eq!(decode(&[1, 0, 0, 0]), None);
        assert_eq!(decode(&[]), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn decoding_gives_back_what_was_encoded(
            pairs in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..12), prop::collection::vec(any::<u8>(), 0..24)), 0..12),
        ) {
            let block = encoded(&pairs);
            let decoded: Vec<_> = decode(&block).expect("own block").into_iter().map(|(k, v)| (k.to_vec(), v.to_vec())).collect();
            prop_assert_eq!(decoded, pairs);
        }

        #[test]
        fn any_bytes_decode_or_are_refused(block in prop::collection::vec(any::<u8>(), 0..96)) {
            if let Some(pairs) = decode(&block) {
                let owned: Vec<_> = pairs.iter().map(|(k, v)| (k.to_vec(), v.to_vec())).collect();
                prop_assert_eq!(encoded(&owned), block);
            }
        }
    }
}
