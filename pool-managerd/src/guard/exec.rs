//! The stage that becomes the engine: what has to be done in the engine's process before its program runs.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use rustix::io::Errno;
use rustix::process::{Signal, getppid, set_parent_process_death_signal};
use rustix::stdio::dup2_stdin;

use super::{Engine, Stage};

/// The kernel's killer takes an engine before the daemon and before what else runs on a workstation.
const OOM_SCORE: i32 = 500;

/// Bytes of a file that tell whether the kernel runs it.
const HEAD: usize = 20;

/// Becomes the engine. Returns only when that fails; stdin is told why.
pub(super) fn run(guard: i32, engine: &Engine) -> ExitCode {
    let Ok(report) = take_stdin() else { return ExitCode::FAILURE };
    let Err((stage, error)) = become_engine(guard, engine);
    let mut report = File::from(report);
    let errno = error.raw_os_error().unwrap_or_else(|| Errno::IO.raw_os_error());
    // The guard is gone when it does not read this, and so are we.
    let _unread = write!(report, "{} {errno}", stage.as_str());
    ExitCode::FAILURE
}

/// The file behind stdin, which closes when a program is run; stdin is empty then.
fn take_stdin() -> io::Result<OwnedFd> {
    let report = io::stdin().as_fd().try_clone_to_owned()?;
    dup2_stdin(File::open("/dev/null")?)?;
    Ok(report)
}

fn become_engine(guard: i32, engine: &Engine) -> Result<std::convert::Infallible, (Stage, io::Error)> {
    let at = |stage| move |error: io::Error| (stage, error);
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(|error| at(Stage::Guard)(error.into()))?;
    // It may have died just before, and then nobody would tell us.
    if getppid().is_none_or(|parent| parent.as_raw_pid() != guard) {
        return Err(at(Stage::Guard)(Errno::SRCH.into()));
    }
    raise_oom_score();
    if let Some(work_dir) = &engine.work_dir {
        std::env::set_current_dir(work_dir).map_err(at(Stage::WorkDir))?;
    }
    let program = find(&engine.command[0]).map_err(at(Stage::Program))?;
    check_runnable(&program).map_err(at(Stage::Program))?;
    let error = Command::new(program).arg0(&engine.command[0]).args(&engine.command[1..]).exec();
    Err(at(Stage::Program)(error))
}

/// Raising needs no privilege, and failing to is no reason not to serve.
fn raise_oom_score() {
    const PATH: &str = "/proc/self/oom_score_adj";
    let now = fs::read_to_string(PATH).ok().and_then(|text| text.trim().parse::<i32>().ok()).unwrap_or(0);
    if now < OOM_SCORE {
        let _served_anyway = fs::write(PATH, OOM_SCORE.to_string());
    }
}

/// The program's file: as it is named, or in a directory of `PATH` when it is a bare name.
fn find(program: &OsStr) -> io::Result<PathBuf> {
    if Path::new(program).components().count() > 1 || program.is_empty() {
        return Ok(PathBuf::from(program));
    }
    let path = std::env::var_os("PATH").unwrap_or_else(|| OsString::from("/usr/local/bin:/usr/bin:/bin"));
    let is_program =
        |file: &PathBuf| fs::metadata(file).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0);
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(is_program).ok_or_else(|| Errno::NOENT.into())
}

/// Refuses what is no program for this machine. The C library's `execvp` would ask a shell to read it instead, and a damaged
/// or foreign binary would end with a syntax error.
fn check_runnable(program: &Path) -> io::Result<()> {
    let head = match head(program) {
        Ok(head) => head,
        // A program may be run without being readable.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Ok(()),
        Err(error) => return Err(error),
    };
    let is_script = head.starts_with(b"#!");
    let own = self::head(Path::new("/proc/self/exe"))?;
    let is_ours = head.starts_with(b"\x7fELF") && machine(&head) == machine(&own);
    if is_script || is_ours { Ok(()) } else { Err(Errno::NOEXEC.into()) }
}

fn head(file: &Path) -> io::Result<Vec<u8>> {
    let mut head = Vec::with_capacity(HEAD);
    File::open(file)?.take(HEAD as u64).read_to_end(&mut head)?;
    Ok(head)
}

/// Class, byte order and machine of an ELF file. Source: elf(5), `e_ident` and `e_machine`.
fn machine(head: &[u8]) -> Option<(&[u8], &[u8])> {
    Some((head.get(4..6)?, head.get(18..20)?))
}
