//! `models fit`: what a model needs against what devices have.

use api_types::{FitQuery, FitReport};
use openapi_client::Client;
use serde::Serialize;

use super::details;
use crate::args::FitArgs;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output;
use crate::show::{Table, bytes, facts, or_dash};

/// The server's report, and what became of the sizes on the command line.
#[derive(Serialize)]
struct Answer {
    #[serde(flatten)]
    report: FitReport,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    given: Vec<Given>,
}

/// A size on the command line.
#[derive(Serialize)]
struct Given {
    vram_total_bytes: i64,
    fits: bool,
}

/// Asks the server what the model needs and shows who has it.
pub(super) async fn fit(client: &Client, args: &FitArgs, json: bool) -> Result<Exit, Failure> {
    let query = FitQuery { model_ref: args.model.to_string(), ctx: args.ctx, slots: args.slots };
    let report = client.fit_model(&query).await?;
    let given = args.vram.iter().map(|size| Given { vram_total_bytes: *size, fits: report.total_bytes <= *size });
    let answer = Answer { given: given.collect(), report };
    if json {
        output::json(&answer)?;
    } else {
        output::write(&answer.text())?;
    }
    Ok(Exit::Ok)
}

impl Answer {
    fn text(&self) -> String {
        let no_devices = match &self.report.no_devices {
            Some(reason) if self.report.devices.is_empty() => format!("no GPU of the server to judge: {reason}\n"),
            _ => String::new(),
        };
        format!("{}\n{}{no_devices}", self.needs(), self.devices())
    }

    fn needs(&self) -> String {
        let FitReport { facts: known, ctx, slots, .. } = &self.report;
        let kind = [known.architecture.clone(), known.quant.clone(), known.parameters.map(details::count)];
        let kind: Vec<String> = kind.into_iter().flatten().collect();
        let slots = if *slots == 1 { "1 slot".to_owned() } else { format!("{slots} slots") };
        let overhead = self.report.overhead_bytes;
        let mut lines = vec![
            ("model", self.report.model_id.clone()),
            ("kind", if kind.is_empty() { "-".to_owned() } else { kind.join(", ") }),
            ("context", format!("{ctx} tokens, {slots}")),
            ("weights", bytes(self.report.weights_bytes)),
            ("keys and values", bytes(self.report.kv_bytes)),
            ("compute buffers", format!("{}, estimated", bytes(self.report.compute_bytes))),
        ];
        // Servers of older versions do not say it.
        if overhead > 0 {
            lines.push(("CUDA itself", format!("{}, typically", bytes(overhead))));
        }
        lines.push(("total", bytes(self.report.total_bytes)));
        facts(&lines)
    }

    fn devices(&self) -> String {
        let yes_no = |fits: bool| if fits { "yes" } else { "no" }.to_owned();
        let mut table = Table::new(&["DEVICE", "MEMORY", "FREE", "FITS", "FITS NOW", "LARGEST CONTEXT"]);
        for device in &self.report.devices {
            table.row([
                format!("{} {}", device.index, device.name),
                bytes(device.vram_total_bytes),
                bytes(device.vram_free_bytes),
                yes_no(device.fits),
                yes_no(device.fits_now),
                or_dash(device.ctx_max),
            ]);
        }
        for given in &self.given {
            let dash = || "-".to_owned();
            let memory = bytes(given.vram_total_bytes);
            table.row(["--vram".to_owned(), memory, dash(), yes_no(given.fits), dash(), dash()]);
        }
        let nothing = self.report.devices.is_empty() && self.given.is_empty();
        if nothing { String::new() } else { table.render("") }
    }
}
