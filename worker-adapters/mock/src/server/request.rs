//! Request bodies, as far as the simulation heeds them; everything else is ignored, as llama-server does.

use api_types::ChatMessage;
use serde::Deserialize;

use crate::ask::{Ask, Delivery, render_chat};

/// Body of `POST /completion`.
#[derive(Debug, Deserialize)]
pub(super) struct CompletionRequest {
    prompt: String,
    #[serde(default)]
    n_predict: Option<i64>,
    #[serde(default, flatten)]
    common: Common,
    #[serde(default)]
    return_progress: bool,
    #[serde(default)]
    ignore_eos: bool,
}

/// Body of `POST /v1/chat/completions`.
#[derive(Debug, Deserialize)]
pub(super) struct ChatRequest {
    messages: Vec<ChatMessage>,
    #[serde(default)]
    max_completion_tokens: Option<i64>,
    #[serde(default, flatten)]
    common: Common,
    #[serde(default)]
    return_progress: bool,
    #[serde(default)]
    stream_options: Option<StreamOptions>,
}

#[derive(Debug, Default, Deserialize)]
struct Common {
    #[serde(default)]
    max_tokens: Option<i64>,
    #[serde(default)]
    seed: Option<i64>,
    #[serde(default)]
    temperature: Option<f64>,
    #[serde(default)]
    stream: bool,
    #[serde(default)]
    cache_prompt: Option<bool>,
    #[serde(default)]
    stop: Option<OneOrMany>,
}

#[derive(Debug, Deserialize)]
struct StreamOptions {
    #[serde(default)]
    include_usage: bool,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl OneOrMany {
    pub(super) fn into_vec(self) -> Vec<String> {
        match self {
            Self::One(text) => vec![text],
            Self::Many(texts) => texts,
        }
    }
}

/// What an answer repeats of its request.
#[derive(Clone, Debug)]
pub(super) struct Echo {
    pub(super) stream: bool,
    pub(super) include_usage: bool,
    pub(super) prompt: String,
    pub(super) seed: u32,
    pub(super) n_predict: i64,
    pub(super) temperature: f64,
    pub(super) stop: Vec<String>,
}

/// llama.cpp's value for "draw one".
const RANDOM_SEED: u32 = u32::MAX;

impl CompletionRequest {
    pub(super) fn into_ask(self) -> (Ask, Echo) {
        let n_predict = self.n_predict.or(self.common.max_tokens);
        let (ask, echo) = self.common.into_ask(self.prompt, n_predict, false);
        (Ask { progress: self.return_progress, ignore_eos: self.ignore_eos, ..ask }, echo)
    }
}

impl ChatRequest {
    pub(super) fn into_ask(self) -> (Ask, Echo) {
        let n_predict = self.max_completion_tokens.or(self.common.max_tokens);
        let usage = self.stream_options.is_some_and(|options| options.include_usage);
        let (ask, echo) = self.common.into_ask(render_chat(&self.messages), n_predict, usage);
        (Ask { progress: self.return_progress, ..ask }, echo)
    }
}

impl Common {
    fn into_ask(self, prompt: String, n_predict: Option<i64>, include_usage: bool) -> (Ask, Echo) {
        let stop = self.stop.map(OneOrMany::into_vec).unwrap_or_default();
        let seed = self.seed.and_then(|seed| u32::try_from(seed).ok()).filter(|seed| *seed != RANDOM_SEED);
        let echo = Echo {
            stream: self.stream,
            include_usage,
            prompt: prompt.clone(),
            seed: seed.unwrap_or(RANDOM_SEED),
            n_predict: n_predict.unwrap_or(-1),
            temperature: self.temperature.unwrap_or(0.8),
            stop: stop.clone(),
        };
        let ask = Ask {
            prompt,
            seed,
            // Negative means "until the model is done".
            max_tokens: n_predict.and_then(|tokens| u32::try_from(tokens).ok()),
            stop,
            cache_prompt: self.cache_prompt.unwrap_or(true),
            progress: false,
            ignore_eos: false,
            delivery: if self.stream { Delivery::Stream } else { Delivery::Whole },
        };
        (ask, echo)
    }
}

/// Body of `POST /tokenize`.
#[derive(Debug, Deserialize)]
pub(super) struct TokenizeRequest {
    pub(super) content: String,
    #[serde(default)]
    pub(super) add_special: bool,
    #[serde(default)]
    pub(super) with_pieces: bool,
}

/// Body of `POST /slots/{id}?action=save` and `restore`.
#[derive(Debug, Deserialize)]
pub(super) struct SlotFileRequest {
    pub(super) filename: String,
}

/// Body of `POST /apply-template`.
#[derive(Debug, Deserialize)]
pub(super) struct TemplateRequest {
    pub(super) messages: Vec<ChatMessage>,
}

/// Body of `POST /v1/embeddings`.
#[derive(Debug, Deserialize)]
pub(super) struct EmbeddingsRequest {
    pub(super) input: OneOrMany,
}
