//! Where the keys of session tokens come from.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use base64::{Engine as _, engine::DecodePaddingMode, engine::GeneralPurpose, engine::GeneralPurposeConfig};
use nantian_lb::session::{NoRandomness, SessionKeys};

/// Where the keys of session tokens come from: a file that replicas share, or chance.
#[derive(Debug)]
pub(crate) struct SessionKeySource {
    path: Option<PathBuf>,
    keys: SessionKeys,
}

/// A key file that gives no keys. What it holds is not shown.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum InvalidKeyFile {
    /// It cannot be read.
    #[error("{path:?} cannot be read")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It holds something else.
    #[error(
        "{path:?}, line {line}: {problem}; a key is 32 random bytes in base64, as `head -c 32 /dev/urandom | base64` makes it"
    )]
    NoKey {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// What is wrong with it.
        problem: String,
    },
    /// It holds no key, or more than anybody needs.
    #[error("{path:?} has {found} keys, one a line; it may have 1 to {MAX_KEYS}")]
    Count {
        /// The file.
        path: PathBuf,
        /// How many there are.
        found: usize,
    },
}

/// A ring of more keys than this is a mistake.
const MAX_KEYS: usize = 64;
/// No key file is as long as this.
const MAX_BYTES: u64 = 65_536;
const KEY: usize = 32;

// === impl SessionKeySource ===

impl SessionKeySource {
    /// A key that nobody else has: sessions end with the process.
    ///
    /// # Errors
    /// [`NoRandomness`].
    pub(crate) fn random() -> Result<Self, NoRandomness> {
        Ok(Self { path: None, keys: SessionKeys::random()? })
    }

    /// The keys in a file: one a line in base64; the first seals, all open. Empty lines and lines that begin
    /// with `#` do not count.
    ///
    /// # Errors
    /// [`InvalidKeyFile`].
    pub(crate) fn file(path: PathBuf) -> Result<Self, InvalidKeyFile> {
        let keys = read(&path)?;
        Ok(Self { path: Some(path), keys })
    }

    /// The file, if there is one.
    pub(crate) fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// The keys as they were read last.
    pub(crate) fn keys(&self) -> &SessionKeys {
        &self.keys
    }

    /// Reads the file again. One that has become bad changes nothing.
    pub(super) fn reload(&mut self) -> Result<(), InvalidKeyFile> {
        if let Some(path) = &self.path {
            self.keys = read(path)?;
        }
        Ok(())
    }
}

fn read(path: &Path) -> Result<SessionKeys, InvalidKeyFile> {
    let unreadable = |source| InvalidKeyFile::Unreadable { path: path.to_owned(), source };
    let mut text = String::new();
    let file = File::open(path).map_err(unreadable)?;
    file.take(MAX_BYTES).read_to_string(&mut text).map_err(unreadable)?;
    let lines = (1..).zip(text.lines().map(str::trim));
    let lines = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    let keys = lines.map(|(line, text)| {
        key(text).map_err(|problem| InvalidKeyFile::NoKey { path: path.to_owned(), line, problem })
    });
    let keys = keys.collect::<Result<Vec<_>, _>>()?;
    let count = InvalidKeyFile::Count { path: path.to_owned(), found: keys.len() };
    if keys.len() > MAX_KEYS {
        return Err(count);
    }
    SessionKeys::new(keys).map_err(|_| count)
}

/// Reads a key in either alphabet of base64, padded or not.
fn key(text: &str) -> Result<[u8; KEY], String> {
    let padding = DecodePaddingMode::Indifferent;
    let config = GeneralPurposeConfig::new().with_decode_padding_mode(padding);
    let alphabet =
        if text.contains(['-', '_']) { &base64::alphabet::URL_SAFE } else { &base64::alphabet::STANDARD };
    // The error would show a byte of the key.
    let bytes = GeneralPurpose::new(alphabet, config).decode(text).map_err(|_| "not base64".to_owned())?;
    let length = bytes.len();
    bytes.try_into().map_err(|_| format!("{length} bytes"))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};

    use super::*;

    fn source(text: &str) -> Result<SessionKeys, String> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keys");
        fs::write(&path, text).unwrap();
        let keys = SessionKeySource::file(path).map(|source| source.keys().clone());
        keys.map_err(|error| error.to_string().split_once("keys\"").unwrap().1.to_owned())
    }

    #[test]
    fn keys_are_read_in_every_base64_and_the_first_is_the_first() {
        let text = format!(
            "# the new one\n{}\n\n  {}\r\n",
            BASE64_STANDARD.encode([0xff; 32]),
            BASE64_URL_SAFE_NO_PAD.encode([0xfb; 32])
        );
        assert_eq!(source(&text).unwrap(), SessionKeys::new([[0xff; 32], [0xfb; 32]]).unwrap());
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line_and_without_its_content() {
        let good = BASE64_STANDARD.encode([1; 32]);
        let short = source(&format!("{good}\n{}", BASE64_STANDARD.encode([1; 16]))).unwrap_err();
        assert!(short.starts_with(", line 2: 16 bytes; a key is 32 random bytes in base64"), "{short}");
        let foreign = source("correct horse battery staple").unwrap_err();
        assert!(foreign.starts_with(", line 1: not base64") && !foreign.contains("horse"), "{foreign}");
        assert_eq!(source("# nothing\n").unwrap_err(), " has 0 keys, one a line; it may have 1 to 64");
        let many = source(&format!("{good}\n").repeat(65)).unwrap_err();
        assert_eq!(many, " has 65 keys, one a line; it may have 1 to 64");
    }

    #[test]
    fn a_file_that_becomes_bad_changes_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keys");
        fs::write(&path, BASE64_STANDARD.encode([1; 32])).unwrap();
        let mut source = SessionKeySource::file(path.clone()).unwrap();
        fs::write(&path, "no key").unwrap();
        assert!(source.reload().is_err());
        assert_eq!(*source.keys(), SessionKeys::new([[1; 32]]).unwrap());
        fs::write(&path, BASE64_STANDARD.encode([2; 32])).unwrap();
        source.reload().unwrap();
        assert_eq!(*source.keys(), SessionKeys::new([[2; 32]]).unwrap());
    }
}
