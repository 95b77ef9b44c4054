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

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};

    use super::{Digest, DigestError};

    /// LO-CAT-06: the digest of a text that everybody knows, in the forms it is written in.
    #[test]
    fn digests_are_read_and_written() {
        let hex = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let digest = Digest::of(b"abc");
        assert_eq!((digest.hex(), digest.to_string()), (hex, format!("sha256:{hex}")));
        for text in [hex.to_owned(), hex.to_uppercase(), format!("SHA256:{hex}"), format!(" sha256:{hex}\n")] {
            assert_eq!(text.parse(), Ok(digest.clone()), "{text}");
        }
        for text in
            ["", "sha256:", &hex[1..], &format!("{hex}0"), &format!("md5:{hex}"), &format!("sha256:{}g", &hex[1..])]
        {
            assert_eq!(text.parse::<Digest>(), Err(DigestError), "{text}");
        }
    }

    proptest! {
        /// LO-CAT-06: bytes have one digest, however they are read, and it survives being written.
        #[test]
        fn a_digest_is_of_the_bytes(bytes in any::<Vec<u8>>(), other in any::<Vec<u8>>()) {
            let digest = Digest::of(&bytes);
            let mut seen = 0;
            let read = Digest::read(bytes.as_slice(), |length| {
                seen += length;
                Ok(())
            });
            prop_assert_eq!(read.expect("memory is read"), digest.clone());
            prop_assert_eq!(seen, bytes.len() as u64);
            let text = serde_json::to_string(&digest).expect("it is text");
            prop_assert_eq!(serde_json::from_str::<Digest>(&text).expect("it is a digest"), digest.clone());
            prop_assert!((Digest::of(&other) == digest) == (other == bytes));
        }
    }
}
