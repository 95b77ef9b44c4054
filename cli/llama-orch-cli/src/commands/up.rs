//! `up`: from nothing to a first answer, and nothing that is there already is done again.

mod follow;
pub(super) mod starter;

use std::time::Duration;

use api_types::{DoctorOutcome, DoctorReport, PoolStatus};
use config_schema::{Config, Loaded, Origin};
use openapi_client::Client;

use self::follow::{Found, Settled};
use super::local::background::{Background, Files};
use super::local::{self, Answer};
use super::pools::failure_of;
use super::{doctor, run};
use crate::args::{Connection, UpArgs};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::interrupts::Interrupts;

/// How long a daemon that serves nothing may take to end.
const STOP_PATIENCE: Duration = Duration::from_secs(60);
/// What the other commands take for the server's address when nobody names one.
const USUAL_SERVER: &str = "http://127.0.0.1:8080";

/// Does what is left to do.
pub(crate) async fn up(connection: &Connection, args: UpArgs, json: bool) -> Result<Exit, Failure> {
    let loaded = configuration(&args)?;
    let mut interrupts = Interrupts::listen()?;
    let (client, found, started) = tokio::select! {
        biased;
        () = interrupts.next() => return Ok(Exit::Canceled),
        daemon = daemon(&loaded, connection) => daemon?,
    };
    let settled = tokio::select! {
        biased;
        () = interrupts.next() => {
            eprintln!("llama-orch: left; orchestratord goes on, see `llama-orch pools`; `llama-orch down` stops it");
            return Ok(Exit::Canceled);
        }
        settled = follow::settle(&client, &loaded.config, found, json) => settled?,
    };
    drop(interrupts);
    if settled.serves_nothing() {
        if let Some(background) = started {
            background.stop(STOP_PATIENCE).await?;
            eprintln!("llama-orch: orchestratord was stopped again, since no pool can serve");
        }
        return Err(told_all(&settled.failed).unwrap_or_else(|| Failure::local("no pool serves")));
    }
    let exit = first_answer(&client, &settled, &args, json).await?;
    match told_all(&settled.failed) {
        Some(failure) => Err(failure),
        None => {
            what_next(&client, &settled);
            Ok(exit)
        }
    }
}

/// The configuration, or the one that is written for a first model.
fn configuration(args: &UpArgs) -> Result<Loaded, Failure> {
    let loaded = local::load(&args.config)?;
    match (&args.model, &loaded.origin) {
        (Some(model), Origin::Defaults) => {
            let path = starter::write(&loaded.config, model)?;
            eprintln!("llama-orch: wrote {}, which is yours to change", path.display());
            local::load(&args.config)
        }
        (Some(_), origin) => Err(Failure::usage(
            format!("there is a configuration already: {origin}"),
            "leave --model away, or change the file's pool; `llama-orch pools reload` changes a model for now",
        )),
        (None, _) if loaded.config.pools.is_empty() => Err(Failure::usage(
            format!("{}: there are no pools", loaded.origin),
            "let one be written: llama-orch up --model hf:org/repo/file.gguf; `llama-orch doctor` shows what it looks like",
        )),
        (None, _) => Ok(loaded),
    }
}

/// The daemon that runs, else one that is started when this machine is fit for it.
async fn daemon(loaded: &Loaded, connection: &Connection) -> Result<(Client, Found, Option<Background>), Failure> {
    let answer = local::ask(loaded, connection).await?;
    match answer {
        Answer::Orchestrator(client, pools) => {
            same_pools(&loaded.config, &pools, &client)?;
            eprintln!("llama-orch: orchestratord runs already at {}", client.server());
            return Ok((client, Found::Running, None));
        }
        Answer::Locked(error) => return Err(error.into()),
        Answer::Stranger(_) | Answer::Nobody => {}
    }
    let report = doctor::examine(loaded, &answer).await;
    eprint!("{}", doctor::problems(&report));
    if !lets_some_pool_start(&loaded.config, &report) {
        let count = match doctor::failures(&report) {
            1 => "1 thing is".to_owned(),
            count => format!("{count} things are"),
        };
        let what = format!("{count} in the way of every pool; nothing was started");
        return Err(Failure::new(Exit::Unfit, what, "mend what is marked with ✗, then `llama-orch up` again"));
    }
    eprintln!("llama-orch: {} checks passed", passed(&report));
    let (background, address) = Background::start(loaded).await?;
    let client = local::client(loaded, connection, address)?;
    let log = Files::of(&loaded.config).log;
    let pid = background.pid;
    eprintln!("llama-orch: started orchestratord at {}, process {pid}, log {}", client.server(), log.display());
    Ok((client, Found::Started, Some(background)))
}

fn passed(report: &DoctorReport) -> usize {
    report.checks.iter().filter(|check| check.outcome == DoctorOutcome::Pass).count()
}

/// Whether the daemon can start, and at least one pool with it.
fn lets_some_pool_start(config: &Config, report: &DoctorReport) -> bool {
    let failed: Vec<_> = report.checks.iter().filter(|check| check.outcome == DoctorOutcome::Fail).collect();
    // Without a GPU the pools that need one say so themselves; others may do without.
    let for_all = failed.iter().any(|check| check.pool_id.is_none() && !matches!(&*check.name, "driver" | "hardware"));
    let can = |id: &str| failed.iter().all(|check| check.pool_id.as_deref() != Some(id));
    !for_all && config.pools.iter().any(|pool| can(&pool.id.to_string()))
}

/// Whether the daemon that runs is the configuration's.
fn same_pools(config: &Config, pools: &[PoolStatus], client: &Client) -> Result<(), Failure> {
    let runs = |id: &str| pools.iter().any(|pool| pool.id == id);
    let missing: Vec<_> = config.pools.iter().map(|pool| pool.id.to_string()).filter(|id| !runs(id)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let what = format!(
        "the orchestratord at {} runs by another configuration: it has no pool {}",
        client.server(),
        missing.join(", ")
    );
    Err(Failure::new(
        Exit::Refused,
        what,
        "stop it with `llama-orch down`, or set another server.bind and server.data_dir",
    ))
}

/// Tells of every pool that failed; the last one told is the command's failure.
fn told_all(failed: &[PoolStatus]) -> Option<Failure> {
    let (last, others) = failed.split_last()?;
    others.iter().for_each(|pool| failure_of(pool).report());
    Some(failure_of(last))
}

async fn first_answer(client: &Client, settled: &Settled, args: &UpArgs, json: bool) -> Result<Exit, Failure> {
    let Some(pool) = settled.ready.first() else {
        eprintln!("llama-orch: every pool is loaded when it is asked for, so there is no first answer");
        return Ok(Exit::Ok);
    };
    let prompt = args.prompt.clone();
    eprintln!("llama-orch: {}: {}", pool.id, prompt.trim());
    run::on_pool(client, &pool.id, prompt, args.max_tokens, json).await
}

fn what_next(client: &Client, settled: &Settled) {
    let server = client.server().to_string();
    if server != USUAL_SERVER {
        eprintln!("llama-orch: for the other commands: export LLAMA_ORCH_SERVER={server}");
    }
    let pool = settled.ready.first().map_or("POOL", |pool| pool.id.as_str());
    eprintln!(
        "llama-orch: next: `llama-orch run \"…\"` asks, `llama-orch logs {pool} -f` shows the engine, `llama-orch down` stops"
    );
}
