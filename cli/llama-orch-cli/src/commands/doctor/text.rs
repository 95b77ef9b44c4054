//! A report for people: grouped by pool, each failure with what mends it.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use api_types::{DoctorCheck, DoctorOutcome, DoctorReport};
use config_schema::{Loaded, Pool};

/// The whole report.
pub(super) fn of(loaded: &Loaded, report: &DoctorReport) -> String {
    let mut text = String::from("this machine\n");
    group(&mut text, report.checks.iter().filter(|check| check.pool_id.is_none()));
    for pool in &loaded.config.pools {
        let _ = writeln!(text, "\npool {}: {} by {}, {}", pool.id, pool.engine, pool.mode(), pool.model);
        group(&mut text, of_pool(report, pool));
    }
    let _ = writeln!(text, "\n{}", verdict(loaded, report));
    text
}

/// What is not as it should be, and nothing else.
pub(in crate::commands) fn problems(report: &DoctorReport) -> String {
    let mut text = String::new();
    let mut told = BTreeSet::new();
    let problems = report.checks.iter().filter(|check| check.outcome != DoctorOutcome::Pass);
    // What every pool lacks is told once.
    for check in problems.filter(|check| told.insert(&check.detail)) {
        let of = check.pool_id.as_ref().map(|pool| format!("pool {pool}: ")).unwrap_or_default();
        line(&mut text, &of, check, 0);
    }
    text
}

/// Things to be mended. What every pool lacks counts once.
pub(in crate::commands) fn failures(report: &DoctorReport) -> usize {
    let failed = report.checks.iter().filter(|check| check.outcome == DoctorOutcome::Fail);
    failed.map(|check| &check.detail).collect::<BTreeSet<_>>().len()
}

/// `1 pool`, `3 pools`.
pub(super) fn pools_of(count: usize) -> String {
    if count == 1 { "1 pool".to_owned() } else { format!("{count} pools") }
}

fn of_pool<'a>(report: &'a DoctorReport, pool: &Pool) -> impl Iterator<Item = &'a DoctorCheck> {
    let id = pool.id.to_string();
    report.checks.iter().filter(move |check| check.pool_id.as_ref() == Some(&id))
}

fn group<'a>(text: &mut String, checks: impl Iterator<Item = &'a DoctorCheck>) {
    let checks: Vec<_> = checks.collect();
    let width = checks.iter().map(|check| check.name.chars().count()).max().unwrap_or_default();
    for check in checks {
        line(text, "", check, width);
    }
}

fn line(text: &mut String, of: &str, check: &DoctorCheck, width: usize) {
    let mark = match check.outcome {
        DoctorOutcome::Pass => '✓',
        DoctorOutcome::Warn => '!',
        DoctorOutcome::Fail => '✗',
    };
    let fault = check.fault.map(|fault| format!(" [{fault}]")).unwrap_or_default();
    let _ = writeln!(text, "  {mark} {of}{:width$}  {}{fault}", check.name, check.detail);
    if let Some(fix) = check.fix.as_ref().filter(|_| check.outcome != DoctorOutcome::Pass) {
        let _ = writeln!(text, "      fix: {fix}");
    }
}

fn verdict(loaded: &Loaded, report: &DoctorReport) -> String {
    let failures = failures(report);
    let pools = &loaded.config.pools;
    let fails = |pool: &&Pool| of_pool(report, pool).any(|check| check.outcome == DoctorOutcome::Fail);
    let stuck = pools.iter().filter(fails).count();
    match (failures, pools.len()) {
        (0, 0) => "this machine is ready for engines; there is no pool yet".to_owned(),
        (0, _) => "nothing is in the way of any pool: llama-orch up".to_owned(),
        (failures, all) => {
            let things = if failures == 1 { "1 thing is" } else { &format!("{failures} things are") };
            format!("{things} to be mended; {stuck} of {} cannot start", pools_of(all))
        }
    }
}
