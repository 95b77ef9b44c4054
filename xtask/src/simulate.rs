//! The scheduler in virtual time: the tool for judging a change of policy.

use clap::builder::PossibleValuesParser;
use sim::{Report, SCENARIOS, Scenario};

/// Plays every scenario.
const ALL: &str = "all";

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Which scenario; `all` plays every one.
    #[arg(value_parser = PossibleValuesParser::new(SCENARIOS.iter().map(|scenario| scenario.name).chain([ALL])))]
    scenario: String,
    /// Equal seeds give equal tasks, whatever the policy.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Tasks to submit, instead of the scenario's own number.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    tasks: Option<u32>,
    /// Print the reports as JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let reports = chosen(&args.scenario).map(|scenario| play(scenario, args)).collect::<anyhow::Result<Vec<_>>>()?;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&reports)?);
    }
    Ok(())
}

fn chosen(name: &str) -> impl Iterator<Item = &'static Scenario> {
    SCENARIOS.iter().filter(move |scenario| name == ALL || scenario.name == name)
}

/// Text is printed as soon as it is known: a scenario takes seconds.
fn play(scenario: &'static Scenario, args: &Args) -> anyhow::Result<Report> {
    let tasks = args.tasks.map_or(scenario.tasks, |tasks| tasks as usize);
    let report = sim::run(scenario, args.seed, tasks)?;
    if !args.json {
        println!("{report}");
    }
    Ok(report)
}
