//! Environment variables and flags, laid over the file (LO-CFG-10, LO-SSE-30).

use std::net::SocketAddr;
use std::str::FromStr;

use super::{Findings, Overrides};
use crate::checked::{ADDR_FORM, parse_addr};
use crate::{Config, Environment};

/// Window for `ORCHD_SSE_MICROBATCH=true`, in milliseconds: too short to be seen, long enough for two or three tokens.
const MICROBATCH_ON_MS: u64 = 20;

pub(super) fn environment(config: &mut Config, environment: &dyn Environment, findings: &mut Findings) {
    let mut read = Reader { environment, findings };
    if let Some(bind) = read.bind() {
        config.server.bind = bind;
    }
    if let Some(optional) = read.flag("AUTH_OPTIONAL") {
        config.server.auth_optional = Some(optional);
    }
    if let Some(library) = read.environment.var("LLAMA_ORCH_NVML").filter(|path| !path.is_empty()) {
        config.engines.nvml_library = Some(library.into());
    }
    let (server, stream) = (&mut config.server, &mut config.stream);
    set(&mut server.trust_proxy_auth, read.flag("TRUST_PROXY_AUTH"));
    set(&mut stream.cancel_on_disconnect, read.flag("CANCEL_ON_DISCONNECT"));
    set(&mut stream.channel_cap, read.number("ORCHD_SSE_CHANNEL_CAP", "a whole number, at least 1"));
    set(&mut stream.microbatch_ms, read.microbatch());
    set(&mut stream.heartbeat_ms, read.number("ORCHD_SSE_HEARTBEAT_MS", MILLISECONDS));
    set(&mut stream.narration, read.flag("ORCHD_SSE_LOGS_ENABLED"));
    set(&mut stream.narration_period_ms, read.number("ORCHD_SSE_LOGS_PERIOD_MS", MILLISECONDS));
}

pub(super) fn flags(config: &mut Config, overrides: &Overrides) {
    set(&mut config.server.bind, overrides.bind);
    set(&mut config.server.data_dir, overrides.data_dir.clone());
    set(&mut config.log.format, overrides.log_format);
    set(&mut config.log.level, overrides.log_level.clone());
    if overrides.threads.is_some() {
        config.server.threads = overrides.threads;
    }
}

fn set<T>(target: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *target = value;
    }
}

const MILLISECONDS: &str = "a whole number of milliseconds, 0 for off";

/// Typed access to variables; what does not parse becomes a problem and counts as unset.
struct Reader<'a> {
    environment: &'a dyn Environment,
    findings: &'a mut Findings,
}

impl Reader<'_> {
    fn typed<T>(&mut self, name: &str, expected: &str, parse: impl Fn(&str) -> Option<T>) -> Option<T> {
        let text = self.environment.var(name)?;
        let value = parse(text.trim());
        if value.is_none() {
            self.findings.problem(name, format!("`{text}` is not {expected}"));
        }
        value
    }

    fn number<T: FromStr>(&mut self, name: &str, expected: &str) -> Option<T> {
        self.typed(name, expected, |text| text.parse().ok())
    }

    fn flag(&mut self, name: &str) -> Option<bool> {
        self.typed(name, "`true` or `false`", parse_flag)
    }

    fn microbatch(&mut self) -> Option<u64> {
        let parse = |text: &str| match text.parse() {
            Ok(ms) => Some(ms),
            Err(_) => parse_flag(text).map(|on| if on { MICROBATCH_ON_MS } else { 0 }),
        };
        self.typed("ORCHD_SSE_MICROBATCH", "a whole number of milliseconds, `true` or `false`", parse)
    }

    /// `ORCHD_ADDR`, or its alias `BIND_ADDR` (C4).
    fn bind(&mut self) -> Option<SocketAddr> {
        let [main, alias] = ["ORCHD_ADDR", "BIND_ADDR"].map(|name| self.typed(name, ADDR_FORM, parse_addr));
        if let (Some(main), Some(alias)) = (main, alias)
            && main != alias
        {
            self.findings.warning("BIND_ADDR", format!("{alias} is ignored: ORCHD_ADDR says {main}"));
        }
        main.or(alias)
    }
}

fn parse_flag(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "true" | "yes" | "on" => Some(true),
        "0" | "false" | "no" | "off" => Some(false),
        _ => None,
    }
}
