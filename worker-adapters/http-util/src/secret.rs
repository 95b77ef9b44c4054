//! A key towards an engine (LO-WAD-12).

use std::fmt;
use std::sync::Arc;

use narration_core::REDACTED;

/// A key that never prints. Not comparable: a comparison that takes time by its content would tell it bit by bit.
#[derive(Clone)]
pub struct Secret(Arc<str>);

impl Secret {
    /// The key itself, for the one place that sends it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Secret {
    fn from(key: &str) -> Self {
        Self(key.into())
    }
}

impl From<String> for Secret {
    fn from(key: String) -> Self {
        Self(key.into())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(REDACTED)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// LO-WAD-12: a key that ends up in a debug line is not told.
    #[test]
    fn never_prints() {
        assert_eq!(format!("{:?}", Secret::from("sk-secret")), REDACTED);
    }
}
