//! Podman for tests: with storage and settings of its own in a temporary folder, and images built from scratch, since a test
//! fetches nothing. Not for daemons.
//!
//! ```no_run
//! # async fn example() {
//! use container_runtime::test_support::Podman;
//!
//! let Some(podman) = Podman::start() else { return };
//! let image = podman.build("mock-engine", std::path::Path::new("target/debug/mock-engine"));
//! let runtime = podman.runtime().await;
//! // A process of its own, such as a daemon under test, is given the same podman by its environment.
//! std::process::Command::new("llama-orchd").envs(podman.env());
//! # let _ = (image, runtime);
//! # }
//! ```

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use tempfile::TempDir;

use crate::{Backend, Detector, ImageRef, Limits, Preference, Runtime, SystemExecutor};

/// What both clients and daemons of tests are told: no limits that an unprivileged machine refuses to raise, control groups
/// without systemd, this machine's network, and nothing outside the folder, locks included.
const ENGINE: &str = r#"[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
lock_type = "file"
tmp_dir = "{folder}/tmp"

[containers]
default_ulimits = ["nofile=20000:20000", "nproc=1000:1000"]
netns = "host"
"#;

const STORAGE: &str = r#"[storage]
driver = "overlay"
graphroot = "{folder}/root"
runroot = "{folder}/run"
"#;

/// Registries of tests speak plain HTTP on loopback.
const REGISTRIES: &str = r#"[[registry]]
prefix = "127.0.0.1"
location = "127.0.0.1"
insecure = true
"#;

/// A podman of a test's own. Dropping it removes its containers, images and files.
#[derive(Debug)]
pub struct Podman {
    folder: TempDir,
}

impl Podman {
    /// Sets one up. Without podman on this machine the test is to be skipped, which is said aloud; with
    /// `REQUIRE_REAL_SERVERS=1` that is a failure.
    ///
    /// # Panics
    /// Then, and when its folder cannot be made.
    #[must_use]
    pub fn start() -> Option<Self> {
        is_installed("podman", "apt-get install podman runc catatonit").then(|| {
            let folder = tempfile::Builder::new().prefix("podman-").tempdir().expect("a temporary folder");
            let podman = Self { folder };
            for (file, text) in
                [("containers.conf", ENGINE), ("storage.conf", STORAGE), ("registries.conf", REGISTRIES)]
            {
                let text = text.replace("{folder}", podman.folder.path().to_str().expect("its name is ours"));
                fs::write(podman.path(file), text).expect("the folder is new");
            }
            podman
        })
    }

    /// A path in its folder.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// What a process needs in its environment to use it.
    #[must_use]
    pub fn env(&self) -> [(&'static str, PathBuf); 3] {
        [
            ("CONTAINERS_CONF", self.path("containers.conf")),
            ("CONTAINERS_STORAGE_CONF", self.path("storage.conf")),
            ("CONTAINERS_REGISTRIES_CONF", self.path("registries.conf")),
        ]
    }

    /// How calls of this crate use it.
    #[must_use]
    pub fn executor(&self) -> SystemExecutor {
        let text = |path: &PathBuf| path.to_str().expect("its name is ours").to_owned();
        self.env().iter().fold(SystemExecutor::new(), |executor, (name, path)| executor.with_env(name, &text(path)))
    }

    /// The runtime.
    ///
    /// # Panics
    /// When podman does not work.
    pub async fn runtime(&self) -> Runtime {
        self.runtime_with(Limits::default()).await
    }

    /// The runtime with deadlines of the test's own.
    ///
    /// # Panics
    /// When podman does not work.
    pub async fn runtime_with(&self, limits: Limits) -> Runtime {
        let detector = Detector { limits, ..Detector::with_executor(Arc::new(self.executor())) };
        detector.detect(Preference::Only(Backend::Podman)).await.expect("podman works")
    }

    /// A podman command, for what a test must do behind our back.
    #[must_use]
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("podman");
        command.args(args).envs(self.env());
        command
    }

    /// Runs a podman command and gives what it prints.
    ///
    /// # Panics
    /// When it fails.
    pub fn run(&self, args: &[&str]) -> String {
        let output = self.command(args).output().expect("podman starts");
        let complaints = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "podman {args:?}: {complaints}");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// The processes that belong to it: clients, monitors of containers, and the containers' own, by their command lines.
    #[must_use]
    pub fn processes(&self) -> Vec<String> {
        let folder = self.folder.path().to_str().expect("its name is ours");
        let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
        let lines = processes.filter_map(|process| fs::read(process.path().join("cmdline")).ok());
        let lines = lines.map(|line| String::from_utf8_lossy(&line).replace('\0', " "));
        lines.filter(|line| line.contains(folder)).collect()
    }

    /// Builds the image `localhost/<name>:test` with nothing in it but a program, which is its entrypoint, and the libraries
    /// that it is linked to.
    ///
    /// # Panics
    /// When it cannot be built.
    #[must_use]
    pub fn build(&self, name: &str, program: &Path) -> ImageRef {
        let context = self.path(&format!("context-{name}"));
        write_context(&context, program);
        let tag = format!("localhost/{name}:test");
        self.run(&["build", "--quiet", "--tag", &tag, context.to_str().expect("its name is ours")]);
        fs::remove_dir_all(&context).expect("it was written here");
        tag.parse().expect("a name")
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        // Containers hold mounts below the folder; without them it can be removed.
        let _ = self.command(&["rm", "--all", "--force", "--time=0"]).output();
        let _ = self.command(&["rmi", "--all", "--force"]).output();
        // What runc remembers of containers whose client or monitor a test has killed.
        for container in fs::read_dir("/run/runc").into_iter().flatten().flatten() {
            let state = fs::read_to_string(container.path().join("state.json")).unwrap_or_default();
            if self.folder.path().to_str().is_some_and(|folder| state.contains(folder)) {
                let _ = fs::remove_dir_all(container.path());
            }
        }
    }
}

/// Writes the folder that an image with this one program is built from; for podman and docker.
///
/// # Panics
/// When it cannot be written.
pub fn write_context(folder: &Path, program: &Path) {
    let mut copies = String::new();
    for (number, library) in libraries(program).iter().enumerate() {
        fs::create_dir_all(folder).expect("a folder");
        fs::copy(library, folder.join(format!("library-{number}"))).expect("the library is there");
        copies += &format!("COPY library-{number} {}\n", library.display());
    }
    fs::create_dir_all(folder).expect("a folder");
    fs::copy(program, folder.join("program")).expect("the program is there");
    let text = format!("FROM scratch\n{copies}COPY program /program\nENTRYPOINT [\"/program\"]\n");
    fs::write(folder.join("Dockerfile"), text).expect("the folder can be written");
}

/// The shared libraries of a program and the loader that finds them; none of a static one.
fn libraries(program: &Path) -> Vec<PathBuf> {
    let output = Command::new("ldd").arg(program).output().expect("ldd is part of the C library");
    let listed = String::from_utf8_lossy(&output.stdout);
    listed.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from).collect()
}

/// Whether a program is on the `PATH`. Without it the test is skipped, aloud; with `REQUIRE_REAL_SERVERS=1` that is a
/// failure.
///
/// # Panics
/// Then.
#[must_use]
pub fn is_installed(program: &str, install: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).any(|folder| folder.join(program).is_file());
    if !found {
        let required = std::env::var("REQUIRE_REAL_SERVERS").is_ok_and(|value| value == "1");
        assert!(!required, "REQUIRE_REAL_SERVERS=1 and no {program} on the PATH: {install}");
        eprintln!("skipped: no {program} on the PATH; on Debian and Ubuntu: {install}");
    }
    found
}
