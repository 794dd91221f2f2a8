//! Functions that guests know from Envoy: `sign` and `verify_signature`, which take messages of protobuf. A
//! text is signed by RSA (PKCS #1 v1.5) or ECDSA, whichever the key is for.

#[cfg(test)]
mod tests;

use std::borrow::Cow;

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{
        ECDSA_P256_SHA1_ASN1, ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P256_SHA384_ASN1,
        ECDSA_P256_SHA512_ASN1, ECDSA_P384_SHA256_ASN1, ECDSA_P384_SHA384_ASN1,
        ECDSA_P384_SHA384_ASN1_SIGNING, ECDSA_P384_SHA512_ASN1, ECDSA_P521_SHA1_ASN1, ECDSA_P521_SHA256_ASN1,
        ECDSA_P521_SHA384_ASN1, ECDSA_P521_SHA512_ASN1, ECDSA_P521_SHA512_ASN1_SIGNING, EcdsaKeyPair,
        EcdsaSigningAlgorithm, RSA_PKCS1_1024_8192_SHA1_FOR_LEGACY_USE_ONLY,
        RSA_PKCS1_1024_8192_SHA256_FOR_LEGACY_USE_ONLY, RSA_PKCS1_1024_8192_SHA512_FOR_LEGACY_USE_ONLY,
        RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RsaKeyPair,
        RsaSignatureEncoding, UnparsedPublicKey, VerificationAlgorithm,
    },
};
use nantian_wasm::host::ForeignError;
use rustls_pki_types::{PrivateKeyDer, SubjectPublicKeyInfoDer, pem::PemObject};

/// Most bytes of a key: one of RSA that signs has 4096 bits at most, and takes milliseconds.
const MAX_KEY: usize = 2560;

/// The first field of a result, `result: true`; false is left out.
const TRUE: [u8; 2] = [1 << 3, 1];

/// A hash function, and what it signs with.
struct Hash {
    name: &'static str,
    verifiers: &'static [&'static dyn VerificationAlgorithm],
    /// With keys of RSA, and with those of the curve of its size; there is nothing for SHA-1.
    signers: Option<(&'static RsaSignatureEncoding, &'static EcdsaSigningAlgorithm)>,
}

/// SHA-224 is none of them: aws-lc-rs has it for a single curve.
const HASHES: &[Hash] = &[
    Hash {
        name: "sha1",
        verifiers: &[
            &RSA_PKCS1_1024_8192_SHA1_FOR_LEGACY_USE_ONLY,
            &ECDSA_P256_SHA1_ASN1,
            &ECDSA_P521_SHA1_ASN1,
        ],
        signers: None,
    },
    Hash {
        name: "sha256",
        verifiers: &[
            &RSA_PKCS1_1024_8192_SHA256_FOR_LEGACY_USE_ONLY,
            &ECDSA_P256_SHA256_ASN1,
            &ECDSA_P384_SHA256_ASN1,
            &ECDSA_P521_SHA256_ASN1,
        ],
        signers: Some((&RSA_PKCS1_SHA256, &ECDSA_P256_SHA256_ASN1_SIGNING)),
    },
    Hash {
        name: "sha384",
        verifiers: &[
            &RSA_PKCS1_2048_8192_SHA384,
            &ECDSA_P256_SHA384_ASN1,
            &ECDSA_P384_SHA384_ASN1,
            &ECDSA_P521_SHA384_ASN1,
        ],
        signers: Some((&RSA_PKCS1_SHA384, &ECDSA_P384_SHA384_ASN1_SIGNING)),
    },
    Hash {
        name: "sha512",
        verifiers: &[
            &RSA_PKCS1_1024_8192_SHA512_FOR_LEGACY_USE_ONLY,
            &ECDSA_P256_SHA512_ASN1,
            &ECDSA_P384_SHA512_ASN1,
            &ECDSA_P521_SHA512_ASN1,
        ],
        signers: Some((&RSA_PKCS1_SHA512, &ECDSA_P521_SHA512_ASN1_SIGNING)),
    },
];

/// Answers `VerifySignatureArguments` by a `VerifySignatureResult`.
pub(super) fn verify(arguments: &[u8]) -> Result<Vec<u8>, ForeignError> {
    let [hash, der, signature, text, pem] = fields(arguments).ok_or(ForeignError::BadArgument)?;
    let hash = std::str::from_utf8(hash).map_err(|_| ForeignError::BadArgument)?;
    let key = key(der, pem, |pem| Some(SubjectPublicKeyInfoDer::from_pem_slice(pem).ok()?.to_vec()))?;
    let mut result = Vec::new();
    match Hash::named(hash).and_then(|hash| hash.verify(&key, signature, text)) {
        Ok(()) => result.extend(TRUE),
        Err(error) => put(&mut result, 2, error.as_bytes()),
    }
    Ok(result)
}

/// Answers `SignArguments` by a `SignResult`.
pub(super) fn sign(arguments: &[u8]) -> Result<Vec<u8>, ForeignError> {
    let [hash, der, text, pem] = fields(arguments).ok_or(ForeignError::BadArgument)?;
    let hash = std::str::from_utf8(hash).map_err(|_| ForeignError::BadArgument)?;
    let key = key(der, pem, |pem| Some(PrivateKeyDer::from_pem_slice(pem).ok()?.secret_der().to_vec()))?;
    let mut result = Vec::new();
    match Hash::named(hash).and_then(|hash| hash.sign(&key, text)) {
        Ok(signature) => {
            result.extend(TRUE);
            put(&mut result, 2, &signature);
        }
        Err(error) => put(&mut result, 3, error.as_bytes()),
    }
    Ok(result)
}

/// The one key that is given; one that cannot be read is empty, which no function takes for one.
fn key<'k>(
    der: &'k [u8],
    pem: &'k [u8],
    read: impl FnOnce(&[u8]) -> Option<Vec<u8>>,
) -> Result<Cow<'k, [u8]>, ForeignError> {
    let key = match (der, pem) {
        ([_, ..], []) => Cow::Borrowed(der),
        ([], [_, ..]) => Cow::Owned(read(pem).unwrap_or_default()),
        _ => return Err(ForeignError::BadArgument),
    };
    if key.len() > MAX_KEY { Err(ForeignError::BadArgument) } else { Ok(key) }
}

// === impl Hash ===

impl Hash {
    fn named(name: &str) -> Result<&'static Self, String> {
        let found = HASHES.iter().find(|hash| hash.name.eq_ignore_ascii_case(name));
        found.ok_or_else(|| format!("{name} is not supported"))
    }

    fn verify(&self, key: &[u8], signature: &[u8], text: &[u8]) -> Result<(), String> {
        let key =
            self.verifiers.iter().find_map(|verifier| UnparsedPublicKey::new(*verifier, key).parse().ok());
        let key = key.ok_or_else(|| format!("the public key is none that {} verifies with", self.name))?;
        key.verify_sig(text, signature).map_err(|_| "the signature is of another text or key".to_owned())
    }

    fn sign(&self, key: &[u8], text: &[u8]) -> Result<Vec<u8>, String> {
        let unusable = || format!("the private key is none that {} signs with", self.name);
        let (rsa, curve) =
            self.signers.ok_or_else(|| format!("{} is not supported to sign with", self.name))?;
        let random = SystemRandom::new();
        if let Ok(pair) = RsaKeyPair::from_pkcs8(key).or_else(|_| RsaKeyPair::from_der(key)) {
            let mut signature = vec![0; pair.public_modulus_len()];
            pair.sign(rsa, &random, text, &mut signature).map_err(|_| unusable())?;
            return Ok(signature);
        }
        let pair = EcdsaKeyPair::from_private_key_der(curve, key).map_err(|_| unusable())?;
        let signature = pair.sign(&random, text).map_err(|_| unusable())?;
        Ok(signature.as_ref().to_vec())
    }
}

/// The contents of the fields of a message from the first on, of each its last; none if a part of the message
/// is none.
fn fields<const N: usize>(mut message: &[u8]) -> Option<[&[u8]; N]> {
    let mut fields = [&[] as &[u8]; N];
    while !message.is_empty() {
        let (tag, rest) = varint(message)?;
        let place = usize::try_from(tag >> 3).ok()?.checked_sub(1)?;
        message = match tag & 7 {
            0 => varint(rest)?.1,
            1 => rest.get(8..)?,
            2 => {
                let (length, rest) = varint(rest)?;
                let (content, rest) = rest.split_at_checked(usize::try_from(length).ok()?)?;
                if let Some(field) = fields.get_mut(place) {
                    *field = content;
                }
                rest
            }
            5 => rest.get(4..)?,
            _ => return None,
        };
    }
    Some(fields)
}

fn varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0_u64;
    for (place, byte) in bytes.iter().take(10).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            return Some((value, bytes.get(place + 1..)?));
        }
    }
    None
}

/// Adds a field of bytes to a message; an empty one is left out.
fn put(message: &mut Vec<u8>, number: u8, content: &[u8]) {
    if content.is_empty() {
        return;
    }
    message.push((number << 3) | 2);
    let mut length = content.len();
    while length > 0x7f {
        message.push(length.to_le_bytes()[0] | 0x80);
        length >>= 7;
    }
    message.push(length.to_le_bytes()[0]);
    message.extend_from_slice(content);
}
