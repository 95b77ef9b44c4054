//! The rules of `[[pools]]`.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU16;

use api_types::{DeterminismLevel, Engine, Priority};

use crate::load::Findings;
use crate::{
    Activation, Config, Container, DeviceRef, EngineSource, External, MissingTable, Pool, ProvisioningMode, Supervision,
};

pub(super) fn validate(config: &Config, findings: &mut Findings) {
    let mut ids: BTreeMap<&str, usize> = BTreeMap::new();
    let mut ports: BTreeMap<NonZeroU16, &str> = BTreeMap::new();
    let mut workers_ports = BTreeSet::new();
    for (i, pool) in config.pools.iter().enumerate() {
        let at = At(i);
        if let Some(first) = ids.insert(pool.id.as_str(), i) {
            findings
                .problem(at.key("id"), format!("`{}` is already the id of pools[{first}]; choose another", pool.id));
        }
        for (p, port) in pool.provisioning.ports.iter().enumerate() {
            if let Some(worker) = &pool.worker {
                // Each host has its own ports.
                if !workers_ports.insert((worker, *port)) {
                    let what =
                        format!("port {port} is already used by another pool of worker `{worker}`; choose another");
                    findings.problem(at.key(&format!("provisioning.ports[{p}]")), what);
                }
            } else if let Some(owner) = ports.insert(*port, pool.id.as_str()) {
                let what = format!("port {port} is already used by pool `{owner}`; choose another");
                findings.problem(at.key(&format!("provisioning.ports[{p}]")), what);
            }
        }
        identity(pool, at, findings);
        host(pool, at, findings);
        devices(pool, at, findings);
        waiting(pool, at, findings);
        supervision(&pool.supervision, at, findings);
        engine(config, pool, at, findings);
        environment(pool, at, findings);
    }
}

/// The place of a pool in the file.
#[derive(Clone, Copy)]
struct At(usize);

impl At {
    fn key(self, key: &str) -> String {
        format!("pools[{}].{key}", self.0)
    }
}

fn identity(pool: &Pool, at: At, findings: &mut Findings) {
    let id = pool.id.as_str();
    // The id stands in URLs, metric labels and file names.
    if !super::worker::is_name(id) {
        findings.problem(at.key("id"), "use letters, digits, `-`, `_` and `.`, such as `gpu0`");
    }
    if pool.model.trim().is_empty() {
        findings.problem(at.key("model"), "must name a model");
    }
    if pool.slots.get() > 1 && pool.determinism() == DeterminismLevel::Strict {
        findings.problem(
            at.key("slots"),
            format!(
                "a strict pool runs one task at a time, not {}; set `slots = 1`, or `determinism = \"best_effort\"`",
                pool.slots
            ),
        );
    }
    if pool.engine == Engine::Mock {
        findings.warning(at.key("engine"), "`mock` makes up its answers; it is for tests and benchmarks");
    }
}

fn host(pool: &Pool, at: At, findings: &mut Findings) {
    let Some(worker) = &pool.worker else { return };
    if !super::worker::is_name(worker.as_str()) {
        findings.problem(at.key("worker"), super::worker::NAME_FORM);
    }
    if !pool.is_managed() {
        let what = "names who runs its engine, and mode `external` says that somebody else does; leave one of them out";
        findings.problem(at.key("worker"), what);
    }
}

fn devices(pool: &Pool, at: At, findings: &mut Findings) {
    let unique: BTreeSet<&DeviceRef> = pool.devices.iter().collect();
    if unique.len() < pool.devices.len() {
        findings.problem(at.key("devices"), "names a device twice");
    }
    if pool.is_managed() && pool.devices.is_empty() {
        let what = format!("mode `{}` starts an engine on GPUs of its host; name them, such as [0]", pool.mode());
        findings.problem(at.key("devices"), what);
    }
    let Some(split) = &pool.tensor_split else { return };
    if split.len() != pool.devices.len() {
        let what = format!("has {} ratios for {} devices; give one for each", split.len(), pool.devices.len());
        findings.problem(at.key("tensor_split"), what);
    }
    if split.iter().any(|ratio| !ratio.is_finite() || *ratio <= 0.0) {
        findings.problem(at.key("tensor_split"), "every ratio must be greater than 0");
    }
}

fn waiting(pool: &Pool, at: At, findings: &mut Findings) {
    let timeouts = &pool.timeouts;
    let calls = &pool.calls;
    for (key, ms) in [
        ("timeouts.wall_ms", timeouts.wall_ms),
        ("timeouts.idle_ms", timeouts.idle_ms),
        ("calls.breaker_window_ms", calls.breaker_window_ms),
        ("calls.breaker_cool_down_ms", calls.breaker_cool_down_ms),
    ] {
        if ms == 0 {
            findings.problem(at.key(key), "must be greater than 0");
        }
    }
    if timeouts.idle_ms > timeouts.wall_ms {
        let what = format!("must not exceed wall_ms, which is {}", timeouts.wall_ms);
        findings.problem(at.key("timeouts.idle_ms"), what);
    }
    let mut named = BTreeSet::new();
    for (i, limits) in pool.admission.priorities.iter().enumerate() {
        let key = |name: &str| at.key(&format!("admission.priorities[{i}].{name}"));
        if !named.insert(limits.name) {
            findings.problem(key("name"), format!("`{}` is named twice", limits.name));
        }
        if limits.queue_capacity.is_some_and(|capacity| capacity > pool.queue.capacity) {
            let what = format!("must not exceed queue.capacity, which is {}", pool.queue.capacity);
            findings.problem(key("queue_capacity"), what);
        }
        super::throttle(&key("rate_limit"), limits.rate_limit_rps, limits.rate_limit_burst, findings);
        let lacks_weight = |class: &&Priority| pool.admission.limits(**class).is_none_or(|it| it.weight.is_none());
        if let Some(class) = Priority::ALL.iter().find(lacks_weight).filter(|_| limits.weight.is_some()) {
            findings.problem(
                key("weight"),
                format!("is a share beside that of `{class}`, which has none; give both or neither"),
            );
        }
    }
}

fn supervision(supervision: &Supervision, at: At, findings: &mut Findings) {
    for (key, ms) in [
        ("start_timeout_ms", supervision.start_timeout_ms),
        ("probe_interval_ms", supervision.probe_interval_ms),
        ("probe_timeout_ms", supervision.probe_timeout_ms),
        ("restart_backoff_ms", supervision.restart_backoff_ms),
        ("restart_backoff_max_ms", supervision.restart_backoff_max_ms),
        ("circuit_window_ms", supervision.circuit_window_ms),
    ] {
        if ms == 0 {
            findings.problem(at.key(&format!("supervision.{key}")), "must be greater than 0");
        }
    }
    if supervision.probe_interval_ms > Supervision::PROBE_INTERVAL_MAX_MS {
        let what = format!("at most {}, or what is known of the engine is stale", Supervision::PROBE_INTERVAL_MAX_MS);
        findings.problem(at.key("supervision.probe_interval_ms"), what);
    }
    if supervision.restart_backoff_ms > supervision.restart_backoff_max_ms {
        let what = format!("must not exceed restart_backoff_max_ms, which is {}", supervision.restart_backoff_max_ms);
        findings.problem(at.key("supervision.restart_backoff_ms"), what);
    }
}

fn engine(config: &Config, pool: &Pool, at: At, findings: &mut Findings) {
    if pool.engine == Engine::Openai && pool.is_managed() {
        let what = "an `openai` engine is attached, never started; set `mode = \"external\"`";
        findings.problem(at.key("provisioning.mode"), what);
        return;
    }
    if !pool.is_managed() && pool.activation == Activation::OnDemand {
        findings.warning(at.key("activation"), "has no effect: an external engine is neither loaded nor unloaded here");
    }
    match pool.engine_source() {
        Err(MissingTable(mode)) => missing_table(mode, at, findings),
        Ok(EngineSource::Source(source)) if source.reference.is_empty() => {
            findings.problem(at.key("provisioning.source.ref"), "must name a tag, branch or commit");
        }
        Ok(EngineSource::External(external)) => replicas(external, at, findings),
        Ok(EngineSource::Container(container)) => image(container, at, findings),
        Ok(EngineSource::Package(package)) => {
            if package.name.is_empty() {
                findings.problem(at.key("provisioning.package.name"), "must name a package");
            }
            if pool.worker.is_none() && !config.allows_package_installs(pool) {
                not_allowed(pool.mode(), "allow_package_installs", at, findings);
            }
        }
        // What another host may fetch is for its own file to say.
        Ok(EngineSource::Binary(_)) if pool.worker.is_none() && !config.allows_binary_downloads(pool) => {
            not_allowed(pool.mode(), "allow_binary_downloads", at, findings);
        }
        Ok(_) => {}
    }
}

fn missing_table(mode: ProvisioningMode, at: At, findings: &mut Findings) {
    let keys = match mode {
        ProvisioningMode::External => "`url`",
        ProvisioningMode::Source => "`repo` and `ref`",
        ProvisioningMode::Container => "`image`",
        ProvisioningMode::Package => "`name`",
        ProvisioningMode::Binary => "`url` and `checksum`",
    };
    let what = format!("{}; add [pools.provisioning.{mode}] with {keys}, or choose another mode", MissingTable(mode));
    findings.problem(at.key(&format!("provisioning.{mode}")), what);
}

fn not_allowed(mode: ProvisioningMode, permission: &str, at: At, findings: &mut Findings) {
    let what = format!("mode `{mode}` needs `{permission} = true`, here or in [policy.outbound]");
    findings.problem(at.key(&format!("provisioning.{permission}")), what);
}

fn replicas(external: &External, at: At, findings: &mut Findings) {
    let mut seen = BTreeSet::from([external.url.as_str().trim_end_matches('/')]);
    for (i, url) in external.replicas.iter().enumerate() {
        if !seen.insert(url.as_str().trim_end_matches('/')) {
            let what = format!("`{url}` is an engine of this pool already; name each once");
            findings.problem(at.key(&format!("provisioning.external.replicas[{i}]")), what);
        }
    }
}

fn image(container: &Container, at: At, findings: &mut Findings) {
    if container.image.is_empty() {
        findings.problem(at.key("provisioning.container.image"), "must name an image");
    }
    if container.digest.is_none() {
        findings.warning(at.key("provisioning.container.digest"), "is unset, so the image can change under you");
    }
}

/// Secrets belong into the daemon's environment or into files, not into this file.
fn environment(pool: &Pool, at: At, findings: &mut Findings) {
    for name in pool.provisioning.env.keys() {
        let upper = name.to_ascii_uppercase();
        if ["TOKEN", "SECRET", "PASSWORD", "API_KEY"].iter().any(|word| upper.ends_with(word)) {
            let what = "looks like a secret, which does not belong into this file; name it in `env_from`, and the engine gets the daemon's";
            findings.warning(at.key(&format!("provisioning.env.{name}")), what);
        }
    }
}
