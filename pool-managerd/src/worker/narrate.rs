//! What the daemon tells its log.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use api_types::{PoolId, WorkerId};
use narration_core::{Actor, Narration, narrate};
use tracing::Level;

use crate::pool::PoolReport;

pub(super) fn listening(id: &WorkerId, addr: SocketAddr, origin: &str) {
    let human = format_args!("worker {id}: the way to its engines is {addr}; configured by {origin}");
    narrate(Level::INFO, &Narration::new(Actor::PoolManager, "listen", human));
}

pub(super) fn stopping(id: &WorkerId, grace: Duration) {
    let human = format_args!("worker {id} stops; running tasks have {} ms", grace.as_millis());
    narrate(Level::INFO, &Narration::new(Actor::PoolManager, "stop", human));
}

pub(super) fn registered(orchestrator: &str, theirs: &str, pools: usize) {
    let ours = env!("CARGO_PKG_VERSION");
    let narrate_as = |level, human: fmt::Arguments<'_>| {
        narrate(level, &Narration::new(Actor::PoolManager, "register_worker", human));
    };
    if theirs == ours {
        narrate_as(Level::INFO, format_args!("registered with {orchestrator}, for {pools} pools"));
    } else {
        narrate_as(
            Level::WARN,
            format_args!(
                "registered with {orchestrator}, for {pools} pools; it is version {theirs} and this is {ours}: run the same on both"
            ),
        );
    }
}

pub(super) fn not_registered(orchestrator: &str, why: &dyn fmt::Display, pause: Duration) {
    let human =
        format_args!("cannot register with {orchestrator}: {why}; tried again in {} s", pause.as_secs_f32().ceil());
    narrate(Level::WARN, &Narration::new(Actor::PoolManager, "register_worker", human));
}

pub(super) fn cut_off(orchestrator: &str, why: &dyn fmt::Display) {
    let human =
        format_args!("{orchestrator} cannot be reached: {why}; the engines stay up, and it is called again and again");
    narrate(Level::WARN, &Narration::new(Actor::PoolManager, "heartbeat", human));
}

pub(super) fn back(orchestrator: &str) {
    let human = format_args!("{orchestrator} can be reached again");
    narrate(Level::INFO, &Narration::new(Actor::PoolManager, "heartbeat", human));
}

pub(super) fn not_taken_on(why: &dyn fmt::Display) {
    let human = format_args!("the pools that the orchestrator gives to this host cannot be run: {why}");
    narrate(Level::ERROR, &Narration::new(Actor::PoolManager, "register_worker", human));
}

pub(super) fn other_pools() {
    let human = format_args!("the orchestrator gives this host other pools than before; those before are ended first");
    narrate(Level::WARN, &Narration::new(Actor::PoolManager, "register_worker", human));
}

pub(super) fn pool(id: &PoolId, report: &PoolReport) {
    let error = report.failure.as_ref().map(ToString::to_string);
    let (state, model) = (report.state, &report.model);
    let level = if error.is_some() { Level::WARN } else { Level::INFO };
    let why = error.as_deref().map_or_else(String::new, |error| format!(": {error}"));
    let human = format_args!("pool {id} is {state} with {model}{why}");
    narrate(
        level,
        &Narration {
            pool_id: Some(id),
            last_error: error.as_deref(),
            ..Narration::new(Actor::PoolManager, state.as_str(), human)
        },
    );
}

pub(super) fn self_tested(id: &PoolId, tokens: u32) {
    let human = format_args!("pool {id} has passed its self-test: {tokens} tokens, and a cancel");
    narrate(Level::INFO, &Narration { pool_id: Some(id), ..Narration::new(Actor::PoolManager, "self_test", human) });
}
