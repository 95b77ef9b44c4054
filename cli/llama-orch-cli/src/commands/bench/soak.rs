//! `bench soak`: mixed load with faults for a long time.
//!
//! Clients of every kind come at random times, engines fail in every way they know, and a sample is taken every few
//! seconds. Records and streams are kept for seconds only, so that whatever still grows after the first quarter is a leak.

mod faults;
mod figures;
mod ledger;
mod sample;
mod verdict;
mod visit;

use std::sync::Arc;
use std::time::Duration;

use rand::{RngExt as _, SeedableRng as _};
use tokio::task::JoinSet;
use tokio::time::{Instant, interval, sleep, sleep_until, timeout};

use faults::Faults;
use figures::{Figures, Settings};
use ledger::Ledger;
use sample::{Sample, Sampler};
use visit::Host;

use super::PATIENCE;
use super::http::address;
use super::meter::Meter;
use super::rig::{EngineSpec, Rig, Role, allow_open_files};
use super::task::Rng;
use crate::args::SoakArgs;
use crate::failure::Failure;

/// The pool whose engines decode at a pace, and the one whose engine does not.
const PACED: &str = "soak-paced";
const FLAT_OUT: &str = "soak-flat-out";
/// What must be forgotten soon for memory to be steady: streams of ended tasks, sessions, records.
const SETTINGS: &str = "[stream]\nretain_ms = 10000\ndisconnect_grace_ms = 2000\nattach_timeout_ms = 5000\n\
                        [sessions]\nttl_ms = 10000\n[history]\nmax_tasks = 20000\n[log]\nlevel = \"error\"\n";
/// Visits at the same time; more than that wait to be paid.
const MOST_VISITS: usize = 1000;
const OPEN_FILES: u64 = 4096;
/// Visits per second to begin with, while the rate for the load asked for is sought.
const FIRST_RATE: f64 = 20.0;
const CALIBRATION_STEPS: u32 = 4;
const CALIBRATION_STEP: Duration = Duration::from_secs(4);
const MOST_RATE: f64 = 5000.0;
/// Longest wait for what is left at the end, and for connections to close then.
const DRAIN: Duration = Duration::from_secs(90);
const CLOSE: Duration = Duration::from_secs(20);

/// The time asked for, and what comes before and after.
pub(super) fn time_limit(args: &SoakArgs) -> Duration {
    length(args) + DRAIN + CLOSE + PATIENCE * 2
}

fn length(args: &SoakArgs) -> Duration {
    Duration::from_secs(60) * args.minutes
}

/// Loads, samples and judges.
pub(super) async fn measure(args: &SoakArgs) -> Result<Figures, Failure> {
    allow_open_files(OPEN_FILES)?;
    let mut rig = Rig::start(&engines(), SETTINGS).await?;
    let ledger = Arc::new(Ledger::default());
    let address = address(&rig.orchestrator.url)?;
    let client = rig.orchestrator.another_client()?;
    let host = Arc::new(Host { address, client, ledger: Arc::clone(&ledger) });
    let mut load = Load { host, visits: JoinSet::new(), rng: Rng::seed_from_u64(args.seed), rate: FIRST_RATE };
    let sampler = Sampler::new(&rig.orchestrator);
    let before = sampler.take(Duration::ZERO, &ledger).await?;

    load.calibrate(f64::from(args.load) / 100.0).await?;
    eprintln!("llama-orch: {:.0} visits per second for {} min", load.rate, args.minutes);
    let samples = run(args, &mut rig, &mut load, &sampler).await?;
    let Load { host, mut visits, rate, .. } = load;
    let drained = timeout(DRAIN, async { while visits.join_next().await.is_some() {} }).await.is_ok();
    // With the last visit their client goes, and its connections.
    drop((visits, host));
    let after = settled(&rig, &sampler, &ledger, &before).await?;
    let settings = Settings::new(args, rate);
    Ok(Figures::new(settings, samples, &before, after, ledger.counts(), drained))
}

/// Two replicas of one pool, and another pool.
fn engines() -> [EngineSpec; 3] {
    let paced = |name, role| EngineSpec { queue: 256, role, ..EngineSpec::new(name, 8, 2) };
    [
        paced(PACED, Role::Pool),
        paced("soak-paced-replica", Role::Replica),
        EngineSpec { queue: 256, ..EngineSpec::new(FLAT_OUT, 4, 0) },
    ]
}

/// Visits that come at random times.
struct Load {
    host: Arc<Host>,
    visits: JoinSet<()>,
    rng: Rng,
    /// Visits per second.
    rate: f64,
}

impl Load {
    /// Pays one visit and draws the time until the next.
    fn visit(&mut self) -> Duration {
        while self.visits.try_join_next().is_some() {}
        if self.visits.len() < MOST_VISITS {
            let visit = visit::draw(&mut self.rng);
            self.visits.spawn(visit.pay(Arc::clone(&self.host)));
        }
        Duration::from_secs_f64(exponential(&mut self.rng) / self.rate)
    }

    /// Finds the rate at which everything together takes this share of a core.
    async fn calibrate(&mut self, share: f64) -> Result<(), Failure> {
        for _ in 0..CALIBRATION_STEPS {
            // Engines and orchestrator are children of this process.
            let everything = Meter::of(std::process::id());
            let before = everything.cpu_time()?;
            let until = Instant::now() + CALIBRATION_STEP;
            let mut next = Instant::now();
            while next < until {
                sleep_until(next).await;
                next += self.visit();
            }
            sleep_until(until).await;
            let used = everything.cpu_time()?.saturating_sub(before);
            self.rate = adjusted(self.rate, share, used.div_f64(CALIBRATION_STEP.as_secs_f64()).as_secs_f64());
        }
        Ok(())
    }
}

/// The rate that takes `share`, when this one takes `used`; a step is never large, since a beginning says little.
fn adjusted(rate: f64, share: f64, used: f64) -> f64 {
    (rate * (share / used.max(0.001)).clamp(0.25, 4.0)).clamp(1.0, MOST_RATE)
}

/// Times between independent events, with a mean of 1.
fn exponential(rng: &mut Rng) -> f64 {
    -(1.0 - rng.random::<f64>()).ln()
}

async fn run(args: &SoakArgs, rig: &mut Rig, load: &mut Load, sampler: &Sampler) -> Result<Vec<Sample>, Failure> {
    let begun = Instant::now();
    let mut faults = Faults::new(args.seed);
    let mut sampling = interval(sample::gap(length(args)));
    let mut failing = interval(faults::GAP);
    let mut samples = Vec::new();
    let mut next = begun;
    loop {
        tokio::select! {
            () = sleep_until(next) => next += load.visit(),
            _ = sampling.tick() => {
                samples.push(sampler.take(begun.elapsed(), &load.host.ledger).await?);
                if samples.len() % sample::EVERY_MINUTE == 0 {
                    eprintln!("llama-orch: {}", samples[samples.len() - 1]);
                }
            }
            _ = failing.tick() => faults.next(&mut rig.engines).await?,
        }
        if begun.elapsed() >= length(args) {
            faults.clear(&mut rig.engines).await?;
            return Ok(samples);
        }
    }
}

/// The state once nothing is left, or when that takes too long.
async fn settled(rig: &Rig, sampler: &Sampler, ledger: &Ledger, before: &Sample) -> Result<Sample, Failure> {
    let idle = timeout(CLOSE, rig.orchestrator.idle()).await;
    idle.unwrap_or(Ok(()))?;
    let until = Instant::now() + CLOSE;
    loop {
        let sample = sampler.take(rig.orchestrator.age(), ledger).await?;
        if verdict::nothing_left(&sample, before) || Instant::now() > until {
            return Ok(sample);
        }
        sleep(Duration::from_millis(500)).await;
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;

    use super::super::statistics::mean;
    use super::{MOST_RATE, Rng, adjusted, exponential};

    #[test]
    fn the_rate_follows_the_load_in_steps() {
        assert_eq!(adjusted(20.0, 0.2, 0.1), 40.0);
        assert_eq!((adjusted(20.0, 0.2, 0.0), adjusted(20.0, 0.2, 9.0)), (80.0, 5.0));
        assert_eq!((adjusted(1.0, 0.1, 5.0), adjusted(4000.0, 1.0, 0.1)), (1.0, MOST_RATE));
        let mut rng = Rng::seed_from_u64(1);
        let mean = mean((0..10_000).map(|_| exponential(&mut rng)));
        assert!((0.95..1.05).contains(&mean), "{mean}");
    }
}
