//! Registrations.

use std::net::IpAddr;
use std::sync::Arc;

use api_types::{EngineRegistration, ErrorEnvelope, ErrorKind, HostRegistration, WORKER_PROTOCOL, WorkerTerms};
use config_schema::BearerToken;
use pool_managerd::adapter::adapter_at;
use serde_json::Value;
use tokio::time::Instant;

use super::{Known, Relay, Session, Worker};
use crate::app::App;
use crate::narrate;
use crate::pools::managed::DaemonHost;

const VERSION: &str = env!("CARGO_PKG_VERSION");

impl Worker {
    /// Takes a host on. Its session before, if it has one, is over.
    ///
    /// # Errors
    /// `CONFLICT` with another version of the protocol, or while another host goes by its name; `INVALID_PARAMS`.
    pub fn register(
        &self,
        app: &Arc<App>,
        host: &DaemonHost,
        registration: HostRegistration,
        peer: IpAddr,
    ) -> Result<WorkerTerms, ErrorEnvelope> {
        same_protocol(&registration)?;
        let secret = BearerToken::parse(&registration.relay_secret.0).map_err(|error| {
            ErrorEnvelope::new(ErrorKind::InvalidParams, format!("relay_secret: {error}; draw another"))
        })?;
        let relay = Relay::new(registration.advertise.as_deref(), registration.relay_port, peer, secret);
        let _taking = self.taking();
        self.alone(&registration.boot_id, &relay)?;
        let is_new_life = self.link().last.as_ref().is_none_or(|last| last.boot_id != registration.boot_id);
        self.give_up(app, host);
        if is_new_life {
            self.pools.values().for_each(super::RemotePool::begin_anew);
        }
        narrate::worker_registered(&self.id, &relay.authority, &registration.version, VERSION);
        let session = uuid::Uuid::new_v4().simple().to_string();
        let heard = Instant::now();
        let known = Known {
            boot_id: registration.boot_id,
            version: registration.version,
            relay,
            heard,
            devices: registration.devices,
            read: None,
        };
        *self.link() = super::Link {
            session: Some(Session { id: session.clone(), seq: 0, heard, orders: super::Outbox::default() }),
            last: Some(known),
        };
        let pools = self.pools.keys().map(|pool| definition(app, pool)).collect();
        Ok(WorkerTerms { session, version: VERSION.to_owned(), pools })
    }

    /// Two hosts of one name would take each other's pools away for ever. One that is at the same place as the one before is its
    /// successor.
    fn alone(&self, boot_id: &str, relay: &Relay) -> Result<(), ErrorEnvelope> {
        let link = self.link();
        let Some(last) = link.last.as_ref().filter(|_| link.session.is_some()) else { return Ok(()) };
        if last.boot_id == boot_id || last.relay.authority == relay.authority {
            return Ok(());
        }
        let message = format!(
            "a worker `{}` at {} was heard from {} ms ago; give this one another worker.id, or wait a few seconds if it is \
             the same host",
            self.id,
            last.relay.authority,
            last.heard.elapsed().as_millis()
        );
        Err(ErrorEnvelope { retry_after_ms: Some(2000), ..ErrorEnvelope::new(ErrorKind::Conflict, message) })
    }
}

fn same_protocol(registration: &HostRegistration) -> Result<(), ErrorEnvelope> {
    let (theirs, ours) = (registration.protocol, WORKER_PROTOCOL);
    if theirs == ours {
        return Ok(());
    }
    let older = if theirs < ours { "pool-managerd on the worker" } else { "the orchestrator" };
    let message = format!(
        "pool-managerd {} speaks version {theirs} of the workers' protocol and this orchestrator ({VERSION}) version {ours}; upgrade {older}",
        registration.version
    );
    Err(ErrorEnvelope::new(ErrorKind::Conflict, message))
}

/// A pool as its host is told it.
fn definition(app: &App, pool: &api_types::PoolId) -> Value {
    serde_json::to_value(&app.pools.scheduled(pool).config).expect("a pool of the configuration is JSON")
}

impl App {
    /// Takes on an engine that announces where it listens: a replica of an external pool, probed there from now on.
    ///
    /// # Errors
    /// `NOT_FOUND` for a pool or replica that is not configured, `INVALID_PARAMS`, `CONFLICT` for a pool whose engines are run by us.
    pub fn register_engine(self: &Arc<Self>, engine: &EngineRegistration) -> Result<(), ErrorEnvelope> {
        let refuse = |kind: ErrorKind, message: String| ErrorEnvelope {
            pool_id: Some(engine.pool_id.clone()),
            ..ErrorEnvelope::new(kind, message)
        };
        let pool = self
            .pools
            .get(&engine.pool_id)
            .ok_or_else(|| refuse(ErrorKind::NotFound, "no such pool; GET /v1/pools lists them".to_owned()))?;
        if pool.config.is_managed() {
            let message =
                "the engines of this pool are started by llama-orch; only those of external pools announce themselves";
            return Err(refuse(ErrorKind::Conflict, message.to_owned()));
        }
        if pool.config.engine != engine.engine {
            let message =
                format!("the pool's engine is {}, not {}; correct one of them", pool.config.engine, engine.engine);
            return Err(refuse(ErrorKind::InvalidParams, message));
        }
        let replica =
            pool.replicas().iter().find(|replica| replica.id.as_str() == engine.replica_id).ok_or_else(|| {
                let known: Vec<_> = pool.replicas().iter().map(|replica| replica.id.as_str()).collect();
                refuse(ErrorKind::NotFound, format!("no such replica; the pool has {}", known.join(", ")))
            })?;
        let unfit = |what: String| refuse(ErrorKind::InvalidParams, format!("endpoint: {what}"));
        let url = engine.endpoint.parse().map_err(|error| unfit(format!("{error}")))?;
        // Without the key of the configuration: that is for the address that stands beside it.
        let adapter = adapter_at(engine.engine, &url, None, pool.config.slots).map_err(unfit)?;
        self.host.bind(pool.id.clone(), replica.id.clone(), adapter, pool.call_policy());
        replica.forget();
        replica.announced_at(engine.endpoint.clone());
        replica.nudge.notify_one();
        narrate::engine_announced(pool, replica, &engine.endpoint);
        Ok(())
    }
}
