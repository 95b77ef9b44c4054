//! Mode `binary`: a ready-made program, verified before anything is done with it (LO-ENG-12).

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use api_types::{DoctorCheck, EnginePlan};
use async_trait::async_trait;
use catalog_core::Digest;
use config_schema::{Binary, Pool};
use tokio_util::sync::CancellationToken;

use crate::cache::{Finished, Record, clear, engine_id, lock_of, short};
use crate::checks::Checks;
use crate::error::EngineError;
use crate::fetch;
use crate::gpus::Gpus;
use crate::identity::{Made, Wanted, ask_version, programs};
use crate::lock::Lock;
use crate::plan::{StepKind, Steps};
use crate::prepared::{EngineArtifact, PreparedEngine};
use crate::progress::EngineProgress;
use crate::provisioner::EngineProvisioner;
use crate::setup::{Setup, absolute};
use crate::step::Step;
use crate::unpack::{Kind, Limits, UnpackError, kind_by_content, unpack};

/// How deep in an archive the program may lie.
const DEEPEST: usize = 6;

pub(crate) struct BinaryProvisioner {
    wanted: Wanted,
    url: String,
    checksum: Digest,
    version: Option<String>,
    may_download: bool,
    setup: Setup,
    root: PathBuf,
}

impl BinaryProvisioner {
    pub(crate) fn new(pool: &Pool, wanted: Wanted, binary: &Binary, setup: &Setup) -> Result<Self, EngineError> {
        Ok(Self {
            wanted,
            url: binary.url.as_str().to_owned(),
            checksum: binary.checksum.as_str().parse().expect("the configuration holds digests only"),
            version: pool.provisioning.version.clone(),
            may_download: setup.may_download(pool),
            root: binary.install_dir.as_deref().map_or_else(|| setup.folder(pool.engine), absolute),
            setup: setup.clone(),
        })
    }

    fn folder(&self) -> PathBuf {
        self.root.join(format!("bin-{}", short(&self.checksum)))
    }

    fn allowed(&self) -> Result<String, EngineError> {
        match self.may_download {
            true => Ok("ready-made programs may be used".to_owned()),
            false => Err(EngineError::NotAllowed {
                what: "ready-made programs may not be used: allow_binary_downloads is false".to_owned(),
                fix: "set `allow_binary_downloads = true` in the pool's provisioning or in [policy.outbound]"
                    .to_owned(),
            }),
        }
    }

    async fn prepare(&self, gpus: &Gpus, step: &Step<'_>) -> Result<PreparedEngine, EngineError> {
        self.allowed()?;
        let folder = self.folder();
        let record = match find(&folder).await {
            Some(record) => record,
            None => {
                let _lock = Lock::take(&lock_of(&folder), step.progress.as_ref(), step.cancel).await?;
                // Somebody else may have installed it meanwhile.
                match find(&folder).await {
                    Some(record) => record,
                    None => self.install(&folder, gpus, step).await?,
                }
            }
        };
        let program = record.program(&folder);
        let made = Made {
            version: record.version.clone(),
            build_ref: record.build_ref.clone(),
            digest: Some(record.digest.clone()),
            workdir: program.parent().unwrap_or(&folder).to_owned(),
            artifact: EngineArtifact::Program(program),
            build_flags: Vec::new(),
            id: Some(record.id.clone()),
        };
        let catalog = Arc::clone(&self.setup.catalog);
        crate::blocking(move || record.register(&folder, catalog.as_ref())).await?;
        self.wanted.prepared(made, gpus)
    }

    async fn install(&self, folder: &Path, gpus: &Gpus, step: &Step<'_>) -> Result<Record, EngineError> {
        step.begin(StepKind::Download, &fetch::shown(&self.url));
        let downloads = self.root.join(".fetch/downloads");
        let fetched =
            fetch::file(&self.url, Some(&self.checksum), &downloads, &self.setup.web, step.progress, step.cancel)
                .await?;
        step.begin(StepKind::Unpack, &folder.display().to_string());
        let fresh = self.root.join(".fetch").join(short(&self.checksum));
        let name = self.program_name();
        let (source, place, cancel) = (fetched.path.clone(), fresh.clone(), step.cancel.clone());
        let program = crate::blocking(move || {
            clear(&place)?;
            lay_out(&source, &place, &name, &cancel)
        });
        let program = program.await?;
        let wanted = &self.wanted;
        step.begin(StepKind::Version, &program.display().to_string());
        let told = ask_version(wanted.engine, &program, &self.setup.host, gpus, step.cancel).await?;
        let commit = told.as_ref().and_then(|told| told.commit.clone());
        let version =
            told.map(|told| told.version).or_else(|| self.version.clone()).unwrap_or_else(|| "unknown".to_owned());
        let id = engine_id(wanted.engine, &version, &self.checksum);
        step.begin(StepKind::Register, &id);
        let (engine, folder) = (wanted.engine, folder.to_owned());
        let record = crate::blocking(move || {
            Record::write(
                &fresh,
                Finished { id, engine, version, build_ref: commit, program, build_flags: Vec::new() },
            )?;
            clear(&folder)?;
            fs::rename(&fresh, &folder).map_err(EngineError::io("rename", &fresh))?;
            Record::find(&folder)
                .ok_or_else(|| EngineError::NoProgram { place: folder.clone(), wanted: "engine.json".to_owned() })
        });
        let record = record.await?;
        fetched.discard();
        Ok(record)
    }

    fn program_name(&self) -> Name {
        Name { url: self.url.clone(), programs: programs(self.wanted.engine) }
    }
}

async fn find(folder: &Path) -> Option<Record> {
    let folder = folder.to_owned();
    crate::blocking(move || Record::find(&folder)).await
}

/// What is looked for in what was fetched.
struct Name {
    url: String,
    programs: &'static [&'static str],
}

/// Unpacks an archive, or takes a plain file for the program, and says where the program is.
fn lay_out(source: &Path, folder: &Path, name: &Name, cancel: &CancellationToken) -> Result<PathBuf, EngineError> {
    let kind = match Kind::by_name(&name.url) {
        Some(kind) => Some(kind),
        None => kind_by_content(source).map_err(EngineError::io("read", source))?,
    };
    let Some(kind) = kind else {
        let program = folder.join(name.programs.first().copied().unwrap_or("engine"));
        fs::create_dir_all(folder).map_err(EngineError::io("create", folder))?;
        fs::copy(source, &program).map_err(EngineError::io("write", &program))?;
        make_program(&program)?;
        return Ok(program);
    };
    unpack(source, kind, folder, Limits::ENGINE, cancel).map_err(|source_error| match source_error {
        UnpackError::Canceled => EngineError::Canceled,
        source_error => EngineError::Unpack { path: source.to_owned(), source: source_error },
    })?;
    let program = search(folder, name.programs).ok_or_else(|| EngineError::NoProgram {
        place: PathBuf::from(fetch::shown(&name.url)),
        wanted: name.programs.join(" or "),
    })?;
    make_program(&program)?;
    Ok(program)
}

fn make_program(path: &Path) -> Result<(), EngineError> {
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).map_err(EngineError::io("make a program of", path))
}

/// The file of one of these names that lies highest.
fn search(folder: &Path, names: &[&str]) -> Option<PathBuf> {
    let mut level = vec![folder.to_owned()];
    for _ in 0..DEEPEST {
        let found = level.iter().flat_map(|folder| names.iter().map(move |name| folder.join(name)));
        if let Some(path) = found.into_iter().find(|path| fs::symlink_metadata(path).is_ok_and(|it| it.is_file())) {
            return Some(path);
        }
        let mut next: Vec<_> =
            level.iter().flat_map(fs::read_dir).flatten().flatten().map(|entry| entry.path()).collect();
        next.retain(|path| fs::symlink_metadata(path).is_ok_and(|it| it.is_dir()));
        next.sort();
        level = next;
    }
    None
}

#[async_trait]
impl EngineProvisioner for BinaryProvisioner {
    fn plan(&self) -> EnginePlan {
        let names = self.wanted.engine;
        Steps::of(&self.wanted.pool)
            .then(StepKind::Check, "whether ready-made programs may be used")
            .then(StepKind::Download, fetch::shown(&self.url))
            .then(StepKind::Verify, self.checksum.to_string())
            .then(StepKind::Unpack, format!("below {}", self.root.display()))
            .then(StepKind::Version, format!("{}{}", programs(names).join(", "), self.wanted.flags()))
            .then(StepKind::Register, "in the catalog of engines")
            .done()
    }

    async fn preflight(&self, _: Option<&Gpus>) -> Vec<DoctorCheck> {
        let mut checks = Checks::new(&self.wanted.pool, &self.setup.host);
        checks.result("binary", self.allowed());
        checks.room(&self.root, 0);
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
