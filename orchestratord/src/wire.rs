//! Our numbers in the contract's signed types. What does not fit, which nothing real reaches, becomes the largest that does.

/// A count or an index.
pub(crate) fn int(value: impl TryInto<i32>) -> i32 {
    value.try_into().unwrap_or(i32::MAX)
}

/// Milliseconds, or a large count.
pub(crate) fn long(value: impl TryInto<i64>) -> i64 {
    value.try_into().unwrap_or(i64::MAX)
}
