//! Starts containers, and finds those that were started before.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;
use tokio::sync::oneshot;
use uuid::Uuid;

use crate::arguments::{self, label};
use crate::cdi::Cdi;
use crate::error::{ClientError, ContainerError, RunError};
use crate::executor::Call;
use crate::gpu::{self, GpuAccess, NoGpuSupport, Way};
use crate::handle::ContainerHandle;
use crate::narrate;
use crate::runtime::{CdiSupport, Runtime};
use crate::spec::ContainerSpec;

impl Runtime {
    /// Starts a container in the background. It belongs to nobody: it goes on when we end, and [`Runtime::find`] finds it.
    ///
    /// Of a start that failed nothing is left, nor of one whose future was dropped: it is carried to its end in a task of its
    /// own, within its deadline, and what it started is removed.
    ///
    /// # Errors
    /// See [`RunError`].
    pub async fn run(&self, spec: &ContainerSpec) -> Result<ContainerHandle, RunError> {
        let outcome = self.start(spec).await;
        match &outcome {
            Ok(_) => narrate::started(self.backend(), spec),
            Err(error) => narrate::not_started(self.backend(), spec, error),
        }
        outcome
    }

    async fn start(&self, spec: &ContainerSpec) -> Result<ContainerHandle, RunError> {
        spec.check()?;
        let way = self.gpus(&spec.gpus)?;
        let run_id = Uuid::new_v4().to_string();
        let call = arguments::run(self.info(), spec, &way, &run_id);
        let (sender, receiver) = oneshot::channel();
        tokio::spawn(self.clone().start_or_clean_up(call, run_id.clone(), sender));
        let started = receiver.await.expect("the task sends, and nothing aborts it while we wait");
        let failed = |error| RunError::of(&spec.name(), &spec.image.reference, self.backend(), error);
        let id = started.map_err(failed)?.trim().to_owned();
        let (runtime, name, labels) = (self.clone(), spec.name(), labels(spec, &run_id));
        let handle = ContainerHandle { runtime, id, name, labels, masked: Arc::default() };
        Ok(handle.masking(spec.env.values().map(|value| value.text().to_owned())))
    }

    /// A client that is ended halfway leaves half a container, so it is not ended because nobody waits any more.
    async fn start_or_clean_up(
        self,
        call: Call,
        run_id: String,
        started: oneshot::Sender<Result<String, ClientError>>,
    ) {
        let outcome = self.ask(&call, self.limits().start).await;
        if outcome.is_err() {
            self.clean_up(&run_id).await;
        }
        if let Err(Ok(_)) = started.send(outcome) {
            self.clean_up(&run_id).await;
        }
    }

    /// How this runtime gives GPUs now.
    pub(crate) fn gpus(&self, gpus: &GpuAccess) -> Result<Way, NoGpuSupport> {
        let cdi = match &self.info().cdi {
            CdiSupport::Folders(folders) => Cdi::read(folders),
            CdiSupport::Unsupported { .. } => Cdi::default(),
        };
        gpu::way(self.info(), self.0.distribution, gpus, &cdi)
    }

    /// Removes what a failed start left: both clients leave a container that could be created but not started.
    async fn clean_up(&self, run_id: &str) {
        let Ok(left) = self.list(label::RUN, run_id).await else { return };
        for container in left {
            if let Err(error) = container.remove().await {
                narrate::left_behind(&container, &error);
            }
        }
    }

    /// The containers of this instance, running or not: to be adopted or removed after a restart of ours. Their labels say
    /// which pool and which spec they are of. Values that are masked in their logs are known again once they are told
    /// ([`ContainerHandle::masking`]).
    ///
    /// # Errors
    /// When the client fails.
    pub async fn find(&self, instance: &str) -> Result<Vec<ContainerHandle>, ContainerError> {
        let found = self.list(label::INSTANCE, instance).await;
        found.map_err(|error| ContainerError::of("list the containers of", instance, error))
    }

    async fn list(&self, label: &str, value: &str) -> Result<Vec<ContainerHandle>, ClientError> {
        let filter = format!("label={label}={value}");
        let ids = self.command(["ps", "--all", "--no-trunc", "--quiet", "--filter", &filter]);
        let ids = self.ask(&ids, self.limits().ask).await?;
        let mut found = Vec::new();
        for id in ids.split_whitespace() {
            // One at a time, because one that has just gone would fail the question for all.
            let Some(Named { id, name, config }) = self.inspect(id).await? else { continue };
            // Docker's names begin with a slash.
            let name = name.trim_start_matches('/').to_owned();
            let labels = config.labels.unwrap_or_default();
            found.push(ContainerHandle { runtime: self.clone(), id, name, labels, masked: Arc::default() });
        }
        Ok(found)
    }

    /// What `inspect` says of one container; nothing when it is gone.
    pub(crate) async fn inspect<T: for<'a> Deserialize<'a>>(&self, name: &str) -> Result<Option<T>, ClientError> {
        let call = self.command(["container", "inspect", name]);
        let answer = match self.ask(&call, self.limits().ask).await {
            Ok(answer) => answer,
            Err(error) => {
                return match ContainerError::of("inspect", name, error) {
                    ContainerError::Client { source, .. } => Err(source),
                    _ => Ok(None),
                };
            }
        };
        let containers: Vec<T> = serde_json::from_str(&answer).map_err(|source| ClientError::Unreadable {
            backend: self.backend(),
            operation: "container inspect",
            source,
        })?;
        Ok(containers.into_iter().next())
    }
}

fn labels(spec: &ContainerSpec, run_id: &str) -> BTreeMap<String, String> {
    let ours = [
        (label::POOL, spec.pool.clone()),
        (label::INSTANCE, spec.instance.clone()),
        (label::SPEC, spec.digest()),
        (label::RUN, run_id.to_owned()),
    ];
    let ours = ours.into_iter().map(|(name, value)| (name.to_owned(), value));
    spec.labels.clone().into_iter().chain(ours).collect()
}

/// What `container inspect` says about who a container is.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Named {
    id: String,
    name: String,
    config: Config,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Config {
    labels: Option<BTreeMap<String, String>>,
}
