//! The rules between values (LO-CFG-20). Every broken one is reported.

mod pools;
mod worker;

use std::net::Ipv6Addr;
use std::num::NonZeroU32;
use std::path::Path;

use crate::load::Findings;
use crate::{AdmissionPolicy, Config, Outbound, OutboundMode, Server, Sessions, Stream, Swap};

pub(crate) fn validate(config: &Config, has_token: bool, findings: &mut Findings) {
    server(&config.server, has_token, findings);
    stream(&config.stream, findings);
    admission(&config.admission, findings);
    sessions(&config.sessions, findings);
    outbound(&config.policy.outbound, findings);
    if config.swap.age_limit_ms == 0 {
        findings.problem("swap.age_limit_ms", "must be at least 1");
    }
    if config.swap.kv_cache_mb > Swap::KV_CACHE_MB_MAX {
        let most = Swap::KV_CACHE_MB_MAX;
        findings.problem("swap.kv_cache_mb", format!("at most {most}; it is in MiB, and 0 keeps nothing"));
    }
    worker::validate(config, has_token, findings);
    pools::validate(config, findings);
}

/// The rules of pools that come from another host's file.
pub(crate) fn validate_pools(config: &Config, findings: &mut Findings) {
    pools::validate(config, findings);
}

fn server(server: &Server, has_token: bool, findings: &mut Findings) {
    if let Err(refused) = auth_min::check_bind(server.bind, has_token) {
        findings.problem("server.bind", refused);
    }
    match (&server.tls_cert, &server.tls_key) {
        (Some(_), None) => findings.problem("server.tls_key", "`tls_cert` is set, so this must name its private key"),
        (None, Some(_)) => findings.problem("server.tls_cert", "`tls_key` is set, so this must name its certificate"),
        _ => {}
    }
    let range = Server::PEER_TIMEOUT_MS;
    if !range.contains(&server.peer_timeout_ms) {
        findings.problem("server.peer_timeout_ms", format!("expected {} to {}", range.start(), range.end()));
    }
    if server.max_connections_per_address > Some(server.max_connections) {
        findings
            .problem("server.max_connections_per_address", "is more than `max_connections`; lower it, or leave it out");
    }
    for (i, origin) in server.cors_origins.iter().enumerate() {
        if !is_origin(origin) {
            findings.problem(
                format!("server.cors_origins[{i}]"),
                "expected a web origin without a path, such as `https://ui.example.org`",
            );
        }
    }
    if server.data_dir == Path::new("") {
        findings.problem("server.data_dir", "expected a directory");
    }
    if server.trust_proxy_auth && server.auth_optional == Some(true) {
        findings.warning(
            "server.auth_optional",
            "has no effect with trust_proxy_auth: behind a proxy all callers are local",
        );
    }
}

/// `scheme://host` or `scheme://host:port`.
fn is_origin(text: &str) -> bool {
    let host = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    host.is_some_and(|host| !host.is_empty() && !host.contains(['/', '?', '#', '@', '*', ' ']))
}

fn stream(stream: &Stream, findings: &mut Findings) {
    if stream.microbatch_ms > Stream::MICROBATCH_MAX_MS {
        findings.problem("stream.microbatch_ms", format!("at most {}, or tokens stall", Stream::MICROBATCH_MAX_MS));
    }
    if stream.max_bytes < Stream::MAX_BYTES_MIN {
        findings.problem("stream.max_bytes", format!("at least {}, or no client could resume", Stream::MAX_BYTES_MIN));
    }
}

fn admission(admission: &AdmissionPolicy, findings: &mut Findings) {
    let (rate, burst) = (admission.token_rate_limit_rps, admission.token_rate_limit_burst);
    throttle("admission.token_rate_limit", rate, burst, findings);
}

/// A rate and its burst: the keys `<path>_rps` and `<path>_burst`.
fn throttle(path: &str, rate: Option<f64>, burst: Option<NonZeroU32>, findings: &mut Findings) {
    if rate.is_some_and(|rate| !is_positive(rate)) {
        findings.problem(format!("{path}_rps"), "must be greater than 0; leave it out for no limit");
    }
    if rate.is_none() && burst.is_some() {
        findings.problem(format!("{path}_burst"), "limits nothing by itself; give the rate too, or leave both out");
    }
}

fn sessions(sessions: &Sessions, findings: &mut Findings) {
    let budgets = [
        ("tokens_budget", sessions.tokens_budget.is_some_and(|tokens| tokens == 0)),
        ("time_budget_ms", sessions.time_budget_ms.is_some_and(|time| time == 0)),
        ("cost_budget", sessions.cost_budget.is_some_and(|cost| !is_positive(cost))),
    ];
    for (key, _) in budgets.into_iter().filter(|(_, unusable)| *unusable) {
        findings.problem(format!("sessions.{key}"), "must be greater than 0; leave it out for no limit");
    }
    let price = sessions.cost_per_1k_tokens;
    if price.is_some_and(|price| !price.is_finite() || price < 0.0) {
        findings.problem("sessions.cost_per_1k_tokens", "must not be negative");
    } else if sessions.cost_budget.is_some() && !price.is_some_and(is_positive) {
        let what = "must be greater than 0 when `cost_budget` is set, or nothing is ever charged to it";
        findings.problem("sessions.cost_per_1k_tokens", what);
    }
}

fn is_positive(number: f64) -> bool {
    number.is_finite() && number > 0.0
}

fn outbound(outbound: &Outbound, findings: &mut Findings) {
    let path = "policy.outbound.allow";
    match (outbound.mode, outbound.allow.is_empty()) {
        (OutboundMode::Allowlist, true) => findings.warning(path, "is empty, so nothing may be reached"),
        (OutboundMode::Deny, false) => findings.warning(path, "has no effect with mode `deny`"),
        _ => {}
    }
    for (i, host) in outbound.allow.iter().enumerate() {
        if host.is_empty() || host.contains(['/', ' ', '@']) {
            findings.problem(format!("{path}[{i}]"), "expected a host name, without scheme and path");
        } else if host.contains(':') && host.trim_matches(['[', ']']).parse::<Ipv6Addr>().is_err() {
            findings.problem(format!("{path}[{i}]"), "expected a host name, without port");
        } else if host.trim_start_matches("*.").contains('*') {
            findings.problem(format!("{path}[{i}]"), "`*` stands at the beginning only, as in `*.example.org`");
        }
    }
}
