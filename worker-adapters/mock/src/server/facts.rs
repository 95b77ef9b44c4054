//! What the engine tells about itself: properties, models, slots, metrics.

use std::fmt::Write as _;
use std::sync::LazyLock;

use serde_json::{Value, json};

use crate::{Simulation, SlotView};

/// What llama-server answers, with the values that the simulation does not have.
static PROPS: LazyLock<Value> =
    LazyLock::new(|| serde_json::from_str(include_str!("props.json")).expect("the file is valid JSON"));

/// `GET /props`.
pub(super) fn props(sim: &Simulation) -> Value {
    let config = sim.config();
    let mut props = PROPS.clone();
    props["default_generation_settings"]["n_ctx"] = config.ctx.into();
    props["total_slots"] = config.slots.get().into();
    props["model_alias"] = config.model.as_str().into();
    props["model_path"] = match &config.model_path {
        Some(path) => path.to_string_lossy().into(),
        None => format!("/models/{}.gguf", config.model).into(),
    };
    props["build_info"] = config.build.as_str().into();
    props
}

/// `GET /v1/models`.
pub(super) fn models(sim: &Simulation) -> Value {
    let config = sim.config();
    let name = config.model.as_str();
    let width = config.embedding_width.map_or(640, std::num::NonZeroUsize::get);
    json!({
        "models": [{
            "name": name, "model": name, "modified_at": "", "size": "", "digest": "", "type": "model", "description": "",
            "tags": [""], "capabilities": ["completion"], "parameters": "",
            "details": {
                "parent_model": "", "format": "gguf", "family": "", "families": [""], "parameter_size": "",
                "quantization_level": "",
            },
        }],
        "object": "list",
        "data": [{
            "id": name, "aliases": [name], "tags": [], "object": "model",
            "architecture": {"input_modalities": ["text"], "output_modalities": ["text"]},
            "created": 0, "owned_by": "llamacpp",
            "meta": {
                "vocab_type": 1, "n_vocab": 262_144, "n_ctx": config.ctx, "n_ctx_train": config.ctx, "n_embd": width,
                "n_params": 0, "size": 0, "ftype": "none",
            },
        }],
    })
}

/// `GET /slots`.
pub(super) fn slots(sim: &Simulation) -> Value {
    let slot = |view: SlotView| {
        let mut slot = json!({
            "id": view.id, "n_ctx": sim.config().ctx, "speculative": false, "is_processing": view.task.is_some(),
        });
        if let Some(task) = view.task {
            slot["id_task"] = task.into();
            slot["next_token"] = json!([{"has_next_token": true, "has_new_line": false, "n_decoded": view.decoded}]);
        }
        if let Some(tokens) = view.cached {
            slot["n_prompt_tokens"] = tokens.into();
        }
        slot
    };
    sim.slots().into_iter().map(slot).collect()
}

/// `GET /metrics`.
pub(super) fn metrics(sim: &Simulation) -> String {
    let stats = sim.stats();
    let (prompt_s, predicted_s) = (stats.prompt_ms / 1000.0, stats.predicted_ms / 1000.0);
    let (prompt_tokens, predicted) = (count(stats.prompt_tokens), count(stats.tokens_written));
    let speed = |tokens: f64, seconds: f64| if seconds > 0.0 { tokens / seconds } else { 0.0 };
    let rows: [(&str, &str, &str, f64); 10] = [
        ("prompt_tokens_total", "counter", "Number of prompt tokens processed, excluding cached tokens", prompt_tokens),
        (
            "prompt_tokens_cached_total",
            "counter",
            "Number of prompt tokens reused from the cache",
            count(stats.cached_tokens),
        ),
        ("prompt_seconds_total", "counter", "Total time spent processing prompts", prompt_s),
        ("tokens_predicted_total", "counter", "Number of generation tokens processed", predicted),
        ("tokens_predicted_seconds_total", "counter", "Total time spent generating tokens", predicted_s),
        ("n_decode_total", "counter", "Total number of llama_decode() calls", predicted),
        ("prompt_tokens_seconds", "gauge", "Average prompt throughput in tokens/s", speed(prompt_tokens, prompt_s)),
        (
            "predicted_tokens_seconds",
            "gauge",
            "Average generation throughput in tokens/s",
            speed(predicted, predicted_s),
        ),
        ("requests_processing", "gauge", "Number of requests processing", count(stats.running)),
        ("requests_deferred", "gauge", "Number of requests deferred", count(stats.deferred)),
    ];
    let mut text = String::new();
    for (name, kind, help, value) in rows {
        // Writing to a String cannot fail.
        let _infallible =
            write!(text, "# HELP llamacpp:{name} {help}\n# TYPE llamacpp:{name} {kind}\nllamacpp:{name} {value}\n");
    }
    text
}

#[expect(clippy::cast_precision_loss, reason = "counts of a test engine stay far below 2^52")]
fn count(number: u64) -> f64 {
    number as f64
}
