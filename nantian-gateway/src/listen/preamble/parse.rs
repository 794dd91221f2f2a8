//! The two forms of a preamble, told from what follows (HAProxy's proxy-protocol.txt, 2.1 and 2.2).

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    str::{self, FromStr},
};

use super::{Ends, LONGEST, PreambleError};

/// What version 1 begins with.
const WORD: &[u8] = b"PROXY ";
/// The bytes in which a line of version 1 has to end.
const LONGEST_LINE: usize = 107;
/// What version 2 begins with.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// The bytes of version 2 that tell how many follow.
const FIXED: usize = 16;
/// The bytes of two addresses and their ports.
const IPV4: usize = 12;
const IPV6: usize = 36;

/// A preamble that is whole.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Preamble {
    /// What it says, if it is of a client.
    pub(super) ends: Option<Ends>,
    /// How many bytes it has.
    pub(super) length: usize,
}

/// The preamble that `bytes` begin with; `None` as long as it is not whole.
///
/// # Errors
/// [`PreambleError`] if they do not begin with one, whatever follows.
pub(super) fn parse(bytes: &[u8]) -> Result<Option<Preamble>, PreambleError> {
    if begins(bytes, &SIGNATURE) {
        parse_block(bytes)
    } else if begins(bytes, WORD) {
        parse_line(bytes)
    } else {
        Err(PreambleError::Malformed)
    }
}

/// Whether `bytes` are some of `expected`, or begin with it.
fn begins(bytes: &[u8], expected: &[u8]) -> bool {
    bytes.iter().zip(expected).all(|(byte, expected)| byte == expected)
}

fn parse_line(bytes: &[u8]) -> Result<Option<Preamble>, PreambleError> {
    let possible = bytes.get(..LONGEST_LINE).unwrap_or(bytes);
    let Some(end) = possible.windows(2).position(|pair| pair == b"\r\n") else {
        return if bytes.len() < LONGEST_LINE { Ok(None) } else { Err(PreambleError::Malformed) };
    };
    let line = possible.get(WORD.len()..end).ok_or(PreambleError::Malformed)?;
    let mut words = line.split(|byte| *byte == b' ');
    let ends = match words.next() {
        // What follows is not looked at.
        Some(b"UNKNOWN") => None,
        Some(b"TCP4") => Some(ends_of_words::<Ipv4Addr>(words).ok_or(PreambleError::Malformed)?),
        Some(b"TCP6") => Some(ends_of_words::<Ipv6Addr>(words).ok_or(PreambleError::Malformed)?),
        _ => return Err(PreambleError::Malformed),
    };
    Ok(Some(Preamble { ends, length: end + 2 }))
}

fn ends_of_words<'w, A>(mut words: impl Iterator<Item = &'w [u8]>) -> Option<Ends>
where
    A: FromStr + Into<IpAddr>,
{
    let mut next = || str::from_utf8(words.next()?).ok();
    let address = |word: &str| Some(word.parse::<A>().ok()?.into());
    let (client, destination) = (address(next()?)?, address(next()?)?);
    let (client_port, destination_port) = (port(next()?)?, port(next()?)?);
    words.next().is_none().then(|| Ends::new((client, client_port), (destination, destination_port)))
}

/// A number without a sign.
fn port(word: &str) -> Option<u16> {
    word.bytes().all(|byte| byte.is_ascii_digit()).then(|| word.parse().ok())?
}

fn parse_block(bytes: &[u8]) -> Result<Option<Preamble>, PreambleError> {
    let Some([command, family, high, low]) =
        bytes.get(SIGNATURE.len()..).and_then(|rest| rest.first_chunk::<4>())
    else {
        return Ok(None);
    };
    let length = FIXED + usize::from(u16::from_be_bytes([*high, *low]));
    if length > LONGEST {
        return Err(PreambleError::TooLong);
    }
    let of_addresses = match (command, family) {
        (0x21, 0x11) => IPV4,
        (0x21, 0x21) => IPV6,
        // Unknown, datagrams and sockets of a machine; or of the proxy's own, such as a check of health.
        (0x21, 0x00 | 0x12 | 0x22 | 0x31 | 0x32) | (0x20, _) => 0,
        _ => return Err(PreambleError::Malformed),
    };
    if length < FIXED + of_addresses {
        return Err(PreambleError::Malformed);
    }
    let Some(block) = bytes.get(FIXED..length) else { return Ok(None) };
    // What comes behind the addresses, or in their place, is not looked at.
    let ends = match of_addresses {
        IPV4 => ends_of_block::<4>(block),
        IPV6 => ends_of_block::<16>(block),
        _ => None,
    };
    Ok(Some(Preamble { ends, length }))
}

fn ends_of_block<const LENGTH: usize>(block: &[u8]) -> Option<Ends>
where
    IpAddr: From<[u8; LENGTH]>,
{
    let (client, rest) = block.split_first_chunk::<LENGTH>()?;
    let (destination, rest) = rest.split_first_chunk::<LENGTH>()?;
    let (client_port, rest) = rest.split_first_chunk::<2>()?;
    let destination_port = rest.first_chunk::<2>()?;
    Some(Ends::new(
        (IpAddr::from(*client), u16::from_be_bytes(*client_port)),
        (IpAddr::from(*destination), u16::from_be_bytes(*destination_port)),
    ))
}

impl Ends {
    fn new(client: (IpAddr, u16), destination: (IpAddr, u16)) -> Self {
        Self { client: SocketAddr::from(client), destination: SocketAddr::from(destination) }
    }
}
