//! How much one page of a list holds.

use api_types::{ErrorEnvelope, ErrorKind};

const DEFAULT: u32 = 100;
const LONGEST: u32 = 1000;

/// Entries of one page: what was asked for, else 100.
///
/// # Errors
/// `INVALID_PARAMS` for none or too many.
pub fn length(asked: Option<u32>) -> Result<usize, ErrorEnvelope> {
    let length = asked.unwrap_or(DEFAULT);
    if !(1..=LONGEST).contains(&length) {
        let message = format!("`limit` is a number from 1 to {LONGEST}");
        return Err(ErrorEnvelope::new(ErrorKind::InvalidParams, message));
    }
    Ok(length as usize)
}
