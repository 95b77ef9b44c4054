//! Measurements of release builds. What is measured, and how, is the command's own business: `llama-orch bench`.

use crate::build::{CLIENT, DAEMON, ENGINE, Profile, build};
use crate::cmd::Cmd;

/// Options that are handed on.
#[derive(clap::Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Args {
    /// Options of the measurement, `--help` and `--json` among them.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    options: Vec<String>,
}

/// Builds what is measured and what measures, which find each other in one folder, and measures.
pub(crate) fn run(measurement: &str, args: &Args) -> anyhow::Result<()> {
    let [_, _, client] = build([DAEMON, ENGINE, CLIENT], Profile::Release)?;
    Cmd::new(client).args(["bench", measurement]).args(&args.options).run()
}
