//! The address that the daemon listens on: free, or a daemon's already.

use std::net::TcpListener;

use api_types::{DoctorCheck, DoctorOutcome, PoolFault};
use config_schema::Config;
use pool_managerd::doctor::{failed, passed};
use pool_managerd::failure::Failure;

use crate::commands::local::Answer;

const NAME: &str = "server";

pub(super) fn check(config: &Config, answer: &Answer) -> DoctorCheck {
    let bind = config.server.bind;
    match answer {
        Answer::Orchestrator(client, pools) => {
            let ready = pools.iter().filter(|pool| pool.health.ready).count();
            passed(
                NAME,
                None,
                format!("orchestratord runs at {}, {ready} of {} pools are ready", client.server(), pools.len()),
            )
        }
        Answer::Locked(error) => DoctorCheck {
            outcome: DoctorOutcome::Warn,
            fix: Some("set AUTH_TOKEN to the token of the server".to_owned()),
            ..passed(NAME, None, format!("an orchestratord runs at {bind} and does not take the token: {error}"))
        },
        Answer::Stranger(error) => taken(config, &error.to_string()),
        Answer::Nobody => match TcpListener::bind(bind) {
            Ok(_) if bind.port() == 0 => passed(NAME, None, format!("{bind} takes any free port")),
            Ok(_) => passed(NAME, None, format!("{bind} is free")),
            Err(error) => taken(config, &error.to_string()),
        },
    }
}

fn taken(config: &Config, why: &str) -> DoctorCheck {
    let bind = config.server.bind;
    let fix = format!(
        "see who listens there: ss -ltnp 'sport = :{}'; or choose another address with server.bind",
        bind.port()
    );
    failed(
        NAME,
        None,
        &Failure::new(PoolFault::PortTaken, format!("{bind} cannot be listened on: {why}")).with_fix(fix),
    )
}
