//! As much of HTTP/1.1 as a client needs that sends one request again and again.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use crate::BoxError;

/// A server that says nothing for so long has failed.
const SILENCE: Duration = Duration::from_secs(20);

/// A connection that is kept open.
pub(crate) struct Connection {
    stream: BufReader<TcpStream>,
    line: String,
    body: Vec<u8>,
}

// === impl Connection ===

impl Connection {
    pub(crate) fn new(stream: TcpStream) -> Result<Self, BoxError> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(SILENCE))?;
        let stream = BufReader::with_capacity(16 * 1024, stream);
        Ok(Self { stream, line: String::new(), body: Vec::new() })
    }

    /// Sends the request and reads all of its answer, which must be 200.
    pub(crate) fn exchange(&mut self, request: &[u8]) -> Result<(), BoxError> {
        self.stream.get_mut().write_all(request)?;
        let status = self.next_line()?.to_owned();
        if status.split(' ').nth(1) != Some("200") {
            return Err(format!("answered with `{status}`").into());
        }
        let mut length = None;
        let mut chunked = false;
        loop {
            let line = self.next_line()?;
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(':').ok_or("a header without a colon")?;
            if name.eq_ignore_ascii_case("content-length") {
                length = Some(value.trim().parse::<usize>()?);
            }
            chunked |= name.eq_ignore_ascii_case("transfer-encoding") && value.contains("chunked");
        }
        match length {
            _ if chunked => self.chunks(),
            Some(length) => self.skip(length),
            None => Err("an answer without a length".into()),
        }
    }

    fn chunks(&mut self) -> Result<(), BoxError> {
        loop {
            let size = usize::from_str_radix(self.next_line()?, 16)?;
            // The end of the line after it, too.
            self.skip(size + 2)?;
            if size == 0 {
                return Ok(());
            }
        }
    }

    fn skip(&mut self, bytes: usize) -> Result<(), BoxError> {
        self.body.resize(bytes, 0);
        self.stream.read_exact(&mut self.body)?;
        Ok(())
    }

    fn next_line(&mut self) -> Result<&str, BoxError> {
        self.line.clear();
        if self.stream.read_line(&mut self.line)? == 0 {
            return Err("the server closed the connection".into());
        }
        Ok(self.line.trim_end())
    }
}
