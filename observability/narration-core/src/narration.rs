//! What is said, by whom, about what.

use std::fmt::{self, Display};

use tracing::{Level, event};

macro_rules! actors {
    ($($(#[$doc:meta])* $variant:ident = $word:literal),+ $(,)?) => {
        /// The component that speaks.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Actor {
            $($(#[$doc])* $variant),+
        }

        impl Actor {
            /// The word in the log.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $word),+
                }
            }
        }
    };
}

actors! {
    /// The daemon: admission, queues, streams.
    Orchestratord = "orchestratord",
    /// Placement.
    Placement = "placement",
    /// Pools: start, readiness, drain, restart.
    PoolManager = "pool-managerd",
    /// Adapters: calls to engines.
    Adapter = "adapter",
    /// Builds and pulls engines.
    EngineProvisioner = "engine-provisioner",
    /// The catalog of models.
    Catalog = "catalog",
    /// Fetches models.
    ModelProvisioner = "model-provisioner",
    /// Containers.
    ContainerRuntime = "container-runtime",
    /// Who may call.
    Auth = "auth",
    /// The command line.
    Cli = "llama-orch",
}

impl Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

type Id<'a> = Option<&'a dyn Display>;

/// One narrated event (LO-OBS-02, ORCH-3304). Ids are anything that displays; what is `None` is not written.
///
/// ```
/// use narration_core::{Actor, Narration, narrate};
/// use tracing::Level;
///
/// let (pool, position) = ("gpu0", 3);
/// narrate(Level::INFO, &Narration {
///     pool_id: Some(&pool),
///     queue_position: Some(position),
///     ..Narration::new(Actor::Orchestratord, "admit", format_args!("queued on {pool}, {position} tasks ahead"))
/// });
/// ```
#[derive(Clone, Copy)]
pub struct Narration<'a> {
    /// The sentence: about 100 characters, present tense, intent or outcome (ORCH-3305). Never a prompt.
    pub human: fmt::Arguments<'a>,
    /// Who speaks.
    pub actor: Actor,
    /// What is done, one word or two with an underscore: `admit`, `place`, `stream_start`, `stream_end`, `cancel`.
    pub action: &'static str,
    /// What it is done to.
    pub target: Id<'a>,
    /// The request's correlation id.
    pub correlation_id: Id<'a>,
    /// The request.
    pub req_id: Id<'a>,
    /// The job.
    pub job_id: Id<'a>,
    /// The task.
    pub task_id: Id<'a>,
    /// The session.
    pub session_id: Id<'a>,
    /// The worker.
    pub worker_id: Id<'a>,
    /// The pool.
    pub pool_id: Id<'a>,
    /// The replica.
    pub replica_id: Id<'a>,
    /// The caller: `localhost` or `token:<fp6>`.
    pub identity: Id<'a>,
    /// The public error code.
    pub error_kind: Id<'a>,
    /// How long the client is told to wait, in milliseconds.
    pub retry_after_ms: Option<i64>,
    /// How long is waited before the next try, in milliseconds.
    pub backoff_ms: Option<i64>,
    /// How long it took, in milliseconds.
    pub duration_ms: Option<i64>,
    /// The engine.
    pub engine: Option<&'a str>,
    /// The engine's version.
    pub engine_version: Option<&'a str>,
    /// Tasks ahead.
    pub queue_position: Option<i32>,
    /// Predicted time until the start, in milliseconds.
    pub predicted_start_ms: Option<i64>,
    /// Time spent waiting, in milliseconds.
    pub queue_time_ms: Option<i64>,
    /// Tokens of the prompt.
    pub tokens_in: Option<i32>,
    /// Tokens generated.
    pub tokens_out: Option<i32>,
    /// Time spent decoding, in milliseconds.
    pub decode_time_ms: Option<i64>,
    /// The model.
    pub model_id: Option<&'a str>,
    /// The model's digest.
    pub model_digest: Option<&'a str>,
    /// The model's quantisation.
    pub quant: Option<&'a str>,
    /// Context, in tokens.
    pub ctx: Option<i32>,
    /// Whether the session's prompt cache was warm.
    pub kv_warmth: Option<bool>,
    /// Version of the sampler settings.
    pub sampler_profile_version: Option<&'a str>,
    /// The sampler's seed.
    pub seed: Option<i64>,
    /// The devices of a pool.
    pub device_mask: Option<&'a str>,
    /// Times an engine was started again.
    pub restart_count: Option<i32>,
    /// What went wrong last.
    pub last_error: Option<&'a str>,
}

impl<'a> Narration<'a> {
    /// A sentence with its actor and action; everything else is filled in with `..Narration::new(…)`.
    #[must_use]
    pub const fn new(actor: Actor, action: &'static str, human: fmt::Arguments<'a>) -> Self {
        Self {
            human,
            actor,
            action,
            target: None,
            correlation_id: None,
            req_id: None,
            job_id: None,
            task_id: None,
            session_id: None,
            worker_id: None,
            pool_id: None,
            replica_id: None,
            identity: None,
            error_kind: None,
            retry_after_ms: None,
            backoff_ms: None,
            duration_ms: None,
            engine: None,
            engine_version: None,
            queue_position: None,
            predicted_start_ms: None,
            queue_time_ms: None,
            tokens_in: None,
            tokens_out: None,
            decode_time_ms: None,
            model_id: None,
            model_digest: None,
            quant: None,
            ctx: None,
            kv_warmth: None,
            sampler_profile_version: None,
            seed: None,
            device_mask: None,
            restart_count: None,
            last_error: None,
        }
    }
}

/// Writes an event. Fields outside the shared set go through an ordinary `tracing` event with a `human` field; the output
/// treats both alike.
pub fn narrate(level: Level, narration: &Narration<'_>) {
    match level {
        Level::ERROR => error(narration),
        Level::WARN => warn(narration),
        Level::INFO => info(narration),
        Level::DEBUG => debug(narration),
        Level::TRACE => trace(narration),
    }
}

// A level is part of a call site, so there is one function for each.
macro_rules! speaker {
    ($name:ident, $level:ident) => {
        fn $name(n: &Narration<'_>) {
            event!(
                target: "narration",
                Level::$level,
                human = n.human,
                actor = n.actor.as_str(),
                action = n.action,
                target = n.target.map(display),
                correlation_id = n.correlation_id.map(display),
                req_id = n.req_id.map(display),
                job_id = n.job_id.map(display),
                task_id = n.task_id.map(display),
                session_id = n.session_id.map(display),
                worker_id = n.worker_id.map(display),
                pool_id = n.pool_id.map(display),
                replica_id = n.replica_id.map(display),
                identity = n.identity.map(display),
                error_kind = n.error_kind.map(display),
                retry_after_ms = n.retry_after_ms,
                backoff_ms = n.backoff_ms,
                duration_ms = n.duration_ms,
                engine = n.engine,
                engine_version = n.engine_version,
                queue_position = n.queue_position,
                predicted_start_ms = n.predicted_start_ms,
                queue_time_ms = n.queue_time_ms,
                tokens_in = n.tokens_in,
                tokens_out = n.tokens_out,
                decode_time_ms = n.decode_time_ms,
                model_id = n.model_id,
                model_digest = n.model_digest,
                quant = n.quant,
                ctx = n.ctx,
                kv_warmth = n.kv_warmth,
                sampler_profile_version = n.sampler_profile_version,
                seed = n.seed,
                device_mask = n.device_mask,
                restart_count = n.restart_count,
                last_error = n.last_error,
            );
        }
    };
}

speaker!(error, ERROR);
speaker!(warn, WARN);
speaker!(info, INFO);
speaker!(debug, DEBUG);
speaker!(trace, TRACE);
