//! The rules of `[worker]`.

use crate::Config;
use crate::load::Findings;

/// What a name must look like that stands in URLs, metric labels and file names.
pub(super) const NAME_FORM: &str = "use letters, digits, `-`, `_` and `.`, such as `box2`";

pub(super) fn is_name(name: &str) -> bool {
    let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    !name.is_empty() && !name.starts_with('.') && name.bytes().all(fits)
}

pub(super) fn validate(config: &Config, has_token: bool, findings: &mut Findings) {
    let Some(worker) = &config.worker else { return };
    if !is_name(worker.id().as_str()) {
        findings.problem("worker.id", NAME_FORM);
    }
    if !has_token {
        let what = "an orchestrator takes no worker without its token; set AUTH_TOKEN or AUTH_TOKEN_FILE to the orchestrator's";
        findings.problem("worker", what);
    }
    if worker.advertise.as_deref().is_some_and(|host| !is_host(host)) {
        findings.problem("worker.advertise", "expected a host, or a host and a port, such as `box2.lan:8085`");
    }
    if !config.pools.is_empty() {
        let what = "a worker's pools stand in the orchestrator's file, each with `worker = \"…\"`; move them there";
        findings.problem("pools", what);
    }
}

/// `host`, `host:port`, `[v6]` or `[v6]:port`.
fn is_host(text: &str) -> bool {
    !text.is_empty() && !text.starts_with(':') && !text.contains(['/', '@', '?', '#', ' '])
}
