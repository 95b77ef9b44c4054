//! The rate a bucket keeps, and which buckets are kept.

use proptest::prelude::*;

use super::{ErrorKind, PolicyLabel, RateLimit, Throttles, TokenBucket};

fn settings(rate_per_s: f64, burst: u32) -> RateLimit {
    RateLimit { rate_per_s, burst }
}

/// ORCH-3006, LO-ERR-04, LO-ERR-08: as many at once as the burst, then at the rate; the refusal says what was limited
/// and how long to wait.
#[test]
fn a_throttle_refuses_what_comes_too_fast() {
    let mut throttles = Throttles::new(settings(2.0, 3), "this API token");
    for _ in 0..3 {
        throttles.take(&"a", 1_000).expect("within the burst");
    }
    let refusal = throttles.take(&"a", 1_020).expect_err("the burst is used up");
    assert_eq!((refusal.kind, refusal.policy_label), (ErrorKind::AdmissionReject, Some(PolicyLabel::RateLimit)));
    assert_eq!((refusal.is_retriable(), refusal.retry_after_ms), (true, Some(480)));
    assert_eq!(refusal.message, "this API token may submit 2 tasks per second; try again in 480 ms");
    assert_eq!(throttles.check(&"a", 1_020), Err(refusal));
    throttles.take(&"b", 1_020).expect("another key has its own bucket");
    throttles.take(&"a", 1_500).expect("it has waited as long as it was told to");
}

/// ORCH-3006: a check takes nothing, so that what is refused for other reasons costs nothing.
#[test]
fn a_check_takes_nothing() {
    let mut throttles = Throttles::new(settings(1.0, 1), "this API token");
    for _ in 0..3 {
        throttles.check(&1, 0).expect("nothing was taken");
    }
    assert!(throttles.is_empty());
    throttles.take(&1, 0).expect("nothing was taken");
    assert!(throttles.check(&1, 999).is_err());
    throttles.check(&1, 1_000).expect("a second has passed");
}

/// Settings that make no sense still make a bucket that lets something through.
#[test]
fn senseless_settings_do_not_lock_anyone_out() {
    for rate_per_s in [0.0, -3.0, f64::NAN, f64::MIN_POSITIVE] {
        let mut bucket = TokenBucket::new(settings(rate_per_s, 0), 0);
        bucket.take(0).expect("a burst is at least one");
        assert_eq!(bucket.wait_ms(0), 1_000_000_000);
    }
    let mut endless = TokenBucket::new(settings(f64::INFINITY, u32::MAX), 0);
    endless.take(0).expect("it is full");
    assert_eq!((endless.wait_ms(u64::MAX), endless.full_at_ms()), (0, 1));
}

/// A clock that was read late or runs backwards fills no bucket.
#[test]
fn time_that_runs_backwards_admits_nobody_early() {
    let mut bucket = TokenBucket::new(settings(1.0, 1), 1_000);
    bucket.take(900).expect("it is full");
    assert_eq!((bucket.wait_ms(900), bucket.wait_ms(1_999)), (1_100, 1));
    bucket.take(2_000).expect("a second has passed");
    assert_eq!(bucket.wait_ms(1_500), 1_500);
}

/// Buckets that are full again are forgotten; among too many the one that is nearest to it goes.
#[test]
fn memory_is_bounded() {
    let mut throttles = Throttles { most_keys: 2, ..Throttles::new(settings(1.0, 5), "this API token") };
    for key in ["a", "a", "b", "b", "b", "c"] {
        throttles.take(&key, 0).expect("within the burst");
    }
    let mut kept: Vec<&str> = throttles.buckets.keys().copied().collect();
    kept.sort_unstable();
    assert_eq!(kept, ["b", "c"]);
    throttles.take(&"c", 1_000).expect("within the burst");
    throttles.take(&"c", 2_999).expect("within the burst");
    assert_eq!(throttles.len(), 2);
    throttles.take(&"c", 3_000).expect("within the burst");
    assert_eq!((throttles.len(), throttles.full.len()), (1, 1));
}

#[test]
fn rates_are_spoken_as_people_say_them() {
    let cases = [
        (2.0, "2 tasks per second"),
        (1.0, "1 task per second"),
        (2.5, "2.5 tasks per second"),
        (0.5, "30 tasks per minute"),
        (1.0 / 60.0, "1 task per minute"),
        (0.001, "0.06 tasks per minute"),
    ];
    for (rate_per_s, spoken) in cases {
        assert_eq!(super::spoken(rate_per_s), spoken);
    }
}

fn rates() -> impl Strategy<Value = f64> {
    prop_oneof![0.001..1.0, 1.0..2_000.0, prop::sample::select(&[0.1, 1.0, 3.0, 1_000.0][..])]
}

proptest! {
    /// ORCH-3006: in every stretch of time at most the burst and what the rate adds to it is admitted; who waits as long
    /// as it was told to is admitted, and not a millisecond earlier.
    #[test]
    fn no_stretch_of_time_admits_more_than_its_share(
        rate_per_s in rates(),
        burst in 1_u32..6,
        // `None` waits exactly as long as the bucket says.
        steps in prop::collection::vec(prop::option::weighted(0.8, 0_u64..1_500), 1..60),
    ) {
        let mut bucket = TokenBucket::new(settings(rate_per_s, burst), 7);
        let (mut now_ms, mut admitted_ms) = (7_u64, Vec::new());
        for step in steps {
            now_ms += step.unwrap_or_else(|| bucket.wait_ms(now_ms));
            let wait_ms = bucket.wait_ms(now_ms);
            prop_assert!(wait_ms == 0 || step.is_some());
            if wait_ms > 0 {
                prop_assert_eq!(bucket.take(now_ms).map_err(|throttled| throttled.retry_after_ms), Err(wait_ms));
                prop_assert!(bucket.clone().take(now_ms + wait_ms - 1).is_err());
                prop_assert!(bucket.clone().take(now_ms + wait_ms).is_ok());
            } else {
                prop_assert_eq!(bucket.take(now_ms), Ok(()));
                admitted_ms.push(now_ms);
            }
        }
        // Exact: millionths of a token per second, times milliseconds.
        let rate = (rate_per_s * 1e6).round() as u128;
        let share = |elapsed_ms: u64| u128::from(burst) + u128::from(elapsed_ms) * rate / 1_000_000_000;
        for (first, from_ms) in admitted_ms.iter().enumerate() {
            for (count, until_ms) in admitted_ms[first..].iter().enumerate() {
                prop_assert!((count as u128) < share(until_ms - from_ms));
            }
        }
    }

    /// ORCH-3252: each key is treated as if its bucket were the only one and never forgotten, and the same story told
    /// twice gives the same answers.
    #[test]
    fn keys_do_not_disturb_each_other(
        rate_per_s in rates(),
        burst in 1_u32..4,
        steps in prop::collection::vec((0_usize..6, 0_u64..800), 1..80),
    ) {
        let mut together = [(); 2].map(|()| Throttles::new(settings(rate_per_s, burst), "this API token"));
        let mut alone = [TokenBucket::new(settings(rate_per_s, burst), 0); 6];
        let mut now_ms = 0;
        for (key, passed_ms) in steps {
            now_ms += passed_ms;
            let expected = alone[key].take(now_ms).map_err(|throttled| i64::try_from(throttled.retry_after_ms).ok());
            for throttles in &mut together {
                let checked = throttles.check(&key, now_ms);
                prop_assert_eq!(&checked, &throttles.take(&key, now_ms));
                prop_assert_eq!(checked.map_err(|refusal| refusal.retry_after_ms), expected);
                prop_assert_eq!(throttles.buckets.len(), throttles.full.len());
                prop_assert!(throttles.full.iter().all(|(full_ms, _)| *full_ms > now_ms));
            }
        }
    }
}
