//! What goes wrong with the engines, and when.

use bytes::Bytes;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use std::time::Duration;

use super::super::http::{Connect, Version, address};
use super::super::rig::Engines;
use super::super::task::Rng;
use crate::failure::Failure;

/// Time from one change to the next.
pub(super) const GAP: Duration = Duration::from_secs(4);
/// Changes from one death of an engine to the next.
const DEATHS: u32 = 12;

/// Faults in mock-engine's words. Each hits a few requests; a healthy time follows.
const FAULTS: [&str; 11] = [
    r#"{"fault": {"refuse": {"status": 503}}, "times": 3}"#,
    r#"{"fault": {"refuse": {"status": 500}}, "times": 3}"#,
    r#"{"fault": {"refuse": {"status": 500}}, "on": "health", "times": 2}"#,
    r#"{"fault": {"slow_headers": {"ms": 300}}, "times": 5}"#,
    r#"{"fault": "wrong_content_type", "times": 2}"#,
    r#"{"fault": {"reset": {"after_tokens": 0}}, "times": 2}"#,
    r#"{"fault": {"reset": {"after_tokens": 3}}, "times": 3}"#,
    r#"{"fault": {"half_character": {"after_tokens": 2}}, "times": 2}"#,
    r#"{"fault": {"malformed_event": {"after_tokens": 2}}, "times": 2}"#,
    r#"{"fault": {"clean_end": {"after_tokens": 4}}, "times": 2}"#,
    r#"{"fault": {"stall": {"after_tokens": 1}}, "times": 1}"#,
];
const NONE: &str = r#"{"faults": []}"#;

/// The course of things.
pub(super) struct Faults {
    rng: Rng,
    step: u32,
    /// The engine that is dead.
    dead: Option<usize>,
}

impl Faults {
    pub(super) fn new(seed: u64) -> Self {
        Self { rng: Rng::seed_from_u64(!seed), step: 0, dead: None }
    }

    /// Changes something: an engine gets a fault, is well again, dies or is back.
    pub(super) async fn next(&mut self, engines: &mut Engines) -> Result<(), Failure> {
        self.step += 1;
        if let Some(index) = self.dead.take() {
            return engines.restart(index).await;
        }
        let index = self.rng.random_range(0..engines.len());
        if self.step.is_multiple_of(DEATHS) {
            engines.kill(index);
            self.dead = Some(index);
            return Ok(());
        }
        let fault = FAULTS.choose(&mut self.rng).copied().unwrap_or_default();
        let faults = if self.step.is_multiple_of(2) { NONE.to_owned() } else { format!(r#"{{"faults": [{fault}]}}"#) };
        set(engines, index, faults).await
    }

    /// Lets all engines be well.
    pub(super) async fn clear(&mut self, engines: &mut Engines) -> Result<(), Failure> {
        if let Some(index) = self.dead.take() {
            engines.restart(index).await?;
        }
        for index in 0..engines.len() {
            set(engines, index, NONE.to_owned()).await?;
        }
        Ok(())
    }
}

async fn set(engines: &Engines, index: usize, faults: String) -> Result<(), Failure> {
    let failed = |error: &dyn std::fmt::Display| Failure::local(format!("an engine takes no faults: {error}"));
    let connect = Connect::to(address(engines.url_of(index))?, Version::Http1);
    let mut connection = connect.open().await.map_err(|error| failed(&error))?;
    let response = connection.post("/mock/faults", Bytes::from(faults)).await.map_err(|error| failed(&error))?;
    if response.status().is_success() { Ok(()) } else { Err(failed(&response.status())) }
}
