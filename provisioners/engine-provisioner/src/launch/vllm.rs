//! vLLM's OpenAI-style server: `vllm serve`, or the entry point of its image. Source: `vllm/engine/arg_utils.py` and
//! `vllm/entrypoints/openai/cli_args.py`.

use super::flags::{Flag, Rule, ValueProblem};
use super::{Line, Table, Value, Versions, When, line};

#[rustfmt::skip]
pub(super) const TABLE: Table = Table {
    lines: &[
        line("", Value::Fixed("serve"), When::Program),
        line("", Value::Model, When::Program),
        // Before that the image's entry point takes no model without its flag.
        Line { flag: "", value: Value::Model, when: When::Container, versions: Versions::from(&[0, 13]) },
        Line { flag: "--model", value: Value::Model, when: When::Container, versions: Versions::before(&[0, 13]) },
        line("--served-model-name", Value::ServedName, When::Always),
        line("--host", Value::Host, When::Always),
        line("--port", Value::Port, When::Always),
        line("--tensor-parallel-size", Value::Gpus, When::Always),
        line("--max-model-len", Value::Ctx, When::Always),
        line("--max-num-seqs", Value::Slots, When::Always),
        line("--seed", Value::Fixed("0"), When::Always),
        Line { flag: "--no-enable-prefix-caching", value: Value::Switch, when: When::Strict, versions: Versions::from(&[0, 8]) },
    ],
    flags: &[
        Flag { names: &["--model"], has_value: true, rule: Rule::Owned("set the pool's `model`") },
        Flag { names: &["--served-model-name"], has_value: true, rule: Rule::Owned("set the pool's `model`") },
        Flag { names: &["--host"], has_value: true, rule: Rule::Owned("leave it out; engines listen on loopback") },
        Flag { names: &["--port"], has_value: true, rule: Rule::Owned("set `provisioning.ports`") },
        Flag { names: &["--uds"], has_value: true, rule: Rule::Owned("leave it out; engines listen on loopback") },
        Flag { names: &["--max-num-seqs"], has_value: true, rule: Rule::Owned("set the pool's `slots`") },
        Flag { names: &["--api-key"], has_value: true, rule: Rule::Owned(NO_KEY) },
        Flag { names: &["--ssl-keyfile"], has_value: true, rule: Rule::Owned(NO_KEY) },
        Flag { names: &["--ssl-certfile"], has_value: true, rule: Rule::Owned(NO_KEY) },
        Flag { names: &["--ssl-ca-certs"], has_value: true, rule: Rule::Owned(NO_KEY) },
        Flag { names: &["--root-path"], has_value: true, rule: Rule::Owned("leave it out; the adapter knows the engine's own paths") },
        Flag { names: &["--hf-token"], has_value: true, rule: Rule::Owned("set HF_TOKEN for llama-orch, which fetches the model") },
        Flag { names: &["--config"], has_value: true, rule: Rule::Owned("give the flags one by one, where they are checked") },
        Flag { names: &["--device"], has_value: true, rule: Rule::Value(device) },
        Flag { names: &["--tensor-parallel-size", "-tp"], has_value: true, rule: Rule::Free },
        Flag { names: &["--max-model-len"], has_value: true, rule: Rule::Free },
        Flag { names: &["--seed"], has_value: true, rule: Rule::Free },
        Flag { names: &["--no-enable-prefix-caching"], has_value: false, rule: Rule::Free },
        Flag { names: &["--enable-prefix-caching"], has_value: false, rule: Rule::NotStrict("set `determinism = \"best_effort\"`, or leave it out") },
    ],
    sockets: None,
    variables: &[
        ("VLLM_TARGET_DEVICE", "leave it out; managed engines run on CUDA"),
        ("VLLM_API_KEY", NO_KEY),
        ("HF_TOKEN", "set it for llama-orch itself, which fetches the model"),
    ],
};

const NO_KEY: &str = "leave it out; engines listen on loopback, and llama-orch guards what is in front of them";

pub(super) fn device(value: &str) -> Result<String, ValueProblem> {
    match value {
        "cuda" | "auto" => Ok(value.to_owned()),
        _ => Err(ValueProblem::Cpu("leave it out; managed engines run on CUDA")),
    }
}
