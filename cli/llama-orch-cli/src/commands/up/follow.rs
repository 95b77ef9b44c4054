//! All pools on their way up.

use std::collections::BTreeSet;
use std::time::Duration;

use api_types::{PoolId, PoolState, PoolStatus};
use config_schema::{Activation, Config};
use openapi_client::{Client, ClientError};
use tokio::time::MissedTickBehavior;

use crate::commands::pools::board::Board;
use crate::failure::Failure;

/// Gap between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// How the daemon was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// It ran: pools may have been stopped, or have given up.
    Running,
    /// It was started just now, and starts its pools itself.
    Started,
}

/// What has become of the pools, each in the order of the configuration.
#[derive(Debug, Default)]
pub(super) struct Settled {
    pub(super) ready: Vec<PoolStatus>,
    pub(super) failed: Vec<PoolStatus>,
    /// Loaded when they are asked for.
    idle: usize,
}

impl Settled {
    pub(super) fn serves_nothing(&self) -> bool {
        self.ready.is_empty() && self.idle == 0
    }
}

enum Standing {
    OnTheWay,
    Ready,
    Failed,
    Idle,
}

/// Waits until every pool is ready, has failed, or rests until it is asked for.
pub(super) async fn settle(client: &Client, config: &Config, found: Found, json: bool) -> Result<Settled, Failure> {
    let mut board = Board::new(json);
    let settled = watch(client, config, found, &mut board).await;
    board.finish();
    settled
}

async fn watch(client: &Client, config: &Config, found: Found, board: &mut Board) -> Result<Settled, Failure> {
    let lazy: BTreeSet<String> = config
        .pools
        .iter()
        .filter(|pool| pool.activation == Activation::OnDemand)
        .map(|pool| pool.id.to_string())
        .collect();
    if found == Found::Running {
        start_what_rests(client, &lazy).await?;
    }
    let mut looks = tokio::time::interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        let mut settled = Settled::default();
        let mut is_over = true;
        for pool in client.list_pools().await?.pools {
            board.show(&pool)?;
            match standing(&pool, lazy.contains(&pool.id), found) {
                Standing::OnTheWay => is_over = false,
                Standing::Ready => settled.ready.push(pool),
                Standing::Failed => settled.failed.push(pool),
                Standing::Idle => settled.idle += 1,
            }
        }
        if is_over {
            return Ok(settled);
        }
    }
}

/// Whoever says `up` wants what was stopped, drained or given up to be up again.
async fn start_what_rests(client: &Client, lazy: &BTreeSet<String>) -> Result<(), Failure> {
    for pool in client.list_pools().await?.pools {
        let rests = matches!(pool.health.state, Some(PoolState::Stopped | PoolState::Draining | PoolState::Failed));
        if rests && !lazy.contains(&pool.id) {
            match client.start_pool(&PoolId::from(pool.id.as_str())).await {
                // It is being reloaded, which is a way up too.
                Ok(_) | Err(ClientError::Refused(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(())
}

fn standing(pool: &PoolStatus, lazy: bool, found: Found) -> Standing {
    let health = &pool.health;
    match health.state {
        _ if health.ready => Standing::Ready,
        Some(PoolState::Failed) => Standing::Failed,
        Some(PoolState::External) if health.last_error.is_some() => Standing::Failed,
        // One whose host is not there serves when that comes.
        Some(PoolState::Cold | PoolState::Away) => Standing::Idle,
        Some(PoolState::Stopped) if lazy => Standing::Idle,
        Some(PoolState::Stopped) if found == Found::Running => Standing::Failed,
        _ => Standing::OnTheWay,
    }
}
