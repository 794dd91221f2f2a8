//! Tokens: a few numbers, sealed.

use std::fmt;

use aes_gcm::aead::{AeadInPlace, KeyInit};
use aes_gcm::{Aes256Gcm, Nonce, Tag};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};

use super::SessionKeys;
use crate::hash::EndpointHash;

/// What a token says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) backend: EndpointHash,
    pub(super) endpoint: EndpointHash,
    /// When the session began, in seconds since 1970.
    pub(super) issued: u32,
    /// When the token was made.
    pub(super) seen: u32,
}

/// Seals and opens the tokens of one place.
pub(super) struct Codec {
    /// The first one seals.
    ciphers: Box<[Cipher]>,
}

struct Cipher {
    /// Tells the keys of a ring apart, most of the time, without trying them.
    id: u8,
    aead: Aes256Gcm,
}

/// The form of the tokens: version, key, nonce, what they say, and its tag.
const VERSION: u8 = 1;
const HEAD: usize = 2;
const NONCE: usize = 12;
const SAYS: usize = 24;
const TAG: usize = 16;
const SEALED: usize = HEAD + NONCE + SAYS + TAG;
/// The length of a token as text.
pub(super) const TEXT: usize = SEALED.div_ceil(3) * 4;

// === impl Codec ===

impl Codec {
    /// The tokens of the place `scope`: each has keys of its own, so that a token is worth nothing elsewhere.
    pub(super) fn new(keys: &SessionKeys, scope: &[&str]) -> Self {
        let ciphers = keys.iter().map(|key| {
            let mut digest = Sha256::new_with_prefix(b"nantian session 1");
            digest.update(key);
            for part in scope {
                digest.update((part.len() as u64).to_be_bytes());
                digest.update(part);
            }
            let derived = digest.finalize();
            let mut id = Sha256::new_with_prefix(b"nantian session key id");
            id.update(key);
            let id = id.finalize().first().copied().unwrap_or(0);
            Cipher { id, aead: Aes256Gcm::new(&derived) }
        });
        Self { ciphers: ciphers.collect() }
    }

    /// The token as text; `None` if there is no random number for it.
    pub(super) fn seal(&self, token: &Token) -> Option<String> {
        let cipher = self.ciphers.first()?;
        let head = [VERSION, cipher.id];
        let mut nonce = [0; NONCE];
        getrandom::fill(&mut nonce).ok()?;
        let mut says = token.to_bytes();
        let tag = cipher.aead.encrypt_in_place_detached(&Nonce::from(nonce), &head, &mut says).ok()?;
        let mut sealed = Vec::with_capacity(SEALED);
        for part in [&head[..], &nonce, &says, &tag] {
            sealed.extend_from_slice(part);
        }
        Some(URL_SAFE_NO_PAD.encode(sealed))
    }

    /// What a token of this place says; `None` for everything else.
    pub(super) fn open(&self, text: &[u8]) -> Option<Token> {
        if text.len() != TEXT {
            return None;
        }
        let mut sealed = [0; SEALED];
        if URL_SAFE_NO_PAD.decode_slice(text, &mut sealed).ok()? != SEALED {
            return None;
        }
        let (head, rest) = sealed.split_first_chunk::<HEAD>()?;
        let (nonce, rest) = rest.split_first_chunk::<NONCE>()?;
        let (says, rest) = rest.split_first_chunk::<SAYS>()?;
        let tag: &[u8; TAG] = rest.first_chunk()?;
        let &[version, id] = head;
        if version != VERSION {
            return None;
        }
        self.ciphers.iter().filter(|cipher| cipher.id == id).find_map(|cipher| {
            let mut says = *says;
            let (nonce, tag) = (Nonce::from_slice(nonce), Tag::from_slice(tag));
            cipher.aead.decrypt_in_place_detached(nonce, head, &mut says, tag).ok()?;
            Token::from_bytes(&says)
        })
    }
}

impl fmt::Debug for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Codec({} keys)", self.ciphers.len())
    }
}

// === impl Token ===

impl Token {
    fn to_bytes(self) -> [u8; SAYS] {
        let mut bytes = [0; SAYS];
        let numbers = self.backend.0.to_be_bytes().into_iter().chain(self.endpoint.0.to_be_bytes());
        let times = self.issued.to_be_bytes().into_iter().chain(self.seen.to_be_bytes());
        for (to, from) in bytes.iter_mut().zip(numbers.chain(times)) {
            *to = from;
        }
        bytes
    }

    fn from_bytes(bytes: &[u8; SAYS]) -> Option<Self> {
        let (backend, rest) = bytes.split_first_chunk()?;
        let (endpoint, rest) = rest.split_first_chunk()?;
        let (issued, rest) = rest.split_first_chunk()?;
        let seen = rest.first_chunk()?;
        Some(Self {
            backend: EndpointHash(u64::from_be_bytes(*backend)),
            endpoint: EndpointHash(u64::from_be_bytes(*endpoint)),
            issued: u32::from_be_bytes(*issued),
            seen: u32::from_be_bytes(*seen),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn codec(keys: &[u8], scope: &[&str]) -> Codec {
        Codec::new(&SessionKeys::new(keys.iter().map(|&key| [key; 32])).unwrap(), scope)
    }

    const TOKEN: Token = Token { backend: EndpointHash(1), endpoint: EndpointHash(2), issued: 3, seen: 4 };

    #[test]
    fn a_token_says_what_was_sealed_and_never_the_same_twice() {
        let codec = codec(&[1], &["shop", "rule"]);
        let (one, other) = (codec.seal(&TOKEN).unwrap(), codec.seal(&TOKEN).unwrap());
        assert_eq!(codec.open(one.as_bytes()), Some(TOKEN));
        assert_eq!(codec.open(other.as_bytes()), Some(TOKEN));
        assert_ne!(one, other);
        assert_eq!(one.len(), TEXT);
    }

    #[test]
    fn a_changed_bit_anywhere_makes_it_worthless() {
        let codec = codec(&[1], &["shop"]);
        let sealed = URL_SAFE_NO_PAD.decode(codec.seal(&TOKEN).unwrap()).unwrap();
        for bit in 0..sealed.len() * 8 {
            let mut forged = sealed.clone();
            forged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(codec.open(URL_SAFE_NO_PAD.encode(forged).as_bytes()), None, "bit {bit}");
        }
    }

    #[test]
    fn it_is_worth_nothing_at_another_place_or_with_another_key() {
        let token = codec(&[1], &["shop", "rule"]).seal(&TOKEN).unwrap();
        for other in
            [codec(&[1], &["shop", "rule2"]), codec(&[1], &["sho", "prule"]), codec(&[2], &["shop", "rule"])]
        {
            assert_eq!(other.open(token.as_bytes()), None);
        }
    }

    #[test]
    fn the_first_key_seals_and_all_open() {
        let scope = ["shop"];
        let (old, both, new) = (codec(&[1], &scope), codec(&[2, 1], &scope), codec(&[2], &scope));
        assert_eq!(both.open(old.seal(&TOKEN).unwrap().as_bytes()), Some(TOKEN));
        let token = both.seal(&TOKEN).unwrap();
        assert_eq!(new.open(token.as_bytes()), Some(TOKEN));
        assert_eq!(old.open(token.as_bytes()), None);
    }

    proptest! {
        #[test]
        fn nothing_else_is_a_token(text in prop::collection::vec(any::<u8>(), 0..100)) {
            prop_assert_eq!(codec(&[1], &["shop"]).open(&text), None);
        }

        #[test]
        fn any_numbers_come_back(backend: u64, endpoint: u64, issued: u32, seen: u32) {
            let (backend, endpoint) = (EndpointHash(backend), EndpointHash(endpoint));
            let token = Token { backend, endpoint, issued, seen };
            prop_assert_eq!(Token::from_bytes(&token.to_bytes()), Some(token));
        }
    }
}
