//! Who called, in the only two forms that logs show.

use std::fmt;

use sha2::{Digest, Sha256};

/// The first 6 hex digits of a token's SHA-256 (LO-AUTH-01).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint([u8; 6]);

impl Fingerprint {
    /// The fingerprint of a token's bytes.
    #[must_use]
    pub fn of(token: &[u8]) -> Self {
        Self::of_digest(&Sha256::digest(token).into())
    }

    pub(crate) fn of_digest(digest: &[u8; 32]) -> Self {
        const HEX: &[u8; 16] = b"0123456789abcdef";
        Self(std::array::from_fn(|i| {
            let byte = digest[i / 2];
            HEX[usize::from(if i % 2 == 0 { byte >> 4 } else { byte & 15 })]
        }))
    }

    /// The six digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("hex digits are ASCII")
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A caller who passed. Displays as `localhost` or `token:<fp6>` (AUTH-1008); copying costs nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Identity {
    /// A loopback caller without the token.
    Localhost,
    /// A caller with the token, or with the credential that a trusted proxy passed on.
    Token(Fingerprint),
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Localhost => f.write_str("localhost"),
            Self::Token(fingerprint) => write!(f, "token:{fingerprint}"),
        }
    }
}
