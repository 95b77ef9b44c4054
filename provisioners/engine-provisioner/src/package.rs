//! Mode `package`: an engine of the distribution.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use api_types::{DoctorCheck, EnginePlan};
use async_trait::async_trait;
use catalog_core::{Digest, EngineEntry};
use config_schema::{Package, Pool};
use tokio_util::sync::CancellationToken;

use crate::cache::{digest_of, engine_id, now_ms};
use crate::checks::Checks;
use crate::error::EngineError;
use crate::gpus::Gpus;
use crate::identity::{Made, Wanted, ask_version, programs};
use crate::pacman;
use crate::plan::{StepKind, Steps};
use crate::prepared::{EngineArtifact, PreparedEngine};
use crate::progress::EngineProgress;
use crate::provisioner::EngineProvisioner;
use crate::setup::Setup;
use crate::step::Step;

pub(crate) struct PackageProvisioner {
    wanted: Wanted,
    package: Package,
    may_install: bool,
    setup: Setup,
}

impl PackageProvisioner {
    pub(crate) fn new(pool: &Pool, wanted: Wanted, package: &Package, setup: &Setup) -> Result<Self, EngineError> {
        if package.name.starts_with('-') || package.name.contains(char::is_whitespace) {
            return Err(EngineError::Unsupported {
                what: format!("{:?} is no name of a package", package.name),
                fix: "correct provisioning.package.name".to_owned(),
            });
        }
        Ok(Self { wanted, package: package.clone(), may_install: setup.may_install(pool), setup: setup.clone() })
    }

    /// The program, when it is on the path.
    fn program(&self) -> Option<PathBuf> {
        programs(self.wanted.engine).iter().find_map(|name| self.setup.host.find(name))
    }

    fn full_name(&self) -> String {
        match &self.package.repo {
            Some(repo) => format!("{repo}/{}", self.package.name),
            None => self.package.name.clone(),
        }
    }

    fn is_from_aur(&self) -> bool {
        self.package.repo.as_deref().is_some_and(|repo| repo.eq_ignore_ascii_case("aur"))
    }

    /// What installs a package of the AUR, which is not done here: its build scripts are anybody's.
    fn by_hand(&self) -> EngineError {
        let name = &self.package.name;
        EngineError::Unsupported {
            what: format!("{name} is in none of pacman's repositories"),
            fix: format!(
                "install it from the AUR yourself: paru -S {name} (or yay -S {name}); llama-orch then finds it"
            ),
        }
    }

    async fn install(&self, step: &Step<'_>) -> Result<(), EngineError> {
        let host = &self.setup.host;
        let full = self.full_name();
        if self.is_from_aur() {
            return Err(self.by_hand());
        }
        pacman::may(host, self.may_install, &[&full])?;
        if !pacman::is_known(host, &full, step.cancel).await? {
            return Err(self.by_hand());
        }
        let packages = [vec![full.as_str()], pacman::install_set(&[], self.wanted.wants_hub, host)].concat();
        step.begin(StepKind::Install, &packages.join(", "));
        pacman::install(host, &packages, step.cancel).await
    }

    async fn prepare(&self, gpus: &Gpus, step: &Step<'_>) -> Result<PreparedEngine, EngineError> {
        step.begin(StepKind::Check, &self.full_name());
        if self.program().is_none() {
            self.install(step).await?;
        }
        let program = self.program().ok_or_else(|| EngineError::NoProgram {
            place: PathBuf::from(self.full_name()),
            wanted: format!("{} on the path", programs(self.wanted.engine).join(" or ")),
        })?;
        step.begin(StepKind::Version, &program.display().to_string());
        let told = ask_version(self.wanted.engine, &program, &self.setup.host, gpus, step.cancel).await?;
        let installed = self.installed(step).await?;
        if let (Some(wanted), Some(found)) = (&self.package.version, &installed)
            && found != wanted
        {
            return Err(EngineError::OtherVersion {
                engine: self.wanted.engine,
                found: found.clone(),
                wanted: wanted.clone(),
            });
        }
        let commit = told.as_ref().and_then(|told| told.commit.clone());
        let version = told.map(|told| told.version).or(installed).unwrap_or_else(|| "unknown".to_owned());
        let at = program.clone();
        let digest = crate::blocking(move || digest_of(&at)).await?;
        let id = self.register(&version, commit.clone(), &digest, &program, step).await?;
        let made = Made {
            version,
            build_ref: commit,
            digest: Some(digest),
            workdir: std::env::temp_dir(),
            artifact: EngineArtifact::Program(program),
            build_flags: Vec::new(),
            id: Some(id),
        };
        self.wanted.prepared(made, gpus)
    }

    async fn installed(&self, step: &Step<'_>) -> Result<Option<String>, EngineError> {
        match self.setup.host.find("pacman") {
            Some(_) => pacman::installed(&self.setup.host, &self.package.name, step.cancel).await,
            None => Ok(None),
        }
    }

    /// Its entry names no folder: the files are the package manager's.
    async fn register(
        &self,
        version: &str,
        commit: Option<String>,
        digest: &Digest,
        program: &std::path::Path,
        step: &Step<'_>,
    ) -> Result<String, EngineError> {
        let id = engine_id(self.wanted.engine, version, digest);
        let entry = EngineEntry {
            id: id.clone(),
            engine: self.wanted.engine,
            version: version.to_owned(),
            build_ref: commit,
            digest: Some(digest.clone()),
            build_flags: Vec::new(),
            artifacts: vec![program.display().to_string()],
            created_ms: now_ms(),
        };
        if self.setup.enter(entry).await? {
            step.begin(StepKind::Register, &id);
        }
        Ok(id)
    }
}

#[async_trait]
impl EngineProvisioner for PackageProvisioner {
    fn plan(&self) -> EnginePlan {
        let programs = programs(self.wanted.engine).join(", ");
        Steps::of(&self.wanted.pool)
            .then(StepKind::Check, format!("whether {programs} is on the path"))
            .then(
                StepKind::Install,
                format!("{} with pacman, on an Arch-like host, as root, where it is missing", self.full_name()),
            )
            .then(StepKind::Version, format!("{programs}{}", self.wanted.flags()))
            .then(StepKind::Register, "in the catalog of engines")
            .done()
    }

    async fn preflight(&self, _: Option<&Gpus>) -> Vec<DoctorCheck> {
        let mut checks = Checks::new(&self.wanted.pool, &self.setup.host);
        let full = self.full_name();
        match self.program() {
            Some(program) => checks.pass("package", program.display().to_string()),
            None if self.is_from_aur() => checks.fail("package", self.by_hand()),
            None => {
                let may = pacman::may(&self.setup.host, self.may_install, &[&full]);
                checks.result("package", may.map(|()| format!("{full} will be installed")));
            }
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
