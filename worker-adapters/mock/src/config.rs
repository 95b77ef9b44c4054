//! What a simulated engine is like.

use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

use crate::Faults;
use crate::server::BUILD;

/// Description of a simulated engine. The default is quick and faultless: one slot, loaded at once, decoding flat out.
#[derive(Clone, Debug)]
pub struct Config {
    /// The model's name, as the engine reports it.
    pub model: String,
    /// Where its file is; without it a path is made up.
    pub model_path: Option<PathBuf>,
    /// Build of the engine, as it reports it.
    pub build: String,
    /// The key that callers over HTTP must give.
    pub api_key: Option<String>,
    /// Requests served at the same time; more wait inside the engine.
    pub slots: NonZeroU32,
    /// Context of one slot, in tokens, prompt and output together.
    pub ctx: u32,
    /// Time from the start until requests are taken.
    pub load_time: Duration,
    /// Prompt tokens read per second; 0 reads any prompt at once.
    pub prefill_tokens_per_second: f64,
    /// Prompt tokens read between two looks at the connection and two progress events. Source: llama.cpp's `n_batch`.
    pub prefill_batch: NonZeroU32,
    /// Time from one token to the next; zero decodes flat out.
    pub token_interval: Duration,
    /// Tokens that one write may carry when several are due.
    pub burst: NonZeroU32,
    /// When the model is done of its own accord.
    pub output: OutputLength,
    /// What a request's seed does.
    pub seeds: SeedBehaviour,
    /// Whether output differs when part of the prompt came from the cache, as measured with llama.cpp.
    pub cache_sensitive: bool,
    /// Whether a character of several bytes costs one token per byte, sent as one event, as with llama.cpp's byte tokens.
    pub split_characters: bool,
    /// Length of embedding vectors; without it the engine refuses embeddings.
    pub embedding_width: Option<NonZeroUsize>,
    /// Folder of the files that slots are saved to; without it they cannot be.
    pub slot_save_path: Option<PathBuf>,
    /// How it fails.
    pub faults: Faults,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            model: "mock-model".to_owned(),
            model_path: None,
            build: BUILD.to_owned(),
            api_key: None,
            slots: NonZeroU32::MIN,
            ctx: 8192,
            load_time: Duration::ZERO,
            prefill_tokens_per_second: 0.0,
            prefill_batch: NonZeroU32::MIN.saturating_add(511),
            token_interval: Duration::ZERO,
            burst: NonZeroU32::MIN,
            output: OutputLength::AsAsked,
            seeds: SeedBehaviour::Honoured,
            cache_sensitive: false,
            split_characters: false,
            embedding_width: None,
            slot_save_path: None,
            faults: Faults::default(),
        }
    }
}

/// When the model is done of its own accord.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutputLength {
    /// Never, when the request says how many tokens it wants; else after 128.
    AsAsked,
    /// After a number of tokens between these two, both included, drawn from prompt and seed.
    Between(u32, u32),
    /// After a share of the tokens asked for, in percent between these two, both included, drawn from prompt and seed; of 128
    /// tokens when nobody says how many.
    Percent(u32, u32),
}

/// What a request's seed does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SeedBehaviour {
    /// Equal prompts and seeds give equal text.
    Honoured,
    /// The engine draws its own each time: an engine that cannot be reproduced.
    Ignored,
}
