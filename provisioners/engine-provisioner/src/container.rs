//! Mode `container`: an image, brought by its digest (ORCH-3801, ORCH-3802, ORCH-3804).

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use api_types::{DoctorCheck, EnginePlan, PoolFault};
use async_trait::async_trait;
use catalog_core::{EngineEntry, FetchError};
use config_schema::{Container, ContainerRuntime};
use container_runtime::{
    Backend, Check, Finding, GpuAccess, GpuDevice, Outcome, Preference, PreflightRequest, Runtime,
};
use model_provisioner::{Errand, Home};
use tokio_util::sync::CancellationToken;

use crate::cache::{engine_id, now_ms};
use crate::checks::Checks;
use crate::error::EngineError;
use crate::gpus::Gpus;
use crate::identity::{Made, Wanted};
use crate::plan::{StepKind, Steps};
use crate::prepared::{EngineArtifact, ImageRef, PreparedEngine};
use crate::progress::EngineProgress;
use crate::provisioner::EngineProvisioner;
use crate::setup::Setup;
use crate::step::Step;

pub(crate) struct ContainerProvisioner {
    wanted: Wanted,
    image: container_runtime::ImageRef,
    setup: Setup,
}

impl ContainerProvisioner {
    pub(crate) fn new(wanted: Wanted, container: &Container, setup: &Setup) -> Result<Self, EngineError> {
        let tag = container.tag.as_ref().map_or_else(String::new, |tag| format!(":{tag}"));
        let digest = container.digest.as_ref().map_or_else(String::new, |digest| format!("@{digest}"));
        let image = format!("{}{tag}{digest}", container.image).parse();
        let image = image.map_err(|error: container_runtime::ImageRefError| EngineError::Unsupported {
            what: error.to_string(),
            fix: "correct the pool's [pools.provisioning.container]".to_owned(),
        })?;
        Ok(Self { wanted, image, setup: setup.clone() })
    }

    fn request(&self, gpus: &Gpus) -> PreflightRequest {
        // Ports and the model's folder are looked at by whoever starts the container: a pool that is reloaded still has its port.
        PreflightRequest { gpus: self.setup.gpu_access(gpus), ports: Vec::new(), mounts: Vec::new(), image_bytes: None }
    }

    async fn prepare(&self, gpus: &Gpus, step: &Step<'_>) -> Result<PreparedEngine, EngineError> {
        step.begin(StepKind::Check, "container runtime, NVIDIA toolkit and the pool's GPUs");
        let runtime = self.setup.runtime().await?;
        let mut checks = Checks::new(&self.wanted.pool, &self.setup.host);
        look(&runtime, &self.request(gpus), &mut checks);
        checks.verdict()?;
        let here = runtime.present(&self.image).await.map_err(EngineError::Pull)?;
        if here.is_none() && !self.image.is_local() {
            self.permitted().await?;
            step.begin(StepKind::Pull, &self.image.to_string());
        }
        let told = |layers: container_runtime::PullProgress| step.progress.output(&layers.line);
        let pulled = runtime.pull(&self.image, &mut { told }, step.cancel).await.map_err(|error| match error {
            container_runtime::PullError::Canceled { .. } => EngineError::Canceled,
            error => EngineError::Pull(error),
        })?;
        if pulled.unpinned {
            tracing::warn!(
                pool_id = %self.wanted.pool,
                image = %self.image,
                digest = %pulled.digest,
                "image is named by its tag alone and can change; set provisioning.container.digest"
            );
        }
        let image = ImageRef {
            image: self.image.image.clone(),
            tag: self.image.tag.clone(),
            digest: pulled.digest.as_str().parse().expect("both are sha256 and 64 digits"),
        };
        let version = image.tag.clone().unwrap_or_else(|| image.digest.hex()[..12].to_owned());
        let id = self.register(&image, &version, step).await?;
        let made = Made {
            version,
            build_ref: None,
            digest: Some(image.digest.clone()),
            artifact: EngineArtifact::Image(image),
            workdir: PathBuf::from("/"),
            build_flags: Vec::new(),
            id: Some(id),
        };
        self.wanted.prepared(made, gpus)
    }

    /// Whether the outbound policy lets the image's registry be asked.
    async fn permitted(&self) -> Result<(), EngineError> {
        let failed = |source| EngineError::Fetch { what: format!("the image {}", self.image), source };
        let bad = |_| failed(FetchError::Unsupported(format!("{} is no host", self.image.registry())));
        let url: url::Url = format!("https://{}/", self.image.registry()).parse().map_err(bad)?;
        let errand = Errand {
            model: format!("the image {}", self.image),
            configured: true,
            pinned: self.image.digest.is_some(),
            home: Home::new(url.clone()),
        };
        self.setup.web.gate(errand).map_err(failed)?.permits(&url).await.map_err(failed)
    }

    async fn register(&self, image: &ImageRef, version: &str, step: &Step<'_>) -> Result<String, EngineError> {
        let id = engine_id(self.wanted.engine, version, &image.digest);
        let entry = EngineEntry {
            id: id.clone(),
            engine: self.wanted.engine,
            version: version.to_owned(),
            build_ref: None,
            digest: Some(image.digest.clone()),
            build_flags: Vec::new(),
            artifacts: vec![format!("{}@{}", image.image, image.digest)],
            created_ms: now_ms(),
        };
        if self.setup.enter(entry).await? {
            step.begin(StepKind::Register, &id);
        }
        Ok(id)
    }
}

impl Setup {
    /// The container runtime of the configuration.
    ///
    /// # Errors
    /// [`EngineError::NoRuntime`].
    pub async fn runtime(&self) -> Result<Runtime, EngineError> {
        let preference = match self.container_runtime {
            ContainerRuntime::Auto => Preference::Auto,
            ContainerRuntime::Podman => Preference::Only(Backend::Podman),
            ContainerRuntime::Docker => Preference::Only(Backend::Docker),
        };
        self.containers.detect(preference).await.map_err(EngineError::NoRuntime)
    }

    /// What a container gets of these GPUs: them and no others.
    #[must_use]
    pub fn gpu_access(&self, gpus: &Gpus) -> GpuAccess {
        if let Some(mounts) = &self.simulated_gpus {
            return GpuAccess::simulated_devices(mounts.clone());
        }
        let device = |gpu: &crate::Gpu| GpuDevice {
            uuid: gpu.uuid.clone(),
            index: (!gpu.uuid.starts_with("MIG-")).then_some(gpu.index),
        };
        GpuAccess::devices(gpus.as_slice().iter().map(device)).expect("there is at least one GPU")
    }
}

fn look(runtime: &Runtime, request: &PreflightRequest, checks: &mut Checks<'_>) {
    for Finding { check, outcome, detail, fix } in runtime.preflight(request).findings {
        let (name, fix) = (check.as_str(), fix.unwrap_or_default());
        match outcome {
            Outcome::Pass => checks.pass(name, detail),
            Outcome::Warn => checks.warn(name, detail, fix),
            Outcome::Fail => checks.fail(name, EngineError::Container { what: detail, fault: fault(check), fix }),
        }
    }
}

const fn fault(check: Check) -> PoolFault {
    match check {
        Check::Gpus => PoolFault::NoDevice,
        Check::Port => PoolFault::PortTaken,
        Check::Disk => PoolFault::DiskFull,
        Check::Mount | Check::Privileges | Check::Resources | Check::Init => PoolFault::ContainerFailed,
    }
}

#[async_trait]
impl EngineProvisioner for ContainerProvisioner {
    fn plan(&self) -> EnginePlan {
        let by = match self.image.digest {
            Some(_) => "",
            None => ", by its tag, which can change",
        };
        Steps::of(&self.wanted.pool)
            .then(
                StepKind::Check,
                format!(
                    "{}, NVIDIA's toolkit for containers, and the GPUs {}",
                    self.runtimes(),
                    self.wanted.device_mask
                ),
            )
            .then(StepKind::Pull, format!("{}{by}", self.image))
            .then(StepKind::Register, format!("in the catalog of engines{}", self.wanted.flags()))
            .done()
    }

    async fn preflight(&self, gpus: Option<&Gpus>) -> Vec<DoctorCheck> {
        let mut checks = Checks::new(&self.wanted.pool, &self.setup.host);
        match self.setup.runtime().await {
            Ok(runtime) => {
                let (backend, version) = (runtime.info().backend, &runtime.info().version);
                checks.pass("container-runtime", format!("{backend} {version}"));
                if let Some(gpus) = gpus {
                    look(&runtime, &self.request(gpus), &mut checks);
                }
            }
            Err(error) => checks.fail("container-runtime", error),
        }
        if self.image.digest.is_none() {
            let fix = "set provisioning.container.digest, which `llama-orch engines list` shows once it is here";
            checks.warn("image", format!("{} is named by its tag alone, and can change", self.image), fix);
        }
        checks.hub_client(self.wanted.wants_hub);
        checks.report()
    }

    async fn ensure(
        &self,
        gpus: &Gpus,
        progress: &Arc<dyn EngineProgress>,
        cancel: &CancellationToken,
    ) -> Result<PreparedEngine, EngineError> {
        let step = Step { wanted: &self.wanted, progress, cancel };
        let begun = Instant::now();
        step.told(self.prepare(gpus, &step).await, begun)
    }
}

impl ContainerProvisioner {
    fn runtimes(&self) -> &'static str {
        match self.setup.container_runtime {
            ContainerRuntime::Auto => "podman, else docker",
            ContainerRuntime::Podman => "podman",
            ContainerRuntime::Docker => "docker",
        }
    }
}
