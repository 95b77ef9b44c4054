//! The simulated engine as a program, `mock-engine`, for tests and benchmarks.

use super::flags::{Flag, Rule};
use super::{Table, Value, When, line};

#[rustfmt::skip]
pub(super) const TABLE: Table = Table {
    lines: &[
        line("--listen", Value::Address, When::Always),
        line("--model", Value::ServedName, When::Always),
        line("--slots", Value::Slots, When::Always),
        line("--ctx", Value::Ctx, When::Always),
    ],
    flags: &[
        Flag { names: &["--listen"], has_value: true, rule: Rule::Owned("set `provisioning.ports`") },
        Flag { names: &["--unix"], has_value: true, rule: Rule::Owned("set `provisioning.ports`") },
        Flag { names: &["--slots"], has_value: true, rule: Rule::Owned("set the pool's `slots`") },
        Flag { names: &["--model"], has_value: true, rule: Rule::Free },
        Flag { names: &["--ctx"], has_value: true, rule: Rule::Free },
    ],
    sockets: None,
    variables: &[],
};
