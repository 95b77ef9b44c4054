//! What a pool is made of, and who gives it tasks.

use std::path::PathBuf;
use std::sync::Arc;

use api_types::PoolId;
use async_trait::async_trait;
use catalog_core::files::ModelShape;
use config_schema::EngineUrl;
use tokio_util::sync::CancellationToken;

use super::{Activity, EngineIdentity, PoolReport};
use crate::failure::Failure;
use crate::machine::{Probe, Why};

/// A model that is here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StagedModel {
    /// Its reference.
    pub reference: String,
    /// Its first file, or its folder.
    pub path: PathBuf,
    /// Its size in bytes.
    pub bytes: u64,
    /// Memory of devices that it needs at the pool's context and slots, where its files say enough.
    pub need_bytes: Option<u64>,
    /// What that need comes from, for asking what would fit.
    pub shape: Option<Arc<ModelShape>>,
}

/// Makes devices, engine and process available.
#[async_trait]
pub trait Workshop: Send + Sync + 'static {
    /// Looks whether the pool's devices can be used.
    ///
    /// # Errors
    /// Why they cannot.
    async fn check_devices(&self) -> Result<(), Failure>;

    /// Looks whether a model fits the devices: as they are, or when nobody used them. Without memory that can be read, or a need
    /// that is known, it fits.
    ///
    /// # Errors
    /// By how much it does not.
    fn check_fit(&self, model: &StagedModel, when_empty: bool) -> Result<(), Failure>;

    /// Makes the engine present. Dropping the future, or `cancel`, stops the work.
    ///
    /// # Errors
    /// Why it cannot be had.
    async fn prepare(&self, activity: &Activity, cancel: &CancellationToken) -> Result<EngineIdentity, Failure>;

    /// Starts the engine that was prepared last.
    ///
    /// # Errors
    /// Why it cannot be started.
    async fn start(&self, model: &StagedModel) -> Result<Started, Failure>;
}

/// An engine that was started.
pub struct Started {
    /// The engine. Dropping it kills it.
    pub engine: Box<dyn Engine>,
    /// Where it listens, sooner or later.
    pub endpoint: EngineUrl,
}

/// A running engine, whatever it runs in.
#[async_trait]
pub trait Engine: Send {
    /// Its process on this host.
    fn pid(&self) -> Option<u32>;

    /// Asks it to end.
    fn terminate(&mut self);

    /// Kills it and everything it has started.
    fn kill(&mut self);

    /// A number that changes whenever a start makes progress: a line in its log, memory that fills.
    fn progress(&self) -> u64;

    /// Waits for its end, or until it says that it is lost although its process is alive. May be dropped and called again;
    /// after its end it must not be.
    async fn sign(&mut self, loading: bool) -> Sign;
}

/// What becomes known of an engine without being asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sign {
    /// It has ended, and what of.
    Ended(Failure),
    /// It is there, and works no more.
    Lost(Failure),
}

/// Whoever gives tasks to the engines of this host.
#[async_trait]
pub trait Host: Send + Sync + 'static {
    /// Makes a model present and checks what can be checked of its files.
    ///
    /// # Errors
    /// Why it is not here.
    async fn stage(
        &self,
        pool: &PoolId,
        model: &str,
        activity: &Activity,
        cancel: &CancellationToken,
    ) -> Result<StagedModel, Failure>;

    /// Waits until the pool's devices have memory for a model, which is promised to the pool then: until its engine has ended, or was
    /// not started after all. Dropping the future, or `cancel`, withdraws the wish.
    ///
    /// # Errors
    /// There is none, and none is to be expected soon.
    async fn reserve(
        &self,
        pool: &PoolId,
        model: &StagedModel,
        activity: &Activity,
        cancel: &CancellationToken,
    ) -> Result<(), Failure>;

    /// Has the engine put away what it holds of sessions, before it is unloaded. What does not work costs its sessions a prompt.
    async fn park(&self, pool: &PoolId);

    /// Has an engine that was loaded take up what was put away.
    async fn unpark(&self, pool: &PoolId);

    /// An engine of the pool listens there from now on, or will.
    ///
    /// # Errors
    /// Why nobody here can talk to it.
    fn bind(&self, pool: &PoolId, endpoint: &EngineUrl) -> Result<(), Failure>;

    /// Asks the engine how it is.
    async fn probe(&self, pool: &PoolId) -> Probe;

    /// Runs a short decode and a cancel on the engine (ORCH-3049).
    ///
    /// # Errors
    /// What did not work.
    async fn self_test(&self, pool: &PoolId) -> Result<(), Failure>;

    /// The pool takes tasks for this model again, as soon as its report says so.
    fn open(&self, pool: &PoolId, model: &str);

    /// The pool takes no new tasks, because somebody wants that.
    fn close(&self, pool: &PoolId, why: Why);

    /// What still runs on it ends now.
    fn cut(&self, pool: &PoolId);

    /// The pool stands otherwise than before. Nothing else happens to it until this returns.
    fn changed(&self, pool: &PoolId, report: &PoolReport);
}
