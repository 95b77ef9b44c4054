//! Mode `source`: llama.cpp, fetched and built here with CUDA.

mod build;
mod fetched;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use api_types::{DoctorCheck, Engine, EnginePlan};
use async_trait::async_trait;
use catalog_core::Digest;
use config_schema::{Pool, SourceBuild};
use tokio_util::sync::CancellationToken;

use crate::cache::Record;
use crate::checks::Checks;
use crate::cmake::{self, Definitions, HostCompiler};
use crate::cuda::Cuda;
use crate::error::EngineError;
use crate::gpus::Gpus;
use crate::identity::{Made, Wanted, programs};
use crate::lock::Lock;
use crate::pacman;
use crate::plan::{StepKind, Steps};
use crate::prepared::{EngineArtifact, PreparedEngine};
use crate::process::Run;
use crate::progress::EngineProgress;
use crate::provisioner::EngineProvisioner;
use crate::setup::{Setup, absolute};
use crate::step::Step;
use crate::tools::Tool;
use crate::unpack::Kind;

use build::Build;

/// What needs the tools.
const PURPOSE: &str = "building llama.cpp";

pub(crate) struct SourceProvisioner {
    wanted: Wanted,
    source: SourceBuild,
    checksum: Option<Digest>,
    definitions: Definitions,
    setup: Setup,
    may_install: bool,
    /// Where sources and builds are kept.
    root: PathBuf,
}

/// What was found of the tools.
struct Tools {
    cuda: Cuda,
    definitions: Definitions,
    generator: String,
    compiler: String,
}

impl SourceProvisioner {
    pub(crate) fn new(pool: &Pool, wanted: Wanted, source: &SourceBuild, setup: &Setup) -> Result<Self, EngineError> {
        if pool.engine != Engine::Llamacpp {
            return Err(EngineError::Unsupported {
                what: format!("{} is not built from source here", pool.engine),
                fix: "set mode = \"container\", which is how it is published".to_owned(),
            });
        }
        let root = source.build.cache_dir.as_deref().map_or_else(|| setup.folder(pool.engine), absolute);
        let checksum =
            source.checksum.as_ref().map(|it| it.as_str().parse().expect("the configuration holds digests only"));
        Ok(Self {
            wanted,
            source: source.clone(),
            checksum,
            definitions: Definitions::with(&source.build.cmake_flags)?,
            setup: setup.clone(),
            may_install: setup.may_install(pool),
            root,
        })
    }

    /// The kind of archive that the source is; `None` for a repository.
    fn archive(&self) -> Option<Kind> {
        Kind::by_name(self.source.repo.as_str())
    }

    /// Looks at everything that a build needs; what is found is of use only if nothing is missing.
    async fn look(&self, gpus: Option<&Gpus>, checks: &mut Checks<'_>) -> Option<Tools> {
        let host = &self.setup.host;
        let generator = cmake::generator(self.source.build.generator.as_deref(), host);
        let cuda = Cuda::find(host, &self.setup.cache_dir.join("cuda.json")).await;
        let cuda = match cuda {
            Ok(cuda) => {
                let (major, minor) = cuda.version;
                checks.pass("cuda", format!("CUDA {major}.{minor} at {}", cuda.nvcc.display()));
                Some(cuda)
            }
            Err(error) => {
                checks.fail("cuda", error);
                None
            }
        };
        if self.archive().is_none() {
            checks.tool(&[Tool::Git], PURPOSE);
        }
        checks.tool(&[Tool::Cmake], PURPOSE);
        checks.tool(&[cmake::builder(&generator)], PURPOSE);
        checks.tool(&[Tool::Compiler], PURPOSE);
        if host.tool(Tool::Ccache).is_none() {
            checks.pass(
                "ccache",
                format!("not installed; it would make later builds quicker: {}", Tool::Ccache.fix(&host.distro)),
            );
        }
        checks.hub_client(self.wanted.wants_hub);
        let cuda = cuda?;
        let mut definitions = self.definitions.clone();
        let compiler = self.compiler().await;
        let other = self.host_compiler(&compiler, &cuda, checks);
        if let Some(gpus) = gpus {
            checks.result("cuda-gpus", cuda.check(gpus, host));
            definitions.for_cuda(&cuda, gpus, other.as_deref());
        }
        Some(Tools { cuda, definitions, generator, compiler })
    }

    /// What the host's compiler says of itself.
    async fn compiler(&self) -> String {
        let host = &self.setup.host;
        let Some(path) = host.tool(Tool::Compiler) else { return String::new() };
        let run = Run::new(&path, host.child_environment()).args(["--version"]).at_most(Duration::from_secs(30));
        let ended = run.finish(&CancellationToken::new(), |_| ()).await;
        ended.ok().and_then(|ended| ended.lines.into_iter().next()).unwrap_or_default()
    }

    fn host_compiler(&self, compiler: &str, cuda: &Cuda, checks: &mut Checks<'_>) -> Option<PathBuf> {
        if self.definitions.names_host_compiler() {
            return None;
        }
        match cmake::host_compiler(&self.setup.host, gcc_major(compiler), cuda) {
            HostCompiler::Usual => None,
            HostCompiler::Other(path) => {
                checks.pass("host-compiler", format!("{} for CUDA, which takes no newer one", path.display()));
                Some(path)
            }
            HostCompiler::None(gcc, newest) => {
                let what = format!(
                    "GCC {gcc} is newer than CUDA {}.{} takes, which is {newest}; the build may fail",
                    cuda.version.0, cuda.version.1
                );
                checks.warn("host-compiler", what, cmake::older_gcc(&self.setup.host, newest));
                None
            }
        }
    }

    /// Everything that a build needs; what is missing is installed where that is allowed.
    async fn tools(&self, gpus: &Gpus, step: &Step<'_>) -> Result<Tools, EngineError> {
        step.begin(StepKind::Check, "tools, CUDA and the pool's GPUs");
        let host = &self.setup.host;
        let mut checks = Checks::new(&self.wanted.pool, host);
        let found = self.look(Some(gpus), &mut checks).await;
        let missing = checks.missing();
        if !missing.is_empty() && self.may_install {
            let packages = pacman::install_set(&missing, self.wanted.wants_hub, host);
            if pacman::may(host, self.may_install, &packages).is_ok() {
                step.begin(StepKind::Install, &packages.join(", "));
                pacman::install(host, &packages, step.cancel).await?;
                let mut checks = Checks::new(&self.wanted.pool, host);
                let found = self.look(Some(gpus), &mut checks).await;
                checks.verdict()?;
                return found.ok_or_else(|| unreachable_tools(host));
            }
        }
        checks.verdict()?;
        found.ok_or_else(|| unreachable_tools(host))
    }

    async fn prepare(&self, gpus: &Gpus, step: &Step<'_>) -> Result<PreparedEngine, EngineError> {
        let mut tools = self.tools(gpus, step).await?;
        let source = match self.known().await? {
            Some(source) => source,
            None => {
                self.room()?;
                self.fetch(step).await?
            }
        };
        let commit = self.archive().is_none().then_some(source.id.as_str());
        tools.definitions.identify(&self.source.reference, commit);
        let build = Build { provisioner: self, tools: &tools, source: &source, gpus };
        let folder = build.folder();
        let here = folder.clone();
        let found = crate::blocking(move || Record::find(&here)).await;
        let record = match found {
            Some(record) => record,
            None => {
                let lock = Lock::take(&crate::cache::lock_of(&folder), step.progress.as_ref(), step.cancel).await?;
                let here = folder.clone();
                // Somebody else may have built it meanwhile.
                match crate::blocking(move || Record::find(&here)).await {
                    Some(record) => record,
                    None => build.run(&lock, step).await?,
                }
            }
        };
        let made = Made {
            version: build.version(),
            build_ref: Some(self.source.reference.clone()),
            digest: Some(record.digest.clone()),
            artifact: EngineArtifact::Program(record.program(&folder)),
            workdir: folder.clone(),
            build_flags: record.build_flags.clone(),
            id: Some(record.id.clone()),
        };
        let catalog = Arc::clone(&self.setup.catalog);
        crate::blocking(move || record.register(&folder, catalog.as_ref())).await?;
        self.wanted.prepared(made, gpus)
    }

    fn room(&self) -> Result<(), EngineError> {
        let mut checks = Checks::new(&self.wanted.pool, &self.setup.host);
        checks.room(&self.root, self.setup.build_bytes);
        checks.verdict()
    }
}

fn unreachable_tools(host: &crate::host::Host) -> EngineError {
    EngineError::NoCuda { what: "no CUDA compiler tells its version".to_owned(), fix: Tool::Nvcc.fix(&host.distro) }
}

/// The major version of GCC, when it is one: `g++ (Debian 12.2.0-14) 12.2.0`.
fn gcc_major(compiler: &str) -> Option<u32> {
    let is_gcc = ["g++", "gcc", "c++", "GCC"].iter().any(|name| compiler.contains(name)) && !compiler.contains("clang");
    let version =
        compiler.rsplit(' ').find(|word| word.starts_with(|c: char| c.is_ascii_digit()) && word.contains('.'))?;
    version.split('.').next()?.parse().ok().filter(|_| is_gcc)
}

#[async_trait]
impl EngineProvisioner for SourceProvisioner {
    fn plan(&self) -> EnginePlan {
        let source = &self.source;
        let generator = source.build.generator.as_deref().unwrap_or("Ninja, else Unix Makefiles");
        let archive = self.archive().is_some();
        let modules = if source.submodules { ", with its submodules" } else { "" };
        let place = self.root.display();
        Steps::of(&self.wanted.pool)
            .then(
                StepKind::Check,
                format!(
                    "{}cmake, a compiler and CUDA for the GPUs {}",
                    if archive { "" } else { "git, " },
                    self.wanted.device_mask
                ),
            )
            .then_if(!archive, StepKind::Clone, || format!("{} at {}{modules}", source.repo, source.reference))
            .then_if(archive, StepKind::Download, || {
                format!("{} as {}", crate::fetch::shown(source.repo.as_str()), source.reference)
            })
            .then_if(source.checksum.is_some(), StepKind::Verify, || {
                source.checksum.as_ref().map_or_else(String::new, ToString::to_string)
            })
            .then_if(archive, StepKind::Unpack, || format!("below {place}"))
            .then(StepKind::Configure, format!("{generator}: {}", self.definitions.args().join(" ")))
            .then(StepKind::Build, format!("{} below {place}", programs(self.wanted.engine).join(", ")))
            .then(StepKind::Version, format!("{}{}", programs(self.wanted.engine).join(", "), self.wanted.flags()))
            .then(StepKind::Register, "in the catalog of engines")
            .done()
    }

    async fn preflight(&self, gpus: Option<&Gpus>) -> Vec<DoctorCheck> {
        let mut checks = Checks::new(&self.wanted.pool, &self.setup.host);
        self.look(gpus, &mut checks).await;
        checks.room(&self.root, self.setup.build_bytes);
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

#[cfg(test)]
mod tests {
    use super::gcc_major;

    #[test]
    fn gcc_is_told_from_others() {
        for (line, major) in [
            ("g++ (Debian 12.2.0-14+deb12u1) 12.2.0", Some(12)),
            ("c++ (GCC) 15.1.1 20250425", Some(15)),
            ("Debian clang version 14.0.6", None),
            ("", None),
        ] {
            assert_eq!(gcc_major(line), major, "{line}");
        }
    }
}
