//! llama.cpp's `llama-server`. Source: `common/arg.cpp`.

use super::flags::{Flag, Rule, ValueProblem};
use super::{Line, Table, Value, Versions, When, line};

/// More layers than any model has; an older server does not know the word `all`, and `auto` may choose the CPU.
const ALL_LAYERS: &str = "999";

#[rustfmt::skip]
pub(super) const TABLE: Table = Table {
    lines: &[
        line("--model", Value::Model, When::Always),
        line("--alias", Value::ServedName, When::Always),
        line("--host", Value::Host, When::Always),
        line("--port", Value::Port, When::Always),
        line("--ctx-size", Value::CtxOfAll, When::Always),
        line("--parallel", Value::Slots, When::Always),
        line("--n-gpu-layers", Value::Fixed(ALL_LAYERS), When::Always),
        line("--tensor-split", Value::TensorSplit, When::Always),
        line("--metrics", Value::Switch, When::Always),
        line("--slots", Value::Switch, When::Always),
        // It came in April 2024.
        Line { flag: "--slot-save-path", value: Value::SlotFiles, when: When::Always, versions: Versions::from(&[2700]) },
        Line { flag: "--no-webui", value: Value::Switch, when: When::Always, versions: Versions::from(&[4304]) },
        // Templates with tools; later versions have it by default.
        Line { flag: "--jinja", value: Value::Switch, when: When::Always, versions: Versions::from(&[5000]) },
        line("--no-cont-batching", Value::Switch, When::Strict),
    ],
    flags: &[
        Flag { names: &["--model", "-m"], has_value: true, rule: Rule::Owned("set the pool's `model`") },
        Flag { names: &["--alias", "-a"], has_value: true, rule: Rule::Owned("set the pool's `model`") },
        Flag { names: &["--host"], has_value: true, rule: Rule::Owned("leave it out; engines listen on loopback") },
        Flag { names: &["--port"], has_value: true, rule: Rule::Owned("set `provisioning.ports`") },
        Flag { names: &["--reuse-port"], has_value: false, rule: Rule::Owned("set `provisioning.ports`") },
        Flag { names: &["--parallel", "-np"], has_value: true, rule: Rule::Owned("set the pool's `slots`") },
        Flag { names: &["--api-key"], has_value: true, rule: Rule::Owned(NO_KEY) },
        Flag { names: &["--api-key-file"], has_value: true, rule: Rule::Owned(NO_KEY) },
        Flag { names: &["--ssl-key-file"], has_value: true, rule: Rule::Owned(NO_TLS) },
        Flag { names: &["--ssl-cert-file"], has_value: true, rule: Rule::Owned(NO_TLS) },
        Flag { names: &["--api-prefix"], has_value: true, rule: Rule::Owned("leave it out; the adapter knows the engine's own paths") },
        Flag { names: &["--no-slots"], has_value: false, rule: Rule::Owned("leave it out; free slots are asked for there") },
        Flag { names: &["--slot-save-path"], has_value: true, rule: Rule::Owned("leave it out; `swap.kv_cache_mb` keeps sessions' caches") },
        Flag { names: &["--model-url", "-mu"], has_value: true, rule: Rule::Owned(FETCHED) },
        Flag { names: &["--hf-repo", "-hf", "-hfr"], has_value: true, rule: Rule::Owned(FETCHED) },
        Flag { names: &["--hf-file", "-hff"], has_value: true, rule: Rule::Owned(FETCHED) },
        Flag { names: &["--hf-token", "-hft"], has_value: true, rule: Rule::Owned(FETCHED) },
        Flag { names: &["--docker-repo", "-dr"], has_value: true, rule: Rule::Owned(FETCHED) },
        Flag { names: &["--models-dir"], has_value: true, rule: Rule::Owned("make a pool for each model") },
        Flag { names: &["--models-preset"], has_value: true, rule: Rule::Owned("make a pool for each model") },
        Flag { names: &["--log-file"], has_value: true, rule: Rule::Owned("leave it out; output is kept, see `llama-orch logs`") },
        Flag { names: &["--log-disable"], has_value: false, rule: Rule::Owned("leave it out; failures are told from the output") },
        Flag { names: &["--list-devices"], has_value: false, rule: Rule::Owned("run `llama-orch doctor`") },
        Flag { names: &["--version"], has_value: false, rule: Rule::Owned("run `llama-orch engines list`") },
        Flag { names: &["--help", "-h", "--usage"], has_value: false, rule: Rule::Owned("leave it out; the server would not start") },

        Flag { names: &["--n-gpu-layers", "--gpu-layers", "-ngl"], has_value: true, rule: Rule::Value(gpu_layers) },
        Flag { names: &["--device", "-dev"], has_value: true, rule: Rule::Value(device) },
        Flag { names: &["--override-tensor", "-ot"], has_value: true, rule: Rule::Value(override_tensor) },
        Flag { names: &["--cpu-moe", "-cmoe"], has_value: false, rule: Rule::Cpu("use `--n-cpu-moe N` for as many layers as do not fit") },
        Flag { names: &["--rpc"], has_value: true, rule: Rule::Owned("leave it out; a pool runs on the devices it names") },

        Flag { names: &["--ctx-size", "-c"], has_value: true, rule: Rule::Free },
        Flag { names: &["--tensor-split", "-ts"], has_value: true, rule: Rule::Free },
        Flag { names: &["--metrics"], has_value: false, rule: Rule::Free },
        Flag { names: &["--slots"], has_value: false, rule: Rule::Free },
        Flag { names: &["--no-webui", "--no-ui"], has_value: false, rule: Rule::Free },
        Flag { names: &["--jinja"], has_value: false, rule: Rule::Free },
        Flag { names: &["--no-cont-batching", "-nocb"], has_value: false, rule: Rule::Free },
        Flag { names: &["--cont-batching", "-cb"], has_value: false, rule: Rule::NotStrict("set `determinism = \"best_effort\"`, or leave it out") },
    ],
    // Paths that end in `.sock`.
    sockets: Some(Versions::from(&[5000])),
    variables: &[
        ("LLAMA_ARG_", "set it in the pool's `flags`, where it is checked"),
        ("LLAMA_API_KEY", NO_KEY),
        ("HF_TOKEN", FETCHED),
    ],
};

const NO_KEY: &str = "leave it out; engines listen on loopback, and llama-orch guards what is in front of them";
const NO_TLS: &str = "leave it out; engines listen on loopback, and `server.tls_cert` is for clients";
const FETCHED: &str = "set the pool's `model`; models are fetched and verified by llama-orch";

/// Any count but none. Who writes -1 or `all` means all of them.
fn gpu_layers(value: &str) -> Result<String, ValueProblem> {
    const ALL: &str = "give the number of layers that the GPU shall have, or leave it out for all";
    match value.parse::<i64>() {
        Ok(0) => Err(ValueProblem::Cpu(ALL)),
        Ok(layers) if layers > 0 => Ok(layers.to_string()),
        Ok(_) => Ok(ALL_LAYERS.to_owned()),
        Err(_) if value == "all" => Ok(ALL_LAYERS.to_owned()),
        Err(_) if value == "auto" => Err(ValueProblem::Cpu(ALL)),
        Err(_) => Err(ValueProblem::Senseless("wants a number", ALL)),
    }
}

fn device(value: &str) -> Result<String, ValueProblem> {
    const GPUS: &str = "name the GPUs in the pool's `devices`";
    let is_gpu = |name: &str| name.trim().to_ascii_uppercase().starts_with("CUDA");
    if value.split(',').all(is_gpu) { Ok(value.to_owned()) } else { Err(ValueProblem::Cpu(GPUS)) }
}

/// Parts of a model may lie in the host's memory, all of it may not.
fn override_tensor(value: &str) -> Result<String, ValueProblem> {
    let is_all = |rule: &str| {
        let (pattern, place) = rule.split_once('=').unwrap_or((rule, ""));
        place.trim().to_ascii_uppercase().starts_with("CPU")
            && matches!(pattern.trim(), "" | "." | ".*" | ".+" | "^.*$" | "^.*" | ".*$")
    };
    match value.split(',').any(is_all) {
        true => Err(ValueProblem::Cpu("name the tensors that shall lie in the host's memory")),
        false => Ok(value.to_owned()),
    }
}
