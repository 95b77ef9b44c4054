//! `engines`: what was prepared on the server, and what preparing takes.

use api_types::{EngineList, EnginePlan};
use openapi_client::Client;

use crate::args::EnginesCommand;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output;
use crate::show::{Table, or_dash, since};

/// Carries out one of the commands.
pub(crate) async fn engines(client: &Client, command: EnginesCommand, json: bool) -> Result<Exit, Failure> {
    match command {
        EnginesCommand::List => {
            let list = client.list_engines().await?;
            if json { output::json(&list)? } else { output::write(&table(&list))? }
        }
        EnginesCommand::Plan { pool } => {
            let plan = client.get_pool_plan(&pool).await?;
            if json { output::json(&plan)? } else { output::write(&steps(&plan))? }
        }
        EnginesCommand::Rm { id } => client.delete_engine(&id).await?,
    }
    Ok(Exit::Ok)
}

fn table(list: &EngineList) -> String {
    let mut table = Table::new(&["ENGINE", "KIND", "VERSION", "MADE FROM", "AGE", "USED BY", "PLACE"]);
    for engine in &list.engines {
        let users = (!engine.used_by.is_empty()).then(|| engine.used_by.join(","));
        table.row([
            engine.id.clone(),
            engine.engine.to_string(),
            engine.version.clone(),
            or_dash(engine.build_ref.as_ref()),
            since(engine.created_ms),
            or_dash(users),
            or_dash(engine.artifacts.first()),
        ]);
    }
    table.render("no engine was prepared here yet; a pool that is managed prepares its own when it starts")
}

fn steps(plan: &EnginePlan) -> String {
    let mut table = Table::new(&["STEP", "WHAT"]);
    for step in &plan.steps {
        table.row([step.kind.clone(), step.detail.clone()]);
    }
    table.render("nothing has to be done")
}
