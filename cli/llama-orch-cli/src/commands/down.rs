//! `down`: ends the orchestratord that `up` has started.

use std::time::Duration;

use config_schema::Config;

use super::local::background::Background;
use super::local::{self, Answer};
use crate::args::{ConfigArgs, Connection};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output;

/// What a daemon may take beside what its configuration allows its tasks and engines.
const SLACK: Duration = Duration::from_secs(30);

/// Asks it to end and waits until it has.
pub(crate) async fn down(connection: &Connection, args: &ConfigArgs) -> Result<Exit, Failure> {
    let loaded = local::load(args)?;
    let config = &loaded.config;
    let answer = local::ask(&loaded, connection).await?;
    let Some(background) = Background::find(config) else {
        return match answer {
            Answer::Orchestrator(client, _) => {
                let what = format!("the orchestratord at {} was not started by `llama-orch up`", client.server());
                Err(Failure::new(
                    Exit::Refused,
                    what,
                    "stop it where it was started: Ctrl-C there, or its service manager",
                ))
            }
            _ => {
                output::write(&format!("nothing runs that `llama-orch up` started with {}\n", loaded.origin))?;
                Ok(Exit::Ok)
            }
        };
    };
    let engines: Vec<String> = match answer {
        Answer::Orchestrator(_, pools) => {
            pools.iter().filter_map(|pool| Some(format!("{} (process {})", pool.id, pool.health.pid?))).collect()
        }
        _ => Vec::new(),
    };
    let pid = background.pid;
    let patience = patience(config);
    if !background.stop(patience).await? {
        let what = format!("orchestratord (process {pid}) has not ended within {} s", patience.as_secs());
        return Err(Failure::new(Exit::TryLater, what, format!("see its log; end it the hard way: kill -9 {pid}")));
    }
    let with =
        if engines.is_empty() { String::new() } else { format!(", and with it the engines of {}", engines.join(", ")) };
    output::write(&format!("orchestratord (process {pid}) has ended{with}\n"))?;
    Ok(Exit::Ok)
}

/// Running tasks have their grace, then engines theirs.
fn patience(config: &Config) -> Duration {
    let graces = config.pools.iter().map(|pool| pool.supervision.stop_grace());
    config.server.shutdown_grace() + graces.max().unwrap_or_default() + SLACK
}
