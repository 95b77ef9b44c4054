//! What is known of this host, so that tests can have another one.

use std::collections::BTreeMap;
use std::env;
use std::num::NonZeroUsize;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::distro::Distro;
use crate::tools::Tool;

/// Names of the environment that builds get to see. All else stays out, secrets above all (LO-ENG-13).
const KEPT: &[&str] = &[
    "HOME",
    "USER",
    "LOGNAME",
    "TMPDIR",
    "CC",
    "CXX",
    "CUDAHOSTCXX",
    "CUDA_HOME",
    "CUDA_PATH",
    "LD_LIBRARY_PATH",
    "CCACHE_DIR",
    "CCACHE_MAXSIZE",
    "XDG_CACHE_HOME",
    "SSH_AUTH_SOCK",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
];

/// Where CUDA lies when nobody says so. A `*` stands for the end of a name.
const CUDA_PLACES: &[&str] = &["/usr/local/cuda", "/opt/cuda", "/usr/lib/nvidia-cuda-toolkit", "/usr/local/cuda-*"];

/// What is known of this host.
#[derive(Clone, Debug)]
pub struct Host {
    /// Its distribution.
    pub distro: Distro,
    /// Whether this process may install packages.
    pub is_root: bool,
    /// Where programs are looked for.
    pub path: Vec<PathBuf>,
    /// Where CUDA is looked for, besides `path` and the environment. A `*` at the end of a name stands for anything.
    pub cuda_places: Vec<PathBuf>,
    /// What builds get of the environment, `PATH` apart.
    pub environment: BTreeMap<String, String>,
    /// Processors.
    pub cores: NonZeroUsize,
}

impl Host {
    /// What the process's environment and files say.
    #[must_use]
    pub fn of_process() -> Self {
        let kept = |name: &&str| Some(((*name).to_owned(), env::var(name).ok()?));
        Self {
            distro: Distro::of_host(),
            is_root: rustix::process::geteuid().is_root(),
            path: env::var_os("PATH").map(|path| env::split_paths(&path).collect()).unwrap_or_default(),
            cuda_places: CUDA_PLACES.iter().map(PathBuf::from).collect(),
            environment: KEPT.iter().filter_map(kept).collect(),
            cores: std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
        }
    }

    /// The first program of that name.
    #[must_use]
    pub fn find(&self, program: &str) -> Option<PathBuf> {
        self.path
            .iter()
            .filter(|folder| folder.is_absolute())
            .map(|folder| folder.join(program))
            .find(|file| is_program(file))
    }

    /// Where a tool is.
    pub(crate) fn tool(&self, tool: Tool) -> Option<PathBuf> {
        match tool {
            Tool::Compiler => {
                let own = self.environment.get("CXX").map(String::as_str);
                own.into_iter().chain(["c++", "g++", "clang++"]).find_map(|name| match name.contains('/') {
                    true => Some(PathBuf::from(name)).filter(|file| is_program(file)),
                    false => self.find(name),
                })
            }
            Tool::HuggingFaceCli => self.find("huggingface-cli").or_else(|| self.find("hf")),
            tool => self.find(tool.as_str()),
        }
    }

    /// What a child gets: what is kept of the environment, and plain English.
    pub(crate) fn child_environment(&self) -> BTreeMap<String, String> {
        let mut all = self.environment.clone();
        let path = env::join_paths(&self.path).unwrap_or_default();
        all.insert("PATH".to_owned(), path.to_string_lossy().into_owned());
        all.insert("LC_ALL".to_owned(), "C".to_owned());
        all
    }
}

/// Whether a path names something that can be run.
pub(crate) fn is_program(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}
