use aws_lc_rs::{
    encoding::{AsDer as _, Pkcs8V1Der, PublicKeyX509Der},
    rsa::KeySize,
    signature::KeyPair as _,
};
use base64::{Engine as _, prelude::BASE64_STANDARD};

use super::*;

fn message<const N: usize>(fields: [&[u8]; N]) -> Vec<u8> {
    let mut message = Vec::new();
    for (number, content) in (1..).zip(fields) {
        put(&mut message, number, content);
    }
    message
}

fn pem(kind: &str, der: &[u8]) -> String {
    format!("-----BEGIN {kind}-----\n{}\n-----END {kind}-----\n", BASE64_STANDARD.encode(der))
}

/// Why a message says that something did not succeed.
fn error<const N: usize>(result: &[u8]) -> String {
    let fields: [_; N] = fields(result).unwrap();
    assert!(!result.starts_with(&TRUE));
    String::from_utf8(fields[N - 1].to_vec()).unwrap()
}

/// A private key and its public key.
fn rsa() -> (Vec<u8>, Vec<u8>) {
    let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
    let private: Pkcs8V1Der<'_> = pair.as_der().unwrap();
    let public: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
    (private.as_ref().to_vec(), public.as_ref().to_vec())
}

fn curve(algorithm: &'static EcdsaSigningAlgorithm) -> (Vec<u8>, Vec<u8>) {
    let pair = EcdsaKeyPair::generate(algorithm).unwrap();
    let public: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
    (pair.to_pkcs8v1().unwrap().as_ref().to_vec(), public.as_ref().to_vec())
}

#[test]
fn what_is_signed_is_verified_and_nothing_else() {
    let rsa = rsa();
    let curves = [&ECDSA_P384_SHA384_ASN1_SIGNING, &ECDSA_P521_SHA512_ASN1_SIGNING].map(curve);
    let [p384, p521] = &curves;
    for (hash, (private, public)) in
        [("sha256", &rsa), ("SHA384", &rsa), ("sha512", &rsa), ("sha384", p384), ("sha512", p521)]
    {
        let hash = hash.as_bytes();
        let by_der = sign(&message([hash, private, b"text"])).unwrap();
        let private = pem("PRIVATE KEY", private);
        let by_pem = sign(&message([hash, b"", b"text", private.as_bytes()])).unwrap();
        for signed in [by_der, by_pem] {
            assert!(signed.starts_with(&TRUE), "{signed:?}");
            let [_, signature] = fields(&signed).unwrap();
            let result = verify(&message([hash, public, signature, b"text"])).unwrap();
            assert_eq!(result, TRUE);
            let result = verify(&message([hash, public, signature, b"other"])).unwrap();
            assert_eq!(error::<2>(&result), "the signature is of another text or key");
        }
    }
}

/// Made by OpenSSL, of the text `hello`.
#[test]
fn signatures_of_others_are_verified() {
    let p256 = "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEpxItPzvR0RehcSzU0W7R3Wlw+0sHQUb3LEfV5qpvOKJOQ2BR988c+z2hk46W\
        fpxnbpvtnpGlbWUeWSHzUE/Stg==";
    let by_p256 = "MEUCIQD1DT6I6QBWyFgKtcwMSj9BqwJiZdBScgHJMltrLlIyzAIgTHZafvH/d6BLkHp6ePGfx8aps7QnxWpXHpAv//Im\
        5SA=";
    let rsa = "MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDnT5fgwtxc+5vc2VaHwk5y3bYdaSaBPUpYJUF1oi5zZbWIKugrNpP4H/Wj\
        tnlRrvm/VtyPMgDMk4UCZ2+1ucvsxXrjFqhraw00dhB0SFvU8PJnV9tdHDnKrjRwosJd6Qq3+yK3iX5qyjV6lYHO7dsHu3FwzTHT\
        a01+kRiuJ+p0mQIDAQAB";
    let by_rsa = "gim6wI0yHI0mqT+9f/3RBGO3Ep461hHZ70xGuhsAojPdDATiS043PWtJnB609zX8F80JmbygP0orbkaQnhrvpb5iFTSgs3i2\
        mDUiUGhbAYj6Kox6SDhtwwXCYQAZ9NQWATP/DZmsnBRdWVfXdQj8U1yoh6Kt2/8+AO3/zKC64oE=";
    for (hash, key, signature) in [("sha256", p256, by_p256), ("sha1", rsa, by_rsa)] {
        let [key, signature] = [key, signature].map(|base64| BASE64_STANDARD.decode(base64).unwrap());
        let pem = pem("PUBLIC KEY", &key);
        let hash = hash.as_bytes();
        assert_eq!(verify(&message([hash, &key, &signature, b"hello"])).unwrap(), TRUE);
        assert_eq!(verify(&message([hash, b"", &signature, b"hello", pem.as_bytes()])).unwrap(), TRUE);
    }
}

#[test]
fn what_is_no_key_or_hash_is_said() {
    let refused = |arguments: &[u8]| error::<3>(&sign(arguments).unwrap());
    assert_eq!(refused(&message([b"md5", b"key", b"text"])), "md5 is not supported");
    assert_eq!(refused(&message([b"sha1", b"key", b"text"])), "sha1 is not supported to sign with");
    let none = "the private key is none that sha256 signs with";
    assert_eq!(refused(&message([b"sha256", b"key", b"text"])), none);
    assert_eq!(refused(&message([b"sha256", b"", b"text", b"no pem"])), none);
    let result = verify(&message([b"sha256", b"key", b"signature", b"text"])).unwrap();
    assert_eq!(error::<2>(&result), "the public key is none that sha256 verifies with");
}

#[test]
fn arguments_without_one_key_are_bad() {
    let long = vec![0; MAX_KEY + 1];
    for bad in [
        &b"\x0a\x06sha2"[..],
        b"\x0b",
        b"\xff",
        &message([b"\xff", b"key", b"text"]),
        &message([b"sha256", b"", b"text"]),
        &message([b"sha256", b"key", b"text", b"pem", b"pem"]),
        &message([b"sha256", &long, b"text"]),
    ] {
        assert_eq!(sign(bad), Err(ForeignError::BadArgument), "{bad:?}");
        assert_eq!(verify(bad), Err(ForeignError::BadArgument), "{bad:?}");
    }
}
