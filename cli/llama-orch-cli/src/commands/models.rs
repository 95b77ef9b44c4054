//! `models`: the catalog, fetching, verifying and whether a model fits.

mod add;
mod details;
mod fit;
mod job;
mod progress;

use std::io::IsTerminal as _;
use std::time::Duration;

use api_types::{
    Accepted, CatalogList, CatalogQuery, CatalogStateChange, GcReport, GcRequest, ModelId, ModelLifecycle, PullRequest,
};
use openapi_client::Client;

use super::pages;
use crate::args::{ListModelsArgs, ModelsCommand, lifecycle};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output;
use crate::show::{Table, bytes};
use job::Work;

/// Carries out one of the commands.
pub(crate) async fn models(client: &Client, command: ModelsCommand, json: bool) -> Result<Exit, Failure> {
    match command {
        ModelsCommand::List(args) => list(client, args, json).await,
        ModelsCommand::Show { model } => show(client, &model, json).await,
        ModelsCommand::Add(args) => add::add(client, *args, json).await,
        ModelsCommand::Pull(args) => {
            let work = Work::Pull(PullRequest { digest: args.digest });
            job::run(client, &args.model, &work, args.detach, json).await
        }
        ModelsCommand::Verify { model, detach } => job::run(client, &model, &Work::Verify, detach, json).await,
        ModelsCommand::Retire { model, deadline } => {
            set_state(client, &model, ModelLifecycle::Retired, deadline, json).await
        }
        ModelsCommand::Activate { model } => set_state(client, &model, ModelLifecycle::Active, None, json).await,
        ModelsCommand::Rm { model, yes } => remove(client, &model, yes).await,
        ModelsCommand::Gc { dry_run } => collect(client, dry_run, json).await,
        ModelsCommand::Fit(args) => fit::fit(client, &args, json).await,
    }
}

async fn list(client: &Client, args: ListModelsArgs, json: bool) -> Result<Exit, Failure> {
    let mut query = CatalogQuery { state: args.state, tag: args.tag, limit: None, cursor: None };
    let nothing = match query == CatalogQuery::default() {
        true => "no models yet; `llama-orch models pull REF` fetches one",
        false => "no model passes these filters",
    };
    let (models, next_cursor) = pages::gather(args.limit, async |limit, cursor| {
        (query.limit, query.cursor) = (Some(limit), cursor);
        let page = client.list_models(&query).await?;
        Ok((page.models, page.next_cursor))
    })
    .await?;
    if json {
        output::json(&CatalogList { models, next_cursor })?;
        return Ok(Exit::Ok);
    }
    output::write(&details::table(&models, nothing))?;
    pages::tell_of_more(next_cursor.as_ref());
    Ok(Exit::Ok)
}

async fn show(client: &Client, model: &ModelId, json: bool) -> Result<Exit, Failure> {
    let record = client.get_model(model).await?;
    if json {
        output::json(&record)?;
    } else {
        output::write(&details::facts_of(&record))?;
    }
    Ok(Exit::Ok)
}

async fn set_state(
    client: &Client,
    model: &ModelId,
    state: ModelLifecycle,
    deadline: Option<Duration>,
    json: bool,
) -> Result<Exit, Failure> {
    let deadline_ms = deadline.map(|time| i64::try_from(time.as_millis()).unwrap_or(i64::MAX));
    let answer = client.set_model_state(model, &CatalogStateChange { state, deadline_ms }).await?;
    if json {
        output::json(&answer)?;
        return Ok(Exit::Ok);
    }
    let word = lifecycle(state);
    output::write(&match answer.status {
        Accepted::Present => format!("{model} was {word} before\n"),
        Accepted::Started | Accepted::Accepted => format!("{model} is {word}\n"),
    })?;
    Ok(Exit::Ok)
}

async fn remove(client: &Client, model: &ModelId, yes: bool) -> Result<Exit, Failure> {
    if !yes {
        let record = client.get_model(model).await?;
        let files = match (record.size_bytes, record.local_path) {
            (_, None) => String::new(),
            (None, Some(path)) => format!(" and {path}, if that is in the models' folder"),
            (Some(size), Some(path)) => format!(" and {path} ({}), if that is in the models' folder", bytes(size)),
        };
        if !confirmed(&format!("remove {}{files}?", record.model.id))? {
            return Ok(Exit::Canceled);
        }
    }
    client.delete_model(model).await?;
    Ok(Exit::Ok)
}

/// Asks a person.
fn confirmed(question: &str) -> Result<bool, Failure> {
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        return Err(Failure::usage("nobody is there to be asked", "give --yes to remove it unasked"));
    }
    eprint!("llama-orch: {question} [y/N] ");
    let mut answer = String::new();
    stdin.read_line(&mut answer).map_err(|error| Failure::local(format!("cannot read the answer: {error}")))?;
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}

async fn collect(client: &Client, dry_run: bool, json: bool) -> Result<Exit, Failure> {
    let report = client.collect_models(&GcRequest { dry_run }).await?;
    if json {
        output::json(&report)?;
    } else {
        output::write(&collected(&report))?;
    }
    Ok(Exit::Ok)
}

fn collected(report: &GcReport) -> String {
    let mut table = Table::new(&["SIZE", "PATH"]);
    for item in &report.removed {
        table.row([bytes(item.bytes), item.path.clone()]);
    }
    let text = table.render("nothing to remove: the catalog names every file in the models' folder");
    match (report.removed.is_empty(), report.dry_run) {
        (true, _) => text,
        (false, true) => format!("{text}{} would go\n", bytes(report.bytes)),
        (false, false) => format!("{text}{} removed\n", bytes(report.bytes)),
    }
}
