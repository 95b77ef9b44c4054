//! `workers`: other hosts that run pools of the server.

use api_types::{WorkerList, WorkerState};
use openapi_client::Client;

use crate::exit::Exit;
use crate::failure::Failure;
use crate::output;
use crate::show::{Table, bytes, or_dash};

/// Every worker that the server's configuration names.
pub(crate) async fn list(client: &Client, json: bool) -> Result<Exit, Failure> {
    let list = client.list_workers().await?;
    if json {
        output::json(&list)?;
    } else {
        output::write(&table(&list))?;
    }
    Ok(Exit::Ok)
}

/// Workers as a table; under it what is to be said of each.
fn table(list: &WorkerList) -> String {
    let mut table = Table::new(&["WORKER", "STATE", "HEARD", "RELAY", "VERSION", "DEVICES", "POOLS"]);
    for worker in &list.workers {
        let devices: Vec<_> = worker
            .devices
            .iter()
            .map(|device| match device.error {
                None => format!("{}: {} {}", device.index, device.name, bytes(device.vram_total_bytes)),
                Some(_) => format!("{}: lost", device.index),
            })
            .collect();
        let pools: Vec<_> = worker.pools.iter().map(ToString::to_string).collect();
        table.row([
            worker.id.to_string(),
            match worker.state {
                WorkerState::Unknown => "never seen".to_owned(),
                state => state.to_string(),
            },
            or_dash(worker.heard_ms_ago.map(|ms| format!("{ms} ms ago"))),
            or_dash(worker.relay.as_ref()),
            or_dash(worker.version.as_ref()),
            or_dash((!devices.is_empty()).then(|| devices.join(", "))),
            pools.join(","),
        ]);
    }
    let nobody = "all pools run on the server's own host; a pool with `worker = \"NAME\"` runs on another";
    let mut text = table.render(nobody);
    for worker in &list.workers {
        if let Some(complaint) = &worker.complaint {
            text.push_str(&format!("{}: {complaint}\n", worker.id));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use api_types::{PoolId, WorkerId, WorkerList, WorkerState, WorkerStatus};

    use super::table;

    /// LO-HST-07: a worker that is not there is told with what to do.
    #[test]
    fn who_is_away_is_told() {
        let status = WorkerStatus {
            id: WorkerId::from("box2"),
            state: WorkerState::Away,
            relay: Some("10.0.0.2:8085".to_owned()),
            version: Some("0.1.0".to_owned()),
            heard_ms_ago: Some(7000),
            complaint: Some("worker box2 has not been heard from for 7 s".to_owned()),
            pools: vec![PoolId::from("far")],
            devices: Vec::new(),
        };
        let text = table(&WorkerList { workers: vec![status] });
        for part in ["away", "7000 ms ago", "10.0.0.2:8085", "far", "box2: worker box2 has not been heard from"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(table(&WorkerList { workers: Vec::new() }).contains("worker = "));
    }
}
