//! Content digests (LO-CAT-06).

use std::fmt;
use std::io::Read;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// Bytes read at once while a file is hashed.
const CHUNK: usize = 1 << 20;

/// A SHA-256 digest, written `sha256:<64 hex>` in lower case.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(String);

/// A text is no digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`sha256:` and 64 hex digits are wanted")]
pub struct DigestError;

impl Digest {
    /// The algorithm; there is one.
    pub const ALGORITHM: &'static str = "sha256";

    /// The digest of bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self::finish(Sha256::new_with_prefix(bytes))
    }

    /// The digest that a hasher has come to.
    #[must_use]
    pub fn finish(hasher: Sha256) -> Self {
        let hex: String = hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        Self(format!("{}:{hex}", Self::ALGORITHM))
    }

    /// The digest of everything a reader has; `seen` is told after each chunk how many bytes it had.
    ///
    /// # Errors
    /// Whatever the reader or `seen` says.
    pub fn read(mut reader: impl Read, mut seen: impl FnMut(u64) -> std::io::Result<()>) -> std::io::Result<Self> {
        let mut hasher = Sha256::new();
        let mut chunk = vec![0; CHUNK];
        loop {
            match reader.read(&mut chunk)? {
                0 => return Ok(Self::finish(hasher)),
                length => {
                    hasher.update(&chunk[..length]);
                    seen(length as u64)?;
                }
            }
        }
    }

    /// The 64 hex digits.
    #[must_use]
    pub fn hex(&self) -> &str {
        &self.0[Self::ALGORITHM.len() + 1..]
    }

    /// `sha256:<64 hex>`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    /// Takes `sha256:<64 hex>` and the hex digits alone, in any case.
    fn from_str(text: &str) -> Result<Self, DigestError> {
        let text = text.trim();
        let hex = match text.split_once(':') {
            Some((algorithm, hex)) if algorithm.eq_ignore_ascii_case(Self::ALGORITHM) => hex,
            Some(_) => return Err(DigestError),
            None => text,
        };
        let is_hex = hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_hex.then(|| Self(format!("{}:{}", Self::ALGORITHM, hex.to_ascii_lowercase()))).ok_or(DigestError)
    }
}

impl TryFrom<String> for Digest {
    type Error = DigestError;
    fn try_from(text: String) -> Result<Self, DigestError> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
