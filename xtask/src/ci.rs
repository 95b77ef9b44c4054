//! What a merge needs, step by step; the same commands that a developer types.

use std::time::Instant;

use anyhow::Context as _;

use crate::cmd::Cmd;
use crate::progress::seconds;
use crate::{quickstart, regen, specs, test};

type Step = (&'static str, fn() -> anyhow::Result<()>);

/// The merge gate. Generated files are compared by tests of the crates they come from.
pub(crate) fn run() -> anyhow::Result<()> {
    run_steps(
        "ci",
        &[
            ("format", format_is_clean),
            ("lints", lints),
            ("specs", specs::check),
            ("quickstart, from nothing", quickstart::once),
            ("quickstart, again", quickstart::once),
            // Last, so that its summary is what a log ends with.
            ("tests", tests),
        ],
    )
}

/// The loop before a commit: repairs what can be repaired and checks the rest.
pub(crate) fn dev_loop() -> anyhow::Result<()> {
    run_steps(
        "dev:loop",
        &[
            ("format", || Cmd::cargo().args(["fmt", "--all"]).run()),
            ("generated files", regen::all),
            ("lints", lints),
            ("specs", specs::check),
            ("tests", tests),
        ],
    )
}

fn run_steps(name: &str, steps: &[Step]) -> anyhow::Result<()> {
    let started = Instant::now();
    for (number, (title, step)) in (1..).zip(steps) {
        eprintln!("── {name} {number}/{}: {title}", steps.len());
        let step_started = Instant::now();
        step().with_context(|| format!("{name} failed at \"{title}\""))?;
        eprintln!("── {name} {number}/{}: {title} passed in {}", steps.len(), seconds(step_started.elapsed()));
    }
    eprintln!("── {name}: all {} steps passed in {}", steps.len(), seconds(started.elapsed()));
    Ok(())
}

fn format_is_clean() -> anyhow::Result<()> {
    Cmd::cargo().args(["fmt", "--all", "--", "--check"]).run()
}

fn lints() -> anyhow::Result<()> {
    Cmd::cargo().args(["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]).run()
}

fn tests() -> anyhow::Result<()> {
    test::run(&test::Args::default())
}
