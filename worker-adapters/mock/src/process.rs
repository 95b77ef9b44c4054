//! Support for tests that want the engine as a process of its own.

use std::ffi::OsStr;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

/// A running `mock-engine`; dropping it kills the process.
#[derive(Debug)]
pub struct MockEngineProcess {
    child: Child,
    url: String,
}

impl MockEngineProcess {
    /// Starts the engine with further flags and waits until it listens: on a fresh loopback port, unless the flags name a
    /// Unix socket. A binary that was not built yet is built first; one that is there is used as it is.
    ///
    /// # Errors
    /// When it cannot be built or started, or ends before it listens.
    pub fn start<A: AsRef<OsStr>>(args: impl IntoIterator<Item = A>) -> io::Result<Self> {
        Self::start_binary(&binary()?, args)
    }

    /// The same with further variables in its environment.
    ///
    /// # Errors
    /// When it cannot be built or started, or ends before it listens.
    pub fn start_with_env<A: AsRef<OsStr>, K: AsRef<OsStr>, V: AsRef<OsStr>>(
        args: impl IntoIterator<Item = A>,
        env: impl IntoIterator<Item = (K, V)>,
    ) -> io::Result<Self> {
        let mut command = Command::new(binary()?);
        command.args(args).envs(env);
        Self::spawn(command)
    }

    /// The same with a binary that the caller knows.
    ///
    /// # Errors
    /// When it cannot be started, or ends before it listens.
    pub fn start_binary<A: AsRef<OsStr>>(binary: &Path, args: impl IntoIterator<Item = A>) -> io::Result<Self> {
        let mut command = Command::new(binary);
        command.args(args);
        Self::spawn(command)
    }

    fn spawn(mut command: Command) -> io::Result<Self> {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        let line = first_line(&mut child);
        // From here on an early return kills the process.
        let mut process = Self { child, url: String::new() };
        process.url = match line?.trim_end().strip_prefix("listening ") {
            Some(url) => url.to_owned(),
            None => return Err(io::Error::other("mock-engine ended before it was listening")),
        };
        Ok(process)
    }

    /// Where it listens: `http://127.0.0.1:PORT` or `unix:PATH`.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Kills it with SIGKILL and waits for its end.
    ///
    /// # Errors
    /// Whatever the system says.
    pub fn kill(&mut self) -> io::Result<()> {
        self.child.kill()?;
        self.child.wait().map(drop)
    }

    /// Waits until it ends of its own accord. Blocks the thread.
    ///
    /// # Errors
    /// Whatever the system says.
    pub fn wait(&mut self) -> io::Result<ExitStatus> {
        self.child.wait()
    }
}

impl Drop for MockEngineProcess {
    fn drop(&mut self) {
        // It may have ended already, which is as good.
        let _ended = self.kill();
    }
}

/// The program, for whoever starts it by other means. One that was not built yet is built first; one that is there is used as it
/// is.
///
/// # Errors
/// When it cannot be built.
pub fn binary() -> io::Result<PathBuf> {
    program("mock", "mock-engine")
}

/// The same for another program of this workspace, by the names of its package and its own.
///
/// # Errors
/// When it cannot be built.
pub fn program(package: &str, name: &str) -> io::Result<PathBuf> {
    let binary = locate(name)?;
    if !binary.exists() {
        build(&binary, package, name)?;
    }
    Ok(binary)
}

fn first_line(child: &mut Child) -> io::Result<String> {
    let mut line = String::new();
    if let Some(stdout) = child.stdout.take() {
        BufReader::new(stdout).read_line(&mut line)?;
    }
    Ok(line)
}

/// Test executables live in `target/PROFILE/deps`, binaries one folder above.
fn locate(name: &str) -> io::Result<PathBuf> {
    let executable = std::env::current_exe()?;
    let folder = executable.parent().ok_or_else(|| io::Error::other("the test has no folder"))?;
    let profile = if folder.ends_with("deps") || folder.ends_with("examples") { folder.parent() } else { Some(folder) };
    Ok(profile.unwrap_or(folder).join(format!("{name}{}", std::env::consts::EXE_SUFFIX)))
}

fn build(binary: &Path, package: &str, name: &str) -> io::Result<()> {
    let profile = binary.parent().ok_or_else(|| io::Error::other("the binary has no folder"))?;
    let target = profile.parent().ok_or_else(|| io::Error::other("the target folder has no parent"))?;
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // Run from this crate's folder, so that the workspace is found wherever the test runs.
    cargo.current_dir(env!("CARGO_MANIFEST_DIR"));
    cargo.args(["build", "--quiet", "-p", package, "--bin", name, "--target-dir"]).arg(target);
    if profile.ends_with("release") {
        cargo.arg("--release");
    }
    match cargo.status()? {
        status if status.success() => Ok(()),
        status => Err(io::Error::other(format!("building {name} failed: {status}"))),
    }
}
