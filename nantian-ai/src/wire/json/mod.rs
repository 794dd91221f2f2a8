//! Where the members of a JSON object are, found without building values.
//!
//! The scanner checks the whole grammar (RFC 8259) byte by byte in constant memory, so a body may come in
//! any chunks and may be larger than what anyone wants to keep.

/// Containers within containers, at most. One bit of the stack each.
const MAX_DEPTH: u32 = 128;

/// A boundary of a member of the outermost object, reported with its offset in the chunk.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Mark {
    /// The first byte of a name, after its quote.
    KeyStart,
    /// The quote that ends a name.
    KeyEnd,
    /// The first byte of a value.
    ValueStart,
    /// The byte after a value.
    ValueEnd,
}

/// Bytes that are not JSON.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{reason} at byte {offset}")]
#[non_exhaustive]
pub struct Malformed {
    /// The offset of the first byte that cannot be, counted over all chunks.
    pub offset: u64,
    /// What is wrong.
    pub reason: &'static str,
}

/// An incremental scanner of one JSON text.
#[derive(Clone, Debug, Default)]
pub struct Scanner {
    state: State,
    depth: u32,
    /// The containers that are open, the innermost in the lowest bit: set for an object.
    objects: u128,
    before: u64,
    is_object: bool,
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum State {
    #[default]
    Value,
    ValueOrEnd,
    Key,
    KeyOrEnd,
    Colon,
    CommaOrEnd,
    Text {
        key: bool,
    },
    Escape {
        key: bool,
    },
    Hex {
        key: bool,
        left: u8,
    },
    Literal(&'static [u8]),
    Number(Number),
    End,
}

/// What of a number has been read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Number {
    Minus,
    Zero,
    Whole,
    Point,
    Fraction,
    Exponent,
    ExponentSign,
    ExponentDigits,
}

// === impl Scanner ===

impl Scanner {
    /// A scanner at the start of a text.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads the next chunk and reports the boundaries in it, in order.
    ///
    /// # Errors
    /// [`Malformed`] at the first byte that no JSON text can have there. The scanner is of no use after it.
    pub fn push(&mut self, chunk: &[u8], mut mark: impl FnMut(Mark, usize)) -> Result<(), Malformed> {
        let mut at = 0;
        while let Some(&byte) = chunk.get(at) {
            at = match self.state {
                State::Text { key } => self.text(key, chunk, at, &mut mark)?,
                State::Number(number) => match number.next(byte) {
                    Some(next) => {
                        self.state = State::Number(next);
                        at + 1
                    }
                    None if number.may_end() => {
                        self.end_value(at, &mut mark);
                        at
                    }
                    None => return Err(self.malformed(at, "malformed number")),
                },
                _ if is_space(byte) && self.may_have_space() => at + 1,
                _ => {
                    self.single(byte, at, &mut mark)?;
                    at + 1
                }
            };
        }
        self.before += chunk.len() as u64;
        Ok(())
    }

    /// Whether a whole text has been read; a bare number counts as whole only once something follows it.
    pub fn is_complete(&self) -> bool {
        self.state == State::End
    }

    /// Whether the text is an object, as far as it has been read.
    pub fn is_object(&self) -> bool {
        self.is_object
    }

    /// Says that nothing follows.
    ///
    /// # Errors
    /// [`Malformed`] if the text is not whole.
    pub fn finish(&self) -> Result<(), Malformed> {
        match self.state {
            State::End => Ok(()),
            State::Number(number) if self.depth == 0 && number.may_end() => Ok(()),
            _ => Err(self.malformed(0, "unexpected end")),
        }
    }

    /// The rest of a string that is in this chunk; gives the offset to go on from.
    fn text(
        &mut self,
        key: bool,
        chunk: &[u8],
        at: usize,
        mark: &mut impl FnMut(Mark, usize),
    ) -> Result<usize, Malformed> {
        let at = at + plain_run(chunk.get(at..).unwrap_or_default());
        match chunk.get(at) {
            None => return Ok(at),
            Some(b'"') if key => {
                if self.depth == 1 {
                    mark(Mark::KeyEnd, at);
                }
                self.state = State::Colon;
            }
            Some(b'"') => self.end_value(at + 1, mark),
            Some(b'\\') => self.state = State::Escape { key },
            Some(_) => return Err(self.malformed(at, "control character in a string")),
        }
        Ok(at + 1)
    }

    /// A byte that is a token of its own, or a step of an escape or literal.
    fn single(&mut self, byte: u8, at: usize, mark: &mut impl FnMut(Mark, usize)) -> Result<(), Malformed> {
        match (self.state, byte) {
            (State::Value | State::ValueOrEnd, b'"' | b'{' | b'[' | b'-' | b'0'..=b'9')
            | (State::Value | State::ValueOrEnd, b't' | b'f' | b'n') => {
                return self.begin_value(byte, at, mark);
            }
            (State::ValueOrEnd | State::CommaOrEnd, b']') if !self.in_object() => {
                self.close(at, mark);
            }
            (State::KeyOrEnd | State::CommaOrEnd, b'}') if self.in_object() => {
                self.close(at, mark);
            }
            (State::CommaOrEnd, b',') if self.in_object() => self.state = State::Key,
            (State::CommaOrEnd, b',') => self.state = State::Value,
            (State::Key | State::KeyOrEnd, b'"') => {
                if self.depth == 1 {
                    mark(Mark::KeyStart, at + 1);
                }
                self.state = State::Text { key: true };
            }
            (State::Colon, b':') => self.state = State::Value,
            (State::Escape { key }, b'u') => self.state = State::Hex { key, left: 4 },
            (State::Escape { key }, b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => {
                self.state = State::Text { key }
            }
            (State::Hex { key, left }, _) if byte.is_ascii_hexdigit() => {
                self.state = match left {
                    1 => State::Text { key },
                    _ => State::Hex { key, left: left - 1 },
                };
            }
            (State::Literal([next, rest @ ..]), _) if *next == byte => match rest {
                [] => self.end_value(at + 1, mark),
                rest => self.state = State::Literal(rest),
            },
            (State::End, _) => return Err(self.malformed(at, "trailing characters")),
            (State::Escape { .. } | State::Hex { .. }, _) => {
                return Err(self.malformed(at, "malformed escape"));
            }
            _ => return Err(self.malformed(at, "unexpected character")),
        }
        Ok(())
    }

    fn begin_value(
        &mut self,
        byte: u8,
        at: usize,
        mark: &mut impl FnMut(Mark, usize),
    ) -> Result<(), Malformed> {
        if self.depth == 1 && self.in_object() {
            mark(Mark::ValueStart, at);
        }
        self.state = match byte {
            b'{' | b'[' => return self.open(byte == b'{', at),
            b'"' => State::Text { key: false },
            b't' => State::Literal(b"rue"),
            b'f' => State::Literal(b"alse"),
            b'n' => State::Literal(b"ull"),
            b'-' => State::Number(Number::Minus),
            b'0' => State::Number(Number::Zero),
            _ => State::Number(Number::Whole),
        };
        Ok(())
    }

    fn end_value(&mut self, end: usize, mark: &mut impl FnMut(Mark, usize)) {
        if self.depth == 1 && self.in_object() {
            mark(Mark::ValueEnd, end);
        }
        self.state = match self.depth {
            0 => State::End,
            _ => State::CommaOrEnd,
        };
    }

    fn open(&mut self, object: bool, at: usize) -> Result<(), Malformed> {
        if self.depth == MAX_DEPTH {
            return Err(self.malformed(at, "nested too deeply"));
        }
        if self.depth == 0 {
            self.is_object = object;
        }
        self.depth += 1;
        self.objects = (self.objects << 1) | u128::from(object);
        self.state = if object { State::KeyOrEnd } else { State::ValueOrEnd };
        Ok(())
    }

    fn close(&mut self, at: usize, mark: &mut impl FnMut(Mark, usize)) {
        self.depth -= 1;
        self.objects >>= 1;
        self.end_value(at + 1, mark);
    }

    fn in_object(&self) -> bool {
        self.depth > 0 && self.objects & 1 == 1
    }

    fn may_have_space(&self) -> bool {
        !matches!(self.state, State::Escape { .. } | State::Hex { .. } | State::Literal(_))
    }

    fn malformed(&self, at: usize, reason: &'static str) -> Malformed {
        Malformed { offset: self.before + at as u64, reason }
    }
}

// === impl Number ===

impl Number {
    fn next(self, byte: u8) -> Option<Self> {
        match (self, byte) {
            (Self::Minus, b'0') => Some(Self::Zero),
            (Self::Minus, b'1'..=b'9') | (Self::Whole, b'0'..=b'9') => Some(Self::Whole),
            (Self::Zero | Self::Whole, b'.') => Some(Self::Point),
            (Self::Point | Self::Fraction, b'0'..=b'9') => Some(Self::Fraction),
            (Self::Zero | Self::Whole | Self::Fraction, b'e' | b'E') => Some(Self::Exponent),
            (Self::Exponent, b'+' | b'-') => Some(Self::ExponentSign),
            (Self::Exponent | Self::ExponentSign | Self::ExponentDigits, b'0'..=b'9') => {
                Some(Self::ExponentDigits)
            }
            _ => None,
        }
    }

    fn may_end(self) -> bool {
        matches!(self, Self::Zero | Self::Whole | Self::Fraction | Self::ExponentDigits)
    }
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

/// How many bytes of a string go before its end, an escape or a byte that may not be there. Most bytes of a
/// large body are here, so many are looked at together: first for where to stop, then for what may not come
/// before.
fn plain_run(bytes: &[u8]) -> usize {
    let end = memchr::memchr2(b'"', b'\\', bytes).unwrap_or(bytes.len());
    let run = bytes.get(..end).unwrap_or_default();
    let least = run.iter().fold(u8::MAX, |least, &byte| least.min(byte));
    if least >= b' ' {
        return end;
    }
    run.iter().position(|&byte| byte < b' ').unwrap_or(end)
}

#[cfg(test)]
mod tests;
