//! The ledger against a device whose truth it never sees but through readings that are late.

use proptest::prelude::*;

use super::super::{Ledger, Part};

const TOTAL: u64 = 24_000;
const RESERVE: u64 = 1_000;

/// What really happens on a device.
#[derive(Clone, Copy, Debug)]
enum Happening {
    /// Somebody asks for memory.
    Ask { tenant: usize, bytes: u64 },
    /// An engine that was promised memory takes the next part of it.
    Take { tenant: usize, share: u64 },
    /// It has taken all and serves.
    Loaded { tenant: usize },
    /// It ends; its memory comes back later.
    End { tenant: usize },
    /// The driver gives back what ended engines held.
    GiveBack,
    /// Another program takes and returns memory, within its reserve.
    Others { bytes: u64 },
    /// The device is looked at, and the ledger is told so many happenings later; or at once.
    Look { told_late: bool },
}

fn happening() -> impl Strategy<Value = Happening> {
    let tenant = 0_usize..6;
    prop_oneof![
        3 => (tenant.clone(), 500_u64..14_000).prop_map(|(tenant, bytes)| Happening::Ask { tenant, bytes }),
        4 => (tenant.clone(), 1_u64..=100).prop_map(|(tenant, share)| Happening::Take { tenant, share }),
        2 => tenant.clone().prop_map(|tenant| Happening::Loaded { tenant }),
        2 => tenant.prop_map(|tenant| Happening::End { tenant }),
        2 => Just(Happening::GiveBack),
        2 => (0..=RESERVE).prop_map(|bytes| Happening::Others { bytes }),
        4 => any::<bool>().prop_map(|told_late| Happening::Look { told_late }),
    ]
}

#[derive(Clone, Copy, Default)]
struct Engine {
    promised: u64,
    held: u64,
    is_up: bool,
}

/// The truth, and a reading that is still on its way to the ledger.
#[derive(Default)]
struct Device {
    engines: [Engine; 6],
    ended: u64,
    others: u64,
}

/// What is free, what tenants hold, and when that was read.
type Reading = (u64, Vec<(usize, u64)>, u64);

impl Device {
    fn free(&self) -> i64 {
        let held: u64 = self.engines.iter().map(|engine| engine.held).sum();
        TOTAL as i64 - (held + self.ended + self.others) as i64
    }

    fn held(&self) -> Vec<(usize, u64)> {
        self.engines
            .iter()
            .enumerate()
            .filter(|(_, engine)| engine.is_up)
            .map(|(of, engine)| (of, engine.held))
            .collect()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// LO-SWP-02: whatever happens, and however late it is learned, an engine that takes no more than it was promised finds it, as
    /// long as other programs stay within their reserve.
    #[test]
    fn what_is_promised_is_there(story in prop::collection::vec(happening(), 1..120)) {
        let mut ledger = Ledger::default();
        let device = ledger.add_device(TOTAL, RESERVE);
        let mut truth = Device::default();
        let mut late: Option<Reading> = None;
        for (now_ms, happening) in (1_u64..).zip(story) {
            match happening {
                Happening::Ask { tenant, bytes } if !truth.engines[tenant].is_up => {
                    if ledger.promise(tenant, &[Part { device, bytes }]).is_ok() {
                        truth.engines[tenant] = Engine { promised: bytes, held: 0, is_up: true };
                    }
                }
                Happening::Take { tenant, share } => {
                    let engine = &mut truth.engines[tenant];
                    let more = (engine.promised - engine.held) * share / 100;
                    engine.held += more;
                    prop_assert!(truth.free() >= 0, "{} bytes more than there are", -truth.free());
                }
                Happening::Loaded { tenant } if truth.engines[tenant].is_up => {
                    let engine = &mut truth.engines[tenant];
                    engine.held = engine.promised;
                    prop_assert!(truth.free() >= 0, "{} bytes more than there are", -truth.free());
                    ledger.loaded(tenant, now_ms);
                }
                Happening::End { tenant } if truth.engines[tenant].is_up => {
                    truth.ended += std::mem::take(&mut truth.engines[tenant]).held;
                    ledger.released(tenant, now_ms);
                }
                Happening::GiveBack => truth.ended = 0,
                Happening::Others { bytes } => {
                    // Memory that is not there cannot be taken by others either.
                    truth.others = bytes.min(truth.others + truth.free().max(0) as u64);
                }
                Happening::Look { told_late } => {
                    if let Some((free, held, taken_ms)) = late.take() {
                        // Who has ended since is known to have.
                        let held: Vec<_> = held.into_iter().filter(|(of, _)| truth.engines[*of].is_up).collect();
                        ledger.read(device, Some(free), &held, taken_ms);
                    }
                    let reading = (truth.free().max(0) as u64, truth.held(), now_ms);
                    if told_late {
                        late = Some(reading);
                    } else {
                        ledger.read(device, Some(reading.0), &reading.1, reading.2);
                    }
                }
                Happening::Ask { .. } | Happening::Loaded { .. } | Happening::End { .. } => {}
            }
        }
    }
}

/// LO-SWP-02: what is read counts, less what is promised and not taken; nothing is promised of a device that cannot be read.
#[test]
fn promises_count_until_they_are_seen() {
    let mut ledger = Ledger::default();
    let device = ledger.add_device(TOTAL, RESERVE);
    assert_eq!(ledger.available(device), None);
    let part = |bytes| [Part { device, bytes }];
    assert_eq!(ledger.promise(0, &part(1)), Err(part(1).to_vec()));
    ledger.read(device, Some(23_500), &[], 1);
    assert_eq!(ledger.available(device), Some(23_000), "what others use counts towards the reserve");
    assert_eq!(ledger.promise(0, &part(10_000)), Ok(()));
    assert_eq!(ledger.available(device), Some(13_000));
    assert_eq!(ledger.promise(1, &part(14_000)), Err(part(1_000).to_vec()), "by how much is said");
    // Half of it is taken.
    for at_ms in 2..6 {
        ledger.read(device, Some(18_500), &[(0, 5_000)], at_ms);
        // What is free may have been read before what is held: the first reading is not relied on.
        assert_eq!(ledger.available(device), Some(if at_ms == 2 { 8_000 } else { 13_000 }));
    }
    ledger.loaded(0, 6);
    ledger.read(device, Some(14_500), &[(0, 9_000)], 7);
    assert_eq!(ledger.measured(0), Some(part(9_000).to_vec()), "it needs less than was thought");
    assert_eq!(ledger.available(device), Some(14_000));
    ledger.released(0, 8);
    assert_eq!((ledger.available(device), ledger.coming(device, 9)), (Some(14_000), 9_000));
    ledger.read(device, Some(14_500), &[], 9);
    assert_eq!((ledger.available(device), ledger.coming(device, 10)), (Some(14_000), 9_000), "it is not back yet");
    ledger.read(device, Some(23_500), &[], 10);
    assert_eq!((ledger.available(device), ledger.coming(device, 11)), (Some(23_000), 0));
}

/// LO-SWP-02: a reading that is told again is no second one: what is free may still have been read before what is held.
#[test]
fn a_reading_told_twice_counts_once() {
    let mut ledger = Ledger::default();
    let device = ledger.add_device(TOTAL, 0);
    ledger.read(device, Some(TOTAL), &[], 1);
    assert_eq!(ledger.promise(0, &[Part { device, bytes: 10_000 }]), Ok(()));
    for _ in 0..3 {
        ledger.read(device, Some(TOTAL), &[(0, 4_000)], 2);
        assert_eq!(ledger.available(device), Some(TOTAL - 10_000));
    }
    ledger.read(device, Some(TOTAL - 4_000), &[(0, 4_000)], 3);
    assert_eq!(ledger.available(device), Some(TOTAL - 10_000));
}
