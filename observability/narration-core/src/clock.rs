//! Time stamps: RFC 3339, UTC, milliseconds.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Length of a time stamp such as `2026-01-31T23:59:59.999Z`.
pub(crate) const LEN: usize = 24;

/// The present as a time stamp in ASCII.
pub(crate) fn now() -> [u8; LEN] {
    stamp(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

/// The present in UTC as RFC 3339 has it, with milliseconds: `2026-01-31T23:59:59.999Z`.
#[must_use]
pub fn time_stamp() -> String {
    now().iter().map(|byte| char::from(*byte)).collect()
}

fn stamp(since_epoch: Duration) -> [u8; LEN] {
    let seconds = since_epoch.as_secs();
    let (year, month, day) = date(seconds / 86_400);
    let in_day = seconds % 86_400;
    let mut out = *b"0000-00-00T00:00:00.000Z";
    digits(&mut out[0..4], year);
    digits(&mut out[5..7], month);
    digits(&mut out[8..10], day);
    digits(&mut out[11..13], in_day / 3600);
    digits(&mut out[14..16], in_day / 60 % 60);
    digits(&mut out[17..19], in_day % 60);
    digits(&mut out[20..23], u64::from(since_epoch.subsec_millis()));
    out
}

fn digits(out: &mut [u8], mut value: u64) {
    for digit in out.iter_mut().rev() {
        *digit = b'0' + (value % 10) as u8;
        value /= 10;
    }
}

/// Year, month and day of a day since 1970-01-01 in the Gregorian calendar. Source: H. Hinnant, "chrono-compatible
/// low-level date algorithms", `civil_from_days`, for days that are not negative.
fn date(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    // Counted from March, so that the leap day is the last of its year.
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::stamp;
    use std::time::Duration;

    /// HME-030: time stamps are RFC 3339 in UTC. Expected values are those of `date -u -d @SECONDS`.
    #[test]
    fn known_moments() {
        for (ms, expected) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399_999, "2000-02-28T23:59:59.999Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (951_868_800_000, "2000-03-01T00:00:00.000Z"),
            (1_767_225_599_001, "2025-12-31T23:59:59.001Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(std::str::from_utf8(&stamp(Duration::from_millis(ms))), Ok(expected));
        }
    }
}
