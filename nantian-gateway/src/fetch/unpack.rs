//! The module in what was fetched: all of it, or a file of its archive.

use std::io::Read as _;

use bytes::Bytes;
use flate2::read::MultiGzDecoder;

use super::{FetchError, MAX_BYTES, WASM};

const GZIP: &[u8] = &[0x1f, 0x8b];
const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];
/// A tar archive is made of blocks of this many bytes.
const BLOCK: usize = 512;
/// The file of an image that is the module.
const NAME: &[u8] = b"plugin.wasm";

/// Finds the module in the bytes of a layer, or at a URL.
pub(super) fn module(bytes: Bytes) -> Result<Bytes, FetchError> {
    if bytes.starts_with(ZSTD) {
        let reason = "it is compressed with zstd; read are gzip and what is not compressed".to_owned();
        return Err(FetchError::Artifact { reason });
    }
    let bytes = if bytes.starts_with(GZIP) { inflate(&bytes)? } else { bytes };
    if bytes.starts_with(WASM) { Ok(bytes) } else { in_archive(&bytes).ok_or(FetchError::NoModule) }
}

/// Inflates no more than a module may have.
fn inflate(bytes: &[u8]) -> Result<Bytes, FetchError> {
    let mut inflated = Vec::new();
    let limit = u64::try_from(MAX_BYTES).unwrap_or(u64::MAX).saturating_add(1);
    MultiGzDecoder::new(bytes)
        .take(limit)
        .read_to_end(&mut inflated)
        .map_err(|error| FetchError::Artifact { reason: format!("it does not inflate: {error}") })?;
    if inflated.len() > MAX_BYTES {
        Err(FetchError::TooLarge { limit: MAX_BYTES })
    } else {
        Ok(inflated.into())
    }
}

/// The first `plugin.wasm` of a tar archive that is a module, else its first file that is one: archives of
/// releases have names of their own. In front of files there may be entries of their name that tell more of
/// them (POSIX.1-2001, pax).
fn in_archive(archive: &Bytes) -> Option<Bytes> {
    let modules = || Files { archive, position: 0 }.filter(|(_, content)| content.starts_with(WASM));
    let named = modules().find(|(path, _)| path.rsplit(|byte| *byte == b'/').next() == Some(NAME));
    named.or_else(|| modules().next()).map(|(_, content)| archive.slice_ref(content))
}

/// The paths and contents of the files in a tar archive, as far as it can be read.
struct Files<'a> {
    archive: &'a [u8],
    position: usize,
}

impl<'a> Iterator for Files<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let start = self.position.checked_add(BLOCK)?;
            let header = self.archive.get(self.position..start)?;
            let path = header.get(..100)?.split(|byte| *byte == 0).next()?;
            if path.is_empty() {
                return None;
            }
            let size = number(header.get(124..136)?)?;
            self.position = start.checked_add(size.checked_next_multiple_of(BLOCK)?)?;
            if matches!(header.get(156)?, 0 | b'0') {
                return Some((path, self.archive.get(start..start.checked_add(size)?)?));
            }
        }
    }
}

/// A number of a header: octal digits, nothing for zero, or bytes behind a bit that says so (GNU and star).
fn number(field: &[u8]) -> Option<usize> {
    let (first, rest) = field.split_first()?;
    if *first & 0x80 != 0 {
        // The next bit is the sign.
        let digits = std::iter::once(first & 0x7f).chain(rest.iter().copied());
        return digits
            .map(usize::from)
            .try_fold(0_usize, |sum, digit| sum.checked_mul(256)?.checked_add(digit));
    }
    let text = std::str::from_utf8(field).ok()?.trim_matches(['\0', ' ']);
    if text.is_empty() { Some(0) } else { usize::from_str_radix(text, 8).ok() }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::{Compression, write::GzEncoder};
    use proptest::prelude::*;

    use super::*;

    fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut archive = Vec::new();
        for (name, content) in files {
            let mut header = [0; BLOCK];
            header[..name.len()].copy_from_slice(name.as_bytes());
            header[124..135].copy_from_slice(format!("{:011o}", content.len()).as_bytes());
            archive.extend(header);
            archive.extend(*content);
            archive.resize(archive.len().next_multiple_of(BLOCK), 0);
        }
        archive.resize(archive.len() + 2 * BLOCK, 0);
        archive
    }

    fn gzip(bytes: &[u8]) -> Bytes {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap().into()
    }

    #[test]
    fn module_is_the_layer_or_in_it() {
        let tar = archive(&[("etc/passwd", b"root"), ("./plugin.wasm", b"\0asm1")]);
        for layer in [Bytes::from_static(b"\0asm1"), gzip(b"\0asm1"), tar.clone().into(), gzip(&tar)] {
            assert_eq!(module(layer).unwrap(), &b"\0asm1"[..]);
        }
        assert!(module(archive(&[("plugin.wasm", b"text")]).into()).is_err());
        let mut described =
            archive(&[("./PaxHeaders/plugin.wasm", b"\0asm of another"), ("plugin.wasm", b"\0asm1")]);
        described[156] = b'x';
        assert_eq!(module(described.into()).unwrap(), &b"\0asm1"[..]);
        let twice = archive(&[("old/plugin.wasm", b"text"), ("plugin.wasm", b"\0asm1")]);
        assert_eq!(module(twice.into()).unwrap(), &b"\0asm1"[..]);
        let other = archive(&[("README.md", b"text"), ("other.wasm", b"\0asm2"), ("plugin.wasm", b"\0asm1")]);
        assert_eq!(module(other.into()).unwrap(), &b"\0asm1"[..]);
        let release = archive(&[("v1/README.md", b"text"), ("v1/filter.wasm", b"\0asm2")]);
        assert_eq!(module(gzip(&release)).unwrap(), &b"\0asm2"[..]);
        assert!(module(Bytes::from_static(b"text")).is_err());
    }

    #[test]
    fn sizes_are_read_as_archives_write_them() {
        let mut bytes = archive(&[("etc", b""), ("plugin.wasm", b"\0asm1")]);
        bytes[124..136].fill(0);
        assert_eq!(module(bytes.clone().into()).unwrap(), &b"\0asm1"[..], "nothing is zero");
        let of_module = BLOCK + 124;
        bytes[of_module..of_module + 12].copy_from_slice(b"\x80\0\0\0\0\0\0\0\0\0\0\x05");
        assert_eq!(module(bytes.clone().into()).unwrap(), &b"\0asm1"[..], "base 256");
        bytes[of_module] = 0xff;
        assert!(module(bytes.into()).is_err(), "no size is negative");
    }

    #[test]
    fn compression_that_is_not_read_is_named() {
        let error = module(Bytes::from_static(b"\x28\xb5\x2f\xfdmore")).unwrap_err().to_string();
        assert!(error.contains("zstd"), "{error}");
    }

    #[test]
    fn bomb_is_not_inflated() {
        let bomb = gzip(&vec![0; MAX_BYTES + 1]);
        assert!(matches!(module(bomb), Err(FetchError::TooLarge { .. })));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn any_bytes_are_a_layer_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..2048)) {
            let _ = module(bytes.clone().into());
            let _ = in_archive(&bytes.into());
        }
    }
}
