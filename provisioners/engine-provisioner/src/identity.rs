//! What a pool wants of its engine, and what a program says that it is.

use std::collections::BTreeMap;
use std::num::NonZeroU16;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use api_types::{Engine, PoolFault, PoolId};
use catalog_core::{Digest, ModelRef};
use config_schema::{Pool, ProvisioningMode};
use tokio_util::sync::CancellationToken;

use crate::error::EngineError;
use crate::gpus::Gpus;
use crate::host::Host;
use crate::launch::{check_environment, normalized};
use crate::prepared::{EngineArtifact, PreparedEngine};
use crate::process::{Run, RunError};

/// Longest that a program may take to tell its version.
const LONGEST: Duration = Duration::from_secs(60);

/// What a pool wants of its engine, checked.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    pub(crate) pool: PoolId,
    pub(crate) engine: Engine,
    mode: ProvisioningMode,
    version: Option<String>,
    args: Vec<String>,
    env: BTreeMap<String, String>,
    ports: Vec<NonZeroU16>,
    pub(crate) device_mask: String,
    /// Whether the model comes from the Hub.
    pub(crate) wants_hub: bool,
}

/// An engine as it was found or made.
#[derive(Clone, Debug)]
pub(crate) struct Made {
    pub(crate) version: String,
    pub(crate) build_ref: Option<String>,
    pub(crate) digest: Option<Digest>,
    pub(crate) artifact: EngineArtifact,
    pub(crate) workdir: PathBuf,
    pub(crate) build_flags: Vec<String>,
    pub(crate) id: Option<String>,
}

impl Wanted {
    pub(crate) fn by(pool: &Pool) -> Result<Self, EngineError> {
        let provisioning = &pool.provisioning;
        check_environment(pool.engine, &provisioning.env)?;
        let model: Option<ModelRef> = pool.model_to_fetch().parse().ok();
        Ok(Self {
            pool: pool.id.clone(),
            engine: pool.engine,
            mode: pool.mode(),
            version: provisioning.version.clone(),
            args: normalized(pool.engine, &provisioning.flags)?,
            env: provisioning.env.clone(),
            ports: provisioning.ports.clone(),
            device_mask: pool.device_mask().unwrap_or_default(),
            wants_hub: matches!(model, Some(ModelRef::Hf { .. })),
        })
    }

    /// The engine, when it is the version that the pool wants.
    pub(crate) fn prepared(&self, made: Made, gpus: &Gpus) -> Result<PreparedEngine, EngineError> {
        if let Some(wanted) = &self.version
            && !is_version(&made.version, wanted)
        {
            let (found, wanted) = (made.version, wanted.clone());
            return Err(EngineError::OtherVersion { engine: self.engine, found, wanted });
        }
        let mut env = self.env.clone();
        // A container sees the GPUs that its runtime gives it, under other numbers.
        if let EngineArtifact::Program(_) = made.artifact {
            env.insert("CUDA_DEVICE_ORDER".to_owned(), "PCI_BUS_ID".to_owned());
            env.insert("CUDA_VISIBLE_DEVICES".to_owned(), gpus.visible());
        }
        Ok(PreparedEngine {
            engine: self.engine,
            engine_version: made.version,
            build_ref: made.build_ref,
            engine_digest: made.digest,
            provisioning_mode: self.mode,
            artifact: made.artifact,
            args: self.args.clone(),
            env,
            ports: self.ports.clone(),
            workdir: made.workdir,
            device_mask: self.device_mask.clone(),
            build_flags: made.build_flags,
            engine_catalog_id: made.id,
        })
    }

    /// The pool's flags, for plans.
    pub(crate) fn flags(&self) -> String {
        if self.args.is_empty() { String::new() } else { format!(" with {}", self.args.join(" ")) }
    }
}

/// Whether a version is the wanted one: all of it, or one of its parts, with or without the letter before its number.
fn is_version(found: &str, wanted: &str) -> bool {
    let bare = |text: &str| text.trim_start_matches(['v', 'b']).to_owned();
    let mut parts = found.split(['-', '+', ' ', '(', ')']).map(bare);
    found == wanted || parts.any(|part| part == bare(wanted))
}

/// The programs that an engine may have.
pub(crate) const fn programs(engine: Engine) -> &'static [&'static str] {
    match engine {
        Engine::Llamacpp => &["llama-server"],
        Engine::Vllm => &["vllm"],
        Engine::Tgi => &["text-generation-launcher"],
        Engine::Triton => &["tritonserver"],
        Engine::Mock => &["mock-engine"],
        Engine::Openai => &[],
    }
}

/// What a program's `--version` says: its number or name, and the commit where it tells one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) version: String,
    pub(crate) commit: Option<String>,
}

/// Asks a program for its version, with which it also shows that it runs at all.
pub(crate) async fn ask_version(
    engine: Engine,
    program: &Path,
    host: &Host,
    gpus: &Gpus,
    cancel: &CancellationToken,
) -> Result<Option<Told>, EngineError> {
    // It has no flag for it.
    if engine == Engine::Triton {
        return Ok(None);
    }
    let mut environment = host.child_environment();
    environment.insert("CUDA_VISIBLE_DEVICES".to_owned(), gpus.visible());
    let run = Run::new(program, environment).args(["--version"]).at_most(LONGEST);
    let bad = |detail: String| bad_program(program, detail);
    let ended = match run.finish(cancel, |_| ()).await {
        Ok(ended) => ended,
        Err(RunError::Canceled) => return Err(EngineError::Canceled),
        Err(error) => return Err(bad(error.to_string())),
    };
    match (ended.status.signal(), ended.status.success()) {
        (None, true) => Ok(told(&ended.lines)),
        (Some(signal), _) => Err(bad(format!("`--version` was ended by signal {signal}: {}", last(&ended.lines)))),
        _ => Err(bad(format!("`--version` failed: {}", last(&ended.lines)))),
    }
}

fn last(lines: &[String]) -> &str {
    lines.iter().rev().find(|line| !line.trim().is_empty()).map_or("it said nothing", String::as_str)
}

/// `version: 6891 (1a2b3c4d)` of llama.cpp; else the first word with a digit of the first line that has one.
fn told(lines: &[String]) -> Option<Told> {
    if let Some(rest) = lines.iter().find_map(|line| line.trim().strip_prefix("version: ")) {
        let (version, commit) = rest.split_once(" (").unwrap_or((rest, ""));
        let commit = commit.trim_end_matches(')');
        return Some(Told {
            version: version.trim().to_owned(),
            commit: (!commit.is_empty()).then(|| commit.to_owned()),
        });
    }
    let mut words = lines.iter().flat_map(|line| line.split_whitespace());
    let version = words.find(|word| word.trim_start_matches('v').starts_with(|c: char| c.is_ascii_digit()))?;
    Some(Told { version: version.to_owned(), commit: None })
}

/// What is known of programs that do not run.
#[rustfmt::skip]
const KNOWN: &[(&str, PoolFault, &str)] = &[
    ("signal 4", PoolFault::IllegalInstruction, "use a build for this processor, or build it here with mode = \"source\""),
    ("libcuda.so", PoolFault::NoDriver, "install the NVIDIA driver; `llama-orch doctor` tells how"),
    ("libcudart", PoolFault::NoCuda, "install the CUDA runtime of the version that the program was built with, or build it here with mode = \"source\""),
    ("libcublas", PoolFault::NoCuda, "install the CUDA runtime of the version that the program was built with, or build it here with mode = \"source\""),
    ("Exec format error", PoolFault::Unsupported, "use a build for this processor and system"),
    ("os error 8", PoolFault::Unsupported, "use a build for this processor and system"),
    ("GLIBC_", PoolFault::Unsupported, "use a build for this system's version of glibc, or build it here with mode = \"source\""),
    ("GLIBCXX_", PoolFault::Unsupported, "use a build for this system's version of libstdc++, or build it here with mode = \"source\""),
    ("Permission denied", PoolFault::SpawnFailed, "see whether the folder's file system is mounted with noexec"),
];

fn bad_program(program: &Path, detail: String) -> EngineError {
    let known = KNOWN.iter().find(|(pattern, ..)| detail.contains(pattern));
    let (fault, fix) = match known {
        Some((_, fault, fix)) => (*fault, (*fix).to_owned()),
        None => (PoolFault::SpawnFailed, format!("run `{} --version` and see", program.display())),
    };
    EngineError::BadProgram { program: program.to_owned(), detail, fault, fix }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<String> {
        text.lines().map(ToOwned::to_owned).collect()
    }

    #[test]
    fn versions_are_read_and_compared() {
        let cases = [
            (
                "ggml_cuda_init: found 1 CUDA devices:\nversion: 6891 (1a2b3c4d)\nbuilt with cc",
                "6891",
                Some("1a2b3c4d"),
            ),
            ("version: 0 (unknown)", "0", Some("unknown")),
            ("INFO something\n0.11.0\n", "0.11.0", None),
            ("text-generation-launcher 3.3.6\n", "3.3.6", None),
            ("mock-engine 0.1.0", "0.1.0", None),
        ];
        for (output, version, commit) in cases {
            let expected = Told { version: version.to_owned(), commit: commit.map(ToOwned::to_owned) };
            assert_eq!(told(&lines(output)), Some(expected), "{output}");
        }
        assert_eq!(told(&lines("hello\n")), None);
        for (found, wanted, same) in [
            ("b6891-1a2b3c4d+GGML_CUDA=ON", "b6891", true),
            ("b6891-1a2b3c4d+GGML_CUDA=ON", "6891", true),
            ("b6891-1a2b3c4d+GGML_CUDA=ON", "1a2b3c4d", true),
            ("b6891-1a2b3c4d", "b689", false),
            ("0.11.0", "v0.11.0", true),
            ("0.11.0", "0.11", false),
        ] {
            assert_eq!(is_version(found, wanted), same, "{found} {wanted}");
        }
    }

    /// LO-ENG-15: a program that cannot run here says why, as far as that is known.
    #[test]
    fn what_is_known_of_bad_programs() {
        for (detail, fault) in [
            (
                "`--version` failed: error while loading shared libraries: libcudart.so.12: cannot open",
                PoolFault::NoCuda,
            ),
            (
                "`--version` failed: error while loading shared libraries: libcuda.so.1: cannot open",
                PoolFault::NoDriver,
            ),
            ("`--version` was ended by signal 4: it said nothing", PoolFault::IllegalInstruction),
            ("it cannot be started: Exec format error (os error 8)", PoolFault::Unsupported),
            ("`--version` failed: who knows", PoolFault::SpawnFailed),
        ] {
            let error = bad_program(Path::new("/p"), detail.to_owned());
            assert_eq!(error.fault(), fault, "{detail}");
            assert!(error.fix().is_some());
        }
    }
}
