//! `devices`: the server's GPUs, and who is on them.

use api_types::{DeviceList, DeviceStatus};
use openapi_client::Client;

use crate::exit::Exit;
use crate::failure::Failure;
use crate::output;
use crate::show::{Table, bytes, or_dash};

/// Lists them. That there are none is an answer, with the reason.
pub(crate) async fn list(client: &Client, json: bool) -> Result<Exit, Failure> {
    let list = client.list_devices().await?;
    if json {
        output::json(&list)?;
    } else {
        output::write(&text(&list))?;
    }
    Ok(Exit::Ok)
}

fn text(list: &DeviceList) -> String {
    if let Some(error) = &list.error {
        let fix = list.fix.as_ref().map(|fix| format!("  fix: {fix}\n")).unwrap_or_default();
        return format!("{error}\n{fix}");
    }
    let mut text = list.driver.as_ref().map(|driver| format!("driver {driver}\n")).unwrap_or_default();
    text.push_str(&gpus(&list.devices));
    let processes = processes(&list.devices);
    if !processes.is_empty() {
        text.push_str(&format!("\n{processes}"));
    }
    for device in &list.devices {
        if let Some(error) = &device.error {
            text.push_str(&format!("GPU {}: {error}\n", device.index));
        }
    }
    text
}

fn gpus(devices: &[DeviceStatus]) -> String {
    let mut table =
        Table::new(&["GPU", "NAME", "COMPUTE", "LOAD", "MEMORY FREE", "TEMPERATURE", "POWER", "ECC", "POOLS", "UUID"]);
    for device in devices {
        let pools = (!device.pools.is_empty()).then(|| device.pools.join(","));
        table.row([
            device.index.to_string(),
            device.name.clone(),
            device.compute_capability.clone(),
            or_dash(device.utilization_percent.map(|load| format!("{load:.0} %"))),
            format!("{}/{}", bytes(device.vram_free_bytes), bytes(device.vram_total_bytes)),
            or_dash(device.temperature_c.map(|celsius| format!("{celsius:.0} °C"))),
            or_dash(device.power_w.map(|watts| format!("{watts:.0} W"))),
            or_dash(device.ecc_uncorrected),
            or_dash(pools),
            device.uuid.clone(),
        ]);
        for instance in &device.mig {
            let mut row = vec![String::new(), "  MIG instance".to_owned()];
            row.extend(["", ""].map(str::to_owned));
            row.push(format!("{}/{}", bytes(instance.vram_free_bytes), bytes(instance.vram_total_bytes)));
            row.extend(["", "", "", ""].map(str::to_owned));
            row.push(instance.uuid.clone());
            table.row(row);
        }
    }
    table.render("no GPUs")
}

/// Who holds memory; nothing when nobody does.
fn processes(devices: &[DeviceStatus]) -> String {
    let mut table = Table::new(&["GPU", "PROCESS", "MEMORY", "POOL"]);
    for device in devices {
        for process in &device.processes {
            table.row([
                device.index.to_string(),
                process.pid.to_string(),
                or_dash(process.vram_bytes.map(bytes)),
                process.pool_id.clone().unwrap_or_else(|| "another program".to_owned()),
            ]);
        }
    }
    table.render("").trim_start().to_owned()
}
