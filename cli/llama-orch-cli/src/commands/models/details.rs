//! How models of the catalog look.

use api_types::{CatalogRecord, ModelFacts, ModelJob, ModelJobState, Verification};

use crate::args::lifecycle;
use crate::show::{Table, approximate, bytes, facts, or_dash, since};

use super::progress;

/// Models as a table.
pub(super) fn table(models: &[CatalogRecord], nothing: &str) -> String {
    let mut table = Table::new(&["MODEL", "STATE", "HERE", "SIZE", "QUANT", "VERIFIED", "DIGEST", "TAGS"]);
    for record in models {
        table.row([
            record.model.id.clone(),
            lifecycle(record.state).to_owned(),
            presence(record),
            or_dash(record.size_bytes.map(bytes)),
            or_dash(record.facts.as_ref().and_then(|facts| facts.quant.as_ref())),
            or_dash(record.verification.as_ref().map(|verification| verification.outcome)),
            short(&record.model.digest),
            or_dash((!record.model.tags.is_empty()).then(|| record.model.tags.join(","))),
        ]);
    }
    table.render(nothing)
}

/// Whether its files are there, or how far they are.
fn presence(record: &CatalogRecord) -> String {
    match &record.job {
        Some(job) if is_under_way(job) => {
            let share = progress::share_done(job).map(|share| format!(" {:.0} %", share * 100.0));
            format!("{}{}", job.kind, share.unwrap_or_default())
        }
        _ if record.local_path.is_some() => "yes".to_owned(),
        _ => "no".to_owned(),
    }
}

fn is_under_way(job: &ModelJob) -> bool {
    matches!(job.state, ModelJobState::Waiting | ModelJobState::Running)
}

/// `sha256:9f86d081884c`: enough to tell digests apart.
fn short(digest: &str) -> String {
    match digest.split_once(':') {
        Some((algorithm, hex)) => format!("{algorithm}:{}", hex.chars().take(12).collect::<String>()),
        None => digest.to_owned(),
    }
}

/// All that is known of one model.
pub(super) fn facts_of(record: &CatalogRecord) -> String {
    let model = &record.model;
    let mut pairs = vec![("model", model.id.clone()), ("state", state(record)), ("digest", model.digest.clone())];
    pairs.push(("path", record.local_path.clone().unwrap_or_else(|| "not on the server".to_owned())));
    let mut add = |name, value: Option<String>| pairs.extend(value.map(|value| (name, value)));
    add("size", record.size_bytes.map(bytes));
    add("files", (model.manifests.len() > 1).then(|| model.manifests.len().to_string()));
    add("source", model.source_url.clone());
    add("tags", (!model.tags.is_empty()).then(|| model.tags.join(", ")));
    add("registered", Some(format!("{} ago", since(record.created_ms))));
    add("files verified", record.last_verified_ms.map(|moment| format!("{} ago", since(moment))));
    add("verification", record.verification.as_ref().map(verification));
    add("trust", model.trust_policy.as_ref().map(|policy| policy.mode.to_string()));
    for signature in &model.signatures {
        let checked = if signature.verified { "valid" } else { "not checked" };
        add("signature", Some(format!("by {}, {}, {checked}", signature.signer, signature.algo)));
    }
    add("bill of materials", model.sbom.as_ref().map(|sbom| format!("{} ({})", sbom.uri, short(&sbom.digest))));
    if let Some(known) = &record.facts {
        pairs.extend(header(known));
    }
    if let Some(job) = &record.job {
        pairs.push(("last job", progress::sentence(job)));
    }
    facts(&pairs)
}

fn state(record: &CatalogRecord) -> String {
    match record.retire_at_ms {
        Some(moment) => {
            let left = crate::show::until(moment);
            format!("{}; pools that serve it stop in {left}", lifecycle(record.state))
        }
        None => lifecycle(record.state).to_owned(),
    }
}

/// What a verification found.
pub(super) fn verification(verification: &Verification) -> String {
    match verification.findings.is_empty() {
        true => verification.outcome.to_string(),
        false => format!("{}: {}", verification.outcome, verification.findings.join("; ")),
    }
}

/// What a model's header says, as far as it says it.
fn header(known: &ModelFacts) -> Vec<(&'static str, String)> {
    let number = |value: Option<i64>| value.map(|value| value.to_string());
    let all = [
        ("name", known.name.clone()),
        ("format", Some(known.format.clone())),
        ("architecture", known.architecture.clone()),
        ("quantisation", known.quant.clone()),
        ("parameters", known.parameters.map(count)),
        ("trained context", known.ctx_max.map(|tokens| format!("{tokens} tokens"))),
        ("layers", number(known.layers)),
        ("heads", number(known.heads)),
        ("KV heads", number(known.kv_heads)),
        ("vocabulary", number(known.vocabulary)),
        ("tokenizer", known.tokenizer.clone()),
        ("chat template", Some(if known.chat_template { "yes" } else { "no" }.to_owned())),
        ("weights", known.weights_bytes.map(bytes)),
        ("KV per token", known.kv_bytes_per_token.map(bytes)),
    ];
    all.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
}

/// `7.2 B`, as model sizes are told.
pub(super) fn count(parameters: i64) -> String {
    match parameters {
        1_000_000_000.. => format!("{:.1} B", approximate(parameters) / 1e9),
        1_000_000.. => format!("{:.0} M", approximate(parameters) / 1e6),
        _ => parameters.to_string(),
    }
}
