//! Finds heads that name both Content-Length and Transfer-Encoding.
//!
//! hyper resolves the ambiguity as RFC 9112, section 6.3 allows: Transfer-Encoding wins, Content-Length is
//! dropped, the connection is closed after the response. That is safe, but the same section calls such a
//! message a likely smuggling attempt that ought to be handled as an error, and after parsing nothing of it
//! can be seen. So the bytes are followed on their way in: heads line by line, bodies by their framing.

/// The longest beginning of a line that is kept: a name, its colon and a length.
const KEPT: usize = 64;

/// Follows the requests of one connection.
#[derive(Debug, Default)]
pub(super) struct HeadScanner {
    expected: Expected,
    /// The beginning of a line that the last bytes broke off in.
    kept: Vec<u8>,
    content_length: Option<u64>,
    transfer_encoding: bool,
    /// The heads that have begun.
    heads: u32,
}

/// What comes next.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Expected {
    #[default]
    RequestLine,
    Field,
    /// So many bytes that are not looked at.
    Body(u64),
    ChunkSize,
    /// So many bytes of a chunk, its end included.
    Chunk(u64),
    Trailer,
    /// Nobody can tell: the connection is closed after the present request.
    Nothing,
}

/// A head that two parsers could read differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Ambiguous;

impl HeadScanner {
    /// Takes further bytes; returns the number of a request, from 1 on, that must be refused.
    pub(super) fn feed(&mut self, mut bytes: &[u8]) -> Option<u32> {
        while !bytes.is_empty() {
            bytes = match self.expected {
                Expected::Nothing => return None,
                Expected::Body(left) | Expected::Chunk(left) => self.skip(left, bytes),
                _ => {
                    let Some(end) = memchr::memchr(b'\n', bytes) else {
                        self.keep(bytes);
                        return None;
                    };
                    let (line, rest) = bytes.split_at(end);
                    if self.end_line(line).is_err() {
                        self.expected = Expected::Nothing;
                        return Some(self.heads);
                    }
                    rest.get(1..).unwrap_or_default()
                }
            };
        }
        None
    }

    /// Whether all that was begun has come to its end.
    pub(super) fn is_between_requests(&self) -> bool {
        self.expected == Expected::RequestLine && self.kept.is_empty()
    }

    /// Whether a head has begun and not ended.
    pub(super) fn is_in_head(&self) -> bool {
        self.expected == Expected::Field || self.expected == Expected::RequestLine && !self.kept.is_empty()
    }

    fn skip<'a>(&mut self, left: u64, bytes: &'a [u8]) -> &'a [u8] {
        let taken = usize::try_from(left).map_or(bytes.len(), |left| left.min(bytes.len()));
        let left = left - taken as u64;
        self.expected = match self.expected {
            Expected::Chunk(_) if left == 0 => Expected::ChunkSize,
            Expected::Chunk(_) => Expected::Chunk(left),
            _ if left == 0 => Expected::RequestLine,
            _ => Expected::Body(left),
        };
        bytes.get(taken..).unwrap_or_default()
    }

    fn keep(&mut self, bytes: &[u8]) {
        let room = KEPT - self.kept.len().min(KEPT);
        self.kept.extend(bytes.iter().take(room));
    }

    fn end_line(&mut self, line: &[u8]) -> Result<(), Ambiguous> {
        if self.kept.is_empty() {
            return self.line(line.strip_suffix(b"\r").unwrap_or(line));
        }
        self.keep(line);
        let kept = std::mem::take(&mut self.kept);
        let done = self.line(kept.strip_suffix(b"\r").unwrap_or(&kept));
        self.kept = kept;
        self.kept.clear();
        done
    }

    /// Takes a line without its end.
    fn line(&mut self, line: &[u8]) -> Result<(), Ambiguous> {
        self.expected = match self.expected {
            Expected::RequestLine if line.is_empty() => Expected::RequestLine,
            Expected::RequestLine => {
                self.heads = self.heads.wrapping_add(1);
                Expected::Field
            }
            Expected::Field if line.is_empty() => self.end_head()?,
            Expected::Field => {
                self.field(line)?;
                Expected::Field
            }
            Expected::Trailer if line.is_empty() => Expected::RequestLine,
            Expected::ChunkSize => match chunk_size(line) {
                Some(0) => Expected::Trailer,
                Some(size) => Expected::Chunk(size.saturating_add(2)),
                None => Expected::Nothing,
            },
            other => other,
        };
        Ok(())
    }

    fn field(&mut self, line: &[u8]) -> Result<(), Ambiguous> {
        match line.first() {
            Some(b'c' | b'C') => {
                if let Some(value) = value(line, b"content-length:") {
                    self.content_length = Some(number(value, 10).ok_or(Ambiguous)?);
                }
            }
            Some(b't' | b'T') => {
                self.transfer_encoding |= value(line, b"transfer-encoding:").is_some();
            }
            _ => {}
        }
        Ok(())
    }

    fn end_head(&mut self) -> Result<Expected, Ambiguous> {
        match (self.content_length.take(), std::mem::take(&mut self.transfer_encoding)) {
            (Some(_), true) => Err(Ambiguous),
            (None, true) => Ok(Expected::ChunkSize),
            (Some(length), false) if length > 0 => Ok(Expected::Body(length)),
            (_, false) => Ok(Expected::RequestLine),
        }
    }
}

/// The value of the field `name`, which ends in a colon, if `line` is one.
fn value<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let (start, value) = line.split_at_checked(name.len())?;
    start.eq_ignore_ascii_case(name).then_some(value)
}

/// The size that a line before a chunk tells; what follows it is an extension.
fn chunk_size(line: &[u8]) -> Option<u64> {
    let end = line.iter().position(|byte| *byte == b';').unwrap_or(line.len());
    number(line.get(..end)?, 16)
}

fn number(text: &[u8], radix: u32) -> Option<u64> {
    u64::from_str_radix(std::str::from_utf8(text.trim_ascii()).ok()?, radix).ok()
}

#[cfg(test)]
mod tests;
