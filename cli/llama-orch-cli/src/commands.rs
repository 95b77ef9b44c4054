//! One module per group of commands.

pub(crate) mod artifacts;
pub(crate) mod bench;
mod bundle;
pub(crate) mod devices;
pub(crate) mod doctor;
pub(crate) mod down;
pub(crate) mod engines;
pub(crate) mod explain;
mod follow;
mod local;
pub(crate) mod logs;
pub(crate) mod models;
mod pages;
pub(crate) mod pools;
pub(crate) mod run;
pub(crate) mod sessions;
pub(crate) mod status;
pub(crate) mod tasks;
pub(crate) mod up;
pub(crate) mod verify;
pub(crate) mod workers;

use clap::CommandFactory as _;

use crate::args::Args;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output;

/// `llama-orch completions SHELL`.
pub(crate) fn completions(shell: clap_complete::Shell) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Args::command(), "llama-orch", &mut script);
    output::write(&String::from_utf8_lossy(&script))?;
    Ok(Exit::Ok)
}
