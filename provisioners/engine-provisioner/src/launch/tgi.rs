//! Hugging Face text-generation-inference. Source: `launcher/src/main.rs`.

use super::flags::{Flag, Rule};
use super::{Table, Value, When, line};

#[rustfmt::skip]
pub(super) const TABLE: Table = Table {
    lines: &[
        line("--model-id", Value::Model, When::Always),
        line("--hostname", Value::Host, When::Always),
        line("--port", Value::Port, When::Always),
        line("--num-shard", Value::Gpus, When::Always),
        line("--max-concurrent-requests", Value::Slots, When::Always),
        line("--max-total-tokens", Value::Ctx, When::Always),
    ],
    flags: &[
        Flag { names: &["--model-id"], has_value: true, rule: Rule::Owned("set the pool's `model`") },
        Flag { names: &["--hostname"], has_value: true, rule: Rule::Owned("leave it out; engines listen on loopback") },
        Flag { names: &["--port", "-p"], has_value: true, rule: Rule::Owned("set `provisioning.ports`") },
        Flag { names: &["--max-concurrent-requests"], has_value: true, rule: Rule::Owned("set the pool's `slots`") },
        Flag { names: &["--api-key"], has_value: true, rule: Rule::Owned("leave it out; engines listen on loopback") },
        Flag { names: &["--env", "-e"], has_value: false, rule: Rule::Owned("leave it out; the server would not start") },
        Flag { names: &["--num-shard"], has_value: true, rule: Rule::Free },
        Flag { names: &["--max-total-tokens"], has_value: true, rule: Rule::Free },
    ],
    sockets: None,
    variables: &[
        ("MODEL_ID", "set the pool's `model`"),
        ("PORT", "set `provisioning.ports`"),
        ("API_KEY", "leave it out; engines listen on loopback"),
        ("HF_TOKEN", "set it for llama-orch itself, which fetches the model"),
        ("HUGGING_FACE_HUB_TOKEN", "set HF_TOKEN for llama-orch itself, which fetches the model"),
    ],
};
