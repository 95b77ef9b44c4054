//! Runs other programs, and says what it runs.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use rustix::process::Signal;

use crate::process::Identity;
use crate::{interrupt, repo};

/// A program to run in the repository's root.
pub(crate) struct Cmd {
    command: Command,
}

impl Cmd {
    pub(crate) fn new(program: impl AsRef<OsStr>) -> Self {
        let mut command = Command::new(program);
        command.current_dir(repo::root());
        Self { command }
    }

    /// The cargo that runs this.
    pub(crate) fn cargo() -> Self {
        let mut cmd = Self::new(std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo")));
        // `cargo run` describes this crate in the environment. Some build scripts (ring's) watch those variables, and
        // what they belong to would be built again each time a command moves between a shell and here.
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
                cmd.command.env_remove(name);
            }
        }
        cmd
    }

    pub(crate) fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.command.arg(argument);
        self
    }

    pub(crate) fn args<A: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        self.command.args(arguments);
        self
    }

    pub(crate) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Runs it with this terminal; anything but success is an error.
    pub(crate) fn run(mut self) -> anyhow::Result<()> {
        let shown = self.shown();
        eprintln!("$ {shown}");
        let child = self.command.spawn().with_context(|| format!("could not start `{shown}`"))?;
        success(&shown, wait(child)?)
    }

    /// Runs it with its output in a file; an error shows the last lines of it.
    pub(crate) fn run_logged(mut self, log: &Path) -> anyhow::Result<()> {
        let shown = self.shown();
        let file = File::create(log).with_context(|| format!("could not write {}", log.display()))?;
        let quiet = self.command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        let child = quiet.spawn().with_context(|| format!("could not start `{shown}`"))?;
        success(&shown, wait(child)?).map_err(|error| anyhow!("{error}; {}", tail(log)))
    }

    /// Runs it and hands over its standard output line by line, as it comes.
    pub(crate) fn run_lines(mut self, mut line: impl FnMut(&str) -> anyhow::Result<()>) -> anyhow::Result<()> {
        let shown = self.shown();
        eprintln!("$ {shown}");
        let mut child =
            self.command.stdout(Stdio::piped()).spawn().with_context(|| format!("could not start `{shown}`"))?;
        let output = child.stdout.take().expect("it is piped");
        let read = BufReader::new(output).lines().try_for_each(|text| {
            interrupt::check()?;
            line(&text?)
        });
        if read.is_err() {
            // Nobody reads on, and the program may not notice.
            child.kill()?;
        }
        let status = wait(child)?;
        read.and_then(|()| success(&shown, status))
    }

    /// Whether it runs and succeeds; its output is of no interest.
    pub(crate) fn succeeds(mut self) -> bool {
        let quiet = self.command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        quiet.status().is_ok_and(|status| status.success())
    }

    fn shown(&self) -> String {
        let program = Path::new(self.command.get_program());
        let name = program.file_name().unwrap_or(program.as_os_str());
        let words = std::iter::once(name).chain(self.command.get_args());
        words.map(shown_word).collect::<Vec<_>>().join(" ")
    }
}

/// A path below the root without it, and anything with spaces in quotes.
fn shown_word(word: &OsStr) -> String {
    let text = repo::shown(Path::new(word));
    if text.contains(char::is_whitespace) { format!("{text:?}") } else { text }
}

/// Waits for a child, and passes a SIGTERM on to it.
fn wait(mut child: Child) -> anyhow::Result<ExitStatus> {
    const LOOK_UP: Duration = Duration::from_millis(200);
    if let Some(live) = Identity::of(child.id().cast_signed()).and_then(|identity| identity.open()) {
        let mut passed_on = false;
        while !live.exits_within(LOOK_UP)? {
            if interrupt::must_be_passed_on() && !std::mem::replace(&mut passed_on, true) {
                live.signal(Signal::TERM);
            }
        }
    }
    Ok(child.wait()?)
}

fn success(shown: &str, status: ExitStatus) -> anyhow::Result<()> {
    interrupt::check()?;
    if !status.success() {
        bail!("`{shown}` failed: {status}");
    }
    Ok(())
}

/// The last lines of a log, with its name, for an error message.
pub(crate) fn tail(log: &Path) -> String {
    const LINES: usize = 20;
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    let last = &lines[lines.len().saturating_sub(LINES)..];
    format!("the end of {}:\n  {}", repo::shown(log), last.join("\n  "))
}
