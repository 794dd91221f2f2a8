//! Functions that guests know from Envoy: `compress` and `uncompress`, in the format of zlib, and those of
//! [`signature`].

use std::io::Read;

use flate2::{
    Compression,
    read::{ZlibDecoder, ZlibEncoder},
};
use nantian_wasm::host::ForeignError;

use super::signature;

/// Most bytes that go in or come out: they take milliseconds, in which neither the guest nor its thread does
/// anything else.
const MAX_BYTES: usize = 1 << 20;
/// Most bytes that are compressed, which takes longer.
const MAX_COMPRESSED: usize = 128 << 10;

/// Calls a function; `None` if there is none of this name.
pub(crate) fn call(name: &str, arguments: &[u8]) -> Option<Result<Vec<u8>, ForeignError>> {
    Some(match name {
        "compress" if arguments.len() > MAX_COMPRESSED => Err(ForeignError::BadArgument),
        "compress" => all(ZlibEncoder::new(arguments, Compression::default())),
        "uncompress" | "sign" | "verify_signature" if arguments.len() > MAX_BYTES => {
            Err(ForeignError::BadArgument)
        }
        "uncompress" => all(ZlibDecoder::new(arguments)),
        "sign" => signature::sign(arguments),
        "verify_signature" => signature::verify(arguments),
        _ => return None,
    })
}

fn all(reader: impl Read) -> Result<Vec<u8>, ForeignError> {
    let mut bytes = Vec::new();
    let limit = u64::try_from(MAX_BYTES).unwrap_or(u64::MAX).saturating_add(1);
    reader.take(limit).read_to_end(&mut bytes).map_err(|_| ForeignError::Unreadable)?;
    if bytes.len() > MAX_BYTES { Err(ForeignError::Failed) } else { Ok(bytes) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_back_as_they_were() {
        let bytes = b"again and again and again".repeat(100);
        let packed = call("compress", &bytes).unwrap().unwrap();
        assert!(packed.len() < bytes.len() / 10);
        assert_eq!(call("uncompress", &packed), Some(Ok(bytes)));
        assert_eq!(call("uncompress", b"no zlib"), Some(Err(ForeignError::Unreadable)));
        assert_eq!(call("expr_create", b""), None);
    }

    #[test]
    fn bomb_is_not_inflated() {
        let bomb = all(ZlibEncoder::new(&vec![0; MAX_BYTES][..], Compression::fast())).unwrap();
        let twice =
            all(ZlibEncoder::new(&[vec![0; MAX_BYTES], vec![0]].concat()[..], Compression::fast())).unwrap();
        assert_eq!(call("uncompress", &bomb).unwrap().unwrap().len(), MAX_BYTES);
        assert_eq!(call("uncompress", &twice), Some(Err(ForeignError::Failed)));
        assert_eq!(call("compress", &vec![0; MAX_COMPRESSED + 1]), Some(Err(ForeignError::BadArgument)));
        for name in ["uncompress", "sign", "verify_signature"] {
            assert_eq!(call(name, &vec![0; MAX_BYTES + 1]), Some(Err(ForeignError::BadArgument)), "{name}");
        }
    }
}
