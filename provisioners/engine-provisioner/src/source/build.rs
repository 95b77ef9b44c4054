//! One build: configured and compiled in a folder of its own, which is named for everything that makes it what it is.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use catalog_core::Digest;

use super::fetched::Fetched;
use super::{SourceProvisioner, Tools};
use crate::cache::{Finished, Record, engine_id, short};
use crate::cmake::{self, Diagnosis};
use crate::error::EngineError;
use crate::gpus::Gpus;
use crate::host::is_program;
use crate::identity::{ask_version, programs};
use crate::lock::Lock;
use crate::plan::StepKind;
use crate::process::{Ended, Run, RunError};
use crate::step::Step;
use crate::tools::Tool;

/// Where CMake puts the program: llama.cpp's own place first.
const PLACES: &[&str] = &["bin", "", "bin/Release"];

pub(super) struct Build<'a> {
    pub(super) provisioner: &'a SourceProvisioner,
    pub(super) tools: &'a Tools,
    pub(super) source: &'a Fetched,
    pub(super) gpus: &'a Gpus,
}

/// A part of a build.
struct Stage<'a> {
    name: &'static str,
    args: Vec<String>,
    log: &'a Path,
    lock: &'a Lock,
}

impl Build<'_> {
    /// Everything that makes this build differ from another.
    fn key(&self) -> Digest {
        let tools = self.tools;
        let (major, minor) = tools.cuda.version;
        let parts = [
            self.source.id.clone(),
            self.provisioner.source.submodules.to_string(),
            tools.definitions.args().join("\0"),
            tools.generator.clone(),
            tools.compiler.clone(),
            format!("{} {major}.{minor}", tools.cuda.nvcc.display()),
        ];
        Digest::of(parts.join("\0\0").as_bytes())
    }

    pub(super) fn folder(&self) -> PathBuf {
        self.source.folder.join(format!("build-{}", short(&self.key())))
    }

    /// What it is built from: the reference and the beginning of its commit, or that alone.
    fn name(&self) -> String {
        let (id, reference) = (&self.source.id, &self.provisioner.source.reference);
        let commit = &id[..id.len().min(8)];
        if id.starts_with(reference.as_str()) { commit.to_owned() } else { format!("{reference}-{commit}") }
    }

    /// What it is built from, and how (LO-ENG-11). One build can have several names, as its commit can; a pool gets that of its
    /// own reference, and the catalog has the first one.
    pub(super) fn version(&self) -> String {
        format!("{}+{}", self.name(), self.tools.definitions.telling())
    }

    /// Builds. What an earlier try has compiled is not compiled again.
    pub(super) async fn run(&self, lock: &Lock, step: &Step<'_>) -> Result<Record, EngineError> {
        let folder = self.folder();
        std::fs::create_dir_all(&folder).map_err(EngineError::io("create", &folder))?;
        self.tools.definitions.invalidate(&self.source.tree, &folder)?;
        // A program that was changed after it was built looks newer than what it is built from.
        if let Some(stale) = Record::forget(&folder) {
            let _ = std::fs::remove_file(stale);
        }
        let log = folder.join("build.log");
        self.configure(&folder, &log, lock, step).await?;
        self.compile(&folder, &log, lock, step).await?;
        let program = self.program(&folder)?;
        self.finish(&folder, program, step).await
    }

    async fn configure(&self, folder: &Path, log: &Path, lock: &Lock, step: &Step<'_>) -> Result<(), EngineError> {
        let tools = self.tools;
        step.begin(StepKind::Configure, &format!("{}: {}", tools.generator, tools.definitions.args().join(" ")));
        let mut args = vec!["-S".to_owned(), text(&self.source.tree), "-B".to_owned(), text(folder)];
        args.extend(["-G".to_owned(), tools.generator.clone()]);
        args.extend(tools.definitions.args());
        if let Some(ccache) = self.provisioner.setup.host.tool(Tool::Ccache) {
            args.extend(
                ["C", "CXX", "CUDA"].map(|language| format!("-DCMAKE_{language}_COMPILER_LAUNCHER={}", text(&ccache))),
            );
        }
        let _ = std::fs::remove_file(log);
        self.stage(Stage { name: "configuring", args, log, lock }, step).await?;
        if cmake::has_cuda(folder) {
            return Ok(());
        }
        let diagnosis = Diagnosis {
            fault: api_types::PoolFault::NoCuda,
            cause: "CMake has turned CUDA off",
            fix: "see the log, and choose a ref of llama.cpp that builds with GGML_CUDA",
        };
        Err(EngineError::Build {
            stage: "configuring",
            detail: "GGML_CUDA is not ON in CMakeCache.txt".to_owned(),
            log: log.to_owned(),
            diagnosis: Some(diagnosis),
        })
    }

    async fn compile(&self, folder: &Path, log: &Path, lock: &Lock, step: &Step<'_>) -> Result<(), EngineError> {
        let setup = &self.provisioner.setup;
        let jobs = setup.build_jobs.map_or_else(|| setup.host.cores.get().to_string(), |jobs| jobs.to_string());
        let target = programs(self.provisioner.wanted.engine)[0];
        step.begin(StepKind::Build, &format!("{target} for {} with {jobs} jobs", self.gpus));
        let args = ["--build", &text(folder), "--target", target, "--parallel", &jobs].map(ToOwned::to_owned).into();
        self.stage(Stage { name: "building", args, log, lock }, step).await
    }

    async fn stage(&self, stage: Stage<'_>, step: &Step<'_>) -> Result<(), EngineError> {
        let host = &self.provisioner.setup.host;
        let Some(program) = host.tool(Tool::Cmake) else { return Err(super::unreachable_tools(host)) };
        let opened = File::options().create(true).append(true).open(stage.log);
        let mut log = BufWriter::new(opened.map_err(EngineError::io("write", stage.log))?);
        let mut unwritten = writeln!(log, "$ cmake {}", stage.args.join(" ")).err();
        let mut run = Run::new(&program, host.child_environment()).args(stage.args);
        run.lock = stage.lock.share();
        // A full disk fails the build by itself, and its other words are told all the same.
        let ended = run.finish(step.cancel, |line| {
            unwritten = unwritten.take().or_else(|| writeln!(log, "{line}").err());
            if let Some(share) = cmake::share(line) {
                step.progress.share(share);
            }
            step.progress.output(line);
        });
        let ended = ended.await;
        let _ = log.flush();
        let failed =
            |detail, diagnosis| EngineError::Build { stage: stage.name, detail, log: stage.log.to_owned(), diagnosis };
        match ended {
            Ok(Ended { status, .. }) if status.success() => Ok(()),
            Ok(Ended { status, lines }) => {
                let detail = Some(cmake::last_errors(&lines)).filter(|told| !told.is_empty());
                Err(failed(detail.unwrap_or_else(|| format!("cmake ended with {status}")), cmake::diagnose(&lines)))
            }
            Err(RunError::Canceled) => Err(EngineError::Canceled),
            Err(error) => Err(failed(error.to_string(), None)),
        }
    }

    fn program(&self, folder: &Path) -> Result<PathBuf, EngineError> {
        let names = programs(self.provisioner.wanted.engine);
        let all = PLACES.iter().flat_map(|place| names.iter().map(move |name| folder.join(place).join(name)));
        all.into_iter()
            .find(|path| is_program(path))
            .ok_or_else(|| EngineError::NoProgram { place: folder.to_owned(), wanted: names.join(" or ") })
    }

    /// Asks the program what it is, and writes that down.
    async fn finish(&self, folder: &Path, program: PathBuf, step: &Step<'_>) -> Result<Record, EngineError> {
        let (wanted, source) = (&self.provisioner.wanted, &self.provisioner.source);
        step.begin(StepKind::Version, &text(&program));
        let host = &self.provisioner.setup.host;
        ask_version(wanted.engine, &program, host, self.gpus, step.cancel).await?;
        let finished = Finished {
            id: engine_id(wanted.engine, &self.name(), &self.key()),
            engine: wanted.engine,
            version: self.version(),
            build_ref: Some(source.reference.clone()),
            program,
            build_flags: self.tools.definitions.args(),
        };
        step.begin(StepKind::Register, &finished.id);
        let folder = folder.to_owned();
        crate::blocking(move || Record::write(&folder, finished)).await
    }
}

fn text(path: &Path) -> String {
    path.display().to_string()
}
