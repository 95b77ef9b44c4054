//! The token itself: what may be one, and how it stays out of logs.

use std::fmt;

use crate::Fingerprint;

/// Tokens shorter than this many bytes can be guessed; they work, but the operator should be warned.
const SHORT: usize = 16;

/// A bearer token. Its `Debug` prints nothing of it and it has no `Display`.
#[derive(Clone, PartialEq, Eq)]
pub struct BearerToken(Box<str>);

/// Why a text cannot be a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Nothing in it.
    #[error("the token is empty")]
    Empty,
    /// A character that cannot travel in an `Authorization` header without being altered.
    #[error("the token holds a space, a control character or a character outside ASCII")]
    Unprintable,
}

impl BearerToken {
    /// Takes a token as it is: nothing is trimmed, since a token that differs from what was typed is found out late.
    ///
    /// # Errors
    /// [`TokenError`] for an empty text and for anything but visible ASCII.
    pub fn parse(text: &str) -> Result<Self, TokenError> {
        match text.as_bytes() {
            [] => Err(TokenError::Empty),
            bytes if bytes.iter().all(u8::is_ascii_graphic) => Ok(Self(text.into())),
            _ => Err(TokenError::Unprintable),
        }
    }

    /// The token's text, for the one place that sends it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// What logs may show of it.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(self.0.as_bytes())
    }

    /// Whether it is short enough to be guessed.
    #[must_use]
    pub fn is_short(&self) -> bool {
        self.0.len() < SHORT
    }
}

impl fmt::Debug for BearerToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BearerToken(…)")
    }
}
