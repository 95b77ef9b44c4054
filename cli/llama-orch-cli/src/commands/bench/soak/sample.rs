//! The state of the orchestrator, every few seconds.

use std::fmt;
use std::time::Duration;

use openapi_client::Client;
use serde::Serialize;

use super::super::meter::Meter;
use super::super::rig::Orchestrator;
use super::super::statistics::float;
use super::ledger::Ledger;
use crate::failure::Failure;

/// Samples after which one is shown while the load runs.
pub(super) const EVERY_MINUTE: usize = 30;

/// The orchestrator at one moment.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Sample {
    /// Seconds since the load began.
    pub(super) at_s: f64,
    pub(super) rss_kib: u64,
    pub(super) open_files: u64,
    pub(super) threads: u64,
    /// Processor time used so far, in seconds.
    pub(super) cpu_s: f64,
    /// Tasks in queues.
    pub(super) waiting: u64,
    /// Slots in use.
    pub(super) running: u64,
    /// Leases, as its metrics tell.
    pub(super) leases: u64,
    /// Tasks accepted so far.
    pub(super) accepted: u64,
    /// Tasks whose clients have seen their records end, so far.
    pub(super) ended: u64,
    /// Requests refused so far.
    pub(super) refused: u64,
}

/// Takes samples.
pub(super) struct Sampler {
    meter: Meter,
    client: Client,
}

/// Time between two samples: two seconds, and more where that would be thousands of them.
pub(super) fn gap(length: Duration) -> Duration {
    (length / 5000).max(Duration::from_secs(2))
}

impl Sampler {
    pub(super) fn new(orchestrator: &Orchestrator) -> Self {
        Self { meter: orchestrator.meter(), client: orchestrator.client.clone() }
    }

    pub(super) async fn take(&self, at: Duration, ledger: &Ledger) -> Result<Sample, Failure> {
        let pools = self.client.list_pools().await?.pools;
        let leases = leases(&self.client.get_metrics().await?);
        let sum = |values: &mut dyn Iterator<Item = i32>| values.map(|value| u64::try_from(value).unwrap_or(0)).sum();
        let counts = ledger.counts();
        Ok(Sample {
            at_s: at.as_secs_f64(),
            rss_kib: self.meter.memory()?.rss_kib,
            open_files: self.meter.open_files()?,
            threads: self.meter.threads()?,
            cpu_s: self.meter.cpu_time()?.as_secs_f64(),
            waiting: sum(&mut pools.iter().map(|pool| pool.queue_depth)),
            running: sum(&mut pools.iter().map(|pool| pool.slots_total - pool.slots_free)),
            leases,
            accepted: counts.accepted,
            ended: counts.ended_in_all(),
            refused: counts.refused_in_all(),
        })
    }
}

/// The sum over all pools of the gauge `active_leases`.
fn leases(metrics: &str) -> u64 {
    let values = metrics.lines().filter(|line| line.starts_with("active_leases{"));
    values.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { at_s, rss_kib, open_files, accepted, waiting, running, .. } = self;
        write!(
            f,
            "{:.1} min: {:.1} MiB, {open_files} files, {accepted} tasks accepted, {waiting} waiting, {running} running",
            at_s / 60.0,
            float(*rss_kib) / 1024.0
        )
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{gap, leases};

    #[test]
    fn leases_are_summed_over_pools() {
        let metrics =
            "# TYPE active_leases gauge\nactive_leases{pool_id=\"a\"} 3\nactive_leases{pool_id=\"b\"} 2\nother{} 9\n";
        assert_eq!((leases(metrics), leases("")), (5, 0));
        assert_eq!(gap(Duration::from_secs(60)), Duration::from_secs(2));
        assert_eq!(gap(Duration::from_secs(86_400)), Duration::from_millis(17_280));
    }
}
