//! The command line: the simulation's own options, and llama-server's.
//!
//! A pool that is made for llama-server can have this program instead of it. Where both have an option of one name, it means
//! what llama-server means by it; what has no meaning for a simulation is taken and has no effect. The own options can be set by
//! the environment, too, since a pool passes that on.

mod llama;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use clap::Parser;
use clap::builder::FalseyValueParser;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use mock::{Config, Faults, OutputLength, SeedBehaviour};

pub(crate) use self::llama::SplitMode;

/// A simulated engine that speaks llama-server's HTTP. Prints `listening URL` once it does.
///
/// It also takes llama-server's options. Those below can be set by the environment as well.
#[derive(Debug, Parser)]
#[command(disable_version_flag = true)]
pub(crate) struct Args {
    /// Print the version as llama-server does
    #[arg(long)]
    pub(crate) version: bool,
    /// Address to listen on; port 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:0", conflicts_with_all = ["host", "port"])]
    pub(crate) listen: SocketAddr,
    /// Host to listen on, or a path that ends in .sock, as with llama-server
    #[arg(long)]
    pub(crate) host: Option<String>,
    /// Port to listen on, as with llama-server; 0 takes a free one
    #[arg(long)]
    pub(crate) port: Option<u16>,
    /// Unix socket to listen on instead
    #[arg(long, value_name = "PATH", conflicts_with_all = ["listen", "host", "port"])]
    pub(crate) unix: Option<PathBuf>,
    /// File to write the port to
    #[arg(long, value_name = "PATH", conflicts_with = "unix")]
    pub(crate) port_file: Option<PathBuf>,
    /// Threads that serve connections; less than one is one
    #[arg(long, default_value_t = 1, allow_negative_numbers = true)]
    threads: i32,
    /// Name of the model, or its file, which must be a GGUF
    #[arg(long, default_value = "mock-model")]
    model: String,
    /// Name of the model when `--model` is a file
    #[arg(long)]
    alias: Option<String>,
    /// Requests served at the same time; without a number it has no effect
    #[arg(long)]
    #[expect(clippy::option_option, reason = "llama-server's option of this name takes no number")]
    slots: Option<Option<NonZeroU32>>,
    /// Requests served at the same time; less than one is one
    #[arg(long, allow_negative_numbers = true)]
    parallel: Option<i32>,
    /// Context of one slot, in tokens
    #[arg(long, default_value_t = 8192)]
    ctx: u32,
    /// Context of all slots together, in tokens; 0 is that of the model
    #[arg(long, conflicts_with = "ctx")]
    ctx_size: Option<u32>,
    /// Share of each GPU
    #[arg(long, value_delimiter = ',')]
    pub(crate) tensor_split: Vec<f64>,
    /// How a model is spread over GPUs
    #[arg(long, default_value = "layer")]
    pub(crate) split_mode: SplitMode,
    /// The GPU that has all of a model that is not spread
    #[arg(long, default_value_t = 0)]
    pub(crate) main_gpu: usize,
    /// Key that callers must give
    #[arg(long, env = "LLAMA_API_KEY", hide_env_values = true)]
    api_key: Option<String>,
    /// Time the model takes to load, in milliseconds
    #[arg(long, env = "MOCK_ENGINE_LOAD_MS", default_value_t = 0)]
    load_ms: u64,
    /// GPU memory it takes in all, in MiB; without it what llama.cpp takes for the model, or, of a file that is no model, its size
    /// and something for the context
    #[arg(long, env = "MOCK_ENGINE_VRAM_MB")]
    pub(crate) vram_mb: Option<u64>,
    /// GPU memory that CUDA takes for itself on each GPU that it sees, in MiB; a real card has 300 to 500
    #[arg(long, env = "MOCK_ENGINE_CUDA_MB", default_value_t = 0)]
    pub(crate) cuda_mb: u64,
    /// Memory of the host it takes, in MiB
    #[arg(long, env = "MOCK_ENGINE_HOST_MB", default_value_t = 0)]
    pub(crate) host_mb: u64,
    /// Take any file for a model
    #[arg(long, env = "MOCK_ENGINE_ANY_MODEL", value_parser = FalseyValueParser::new())]
    pub(crate) any_model: bool,
    /// Prompt tokens read per second; 0 reads any prompt at once
    #[arg(long, env = "MOCK_ENGINE_PREFILL_SPEED", default_value_t = 0.0)]
    prefill_speed: f64,
    /// Prompt tokens between two progress events
    #[arg(long, env = "MOCK_ENGINE_PREFILL_BATCH", default_value = "512")]
    prefill_batch: NonZeroU32,
    /// Time from one token to the next, in milliseconds; 0 decodes flat out
    #[arg(long, env = "MOCK_ENGINE_TOKEN_INTERVAL_MS", default_value_t = 0.0, conflicts_with = "tokens_per_second")]
    token_interval_ms: f64,
    /// Tokens per second instead of the interval; 0 decodes flat out
    #[arg(long, env = "MOCK_ENGINE_TOKENS_PER_SECOND")]
    tokens_per_second: Option<f64>,
    /// Tokens that one write may carry when several are due
    #[arg(long, env = "MOCK_ENGINE_BURST", default_value_t = NonZeroU32::MIN)]
    burst: NonZeroU32,
    /// The model is done after MIN to MAX tokens, drawn from prompt and seed
    #[arg(long, env = "MOCK_ENGINE_EOS_AFTER", value_name = "MIN..MAX", value_parser = parse_range)]
    eos_after: Option<(u32, u32)>,
    /// The model is done after MIN to MAX percent of the tokens asked for, drawn from prompt and seed
    #[arg(
        long,
        env = "MOCK_ENGINE_EOS_PERCENT",
        value_name = "MIN..MAX",
        value_parser = parse_range,
        conflicts_with = "eos_after"
    )]
    eos_percent: Option<(u32, u32)>,
    /// Draw a seed for each request, whatever it asks for
    #[arg(long, env = "MOCK_ENGINE_IGNORE_SEED", value_parser = FalseyValueParser::new())]
    ignore_seed: bool,
    /// Let output differ when part of the prompt came from the cache
    #[arg(long, env = "MOCK_ENGINE_CACHE_SENSITIVE", value_parser = FalseyValueParser::new())]
    cache_sensitive: bool,
    /// Spell characters of several bytes in byte tokens, several to an event
    #[arg(long, env = "MOCK_ENGINE_SPLIT_CHARACTERS", value_parser = FalseyValueParser::new())]
    split_characters: bool,
    /// Length of embedding vectors; without it embeddings are refused
    #[arg(long, env = "MOCK_ENGINE_EMBEDDING_WIDTH", value_name = "LENGTH")]
    embedding_width: Option<NonZeroUsize>,
    /// Folder of the files that slots are saved to
    #[arg(long, value_name = "PATH")]
    slot_save_path: Option<PathBuf>,
    /// Faults as JSON, or @FILE
    #[arg(long, env = "MOCK_ENGINE_FAULTS", value_parser = parse_faults)]
    faults: Option<Faults>,
    /// File with faults as JSON; they are set again whenever it changes
    #[arg(long, env = "MOCK_ENGINE_FAULTS_FILE", value_name = "PATH", conflicts_with = "faults")]
    pub(crate) faults_file: Option<PathBuf>,
    /// Build that it reports, as in llama-server's `--version`
    #[arg(long, env = "MOCK_ENGINE_BUILD", value_name = "NUMBER-COMMIT")]
    build: Option<String>,
}

/// Build that is reported in llama-server's place.
const LLAMA_BUILD: &str = "6891-abcdef12";

/// Context of a model whose file says nothing about it, in tokens.
const MODEL_CTX: u32 = 8192;

impl Args {
    /// Reads the command line. What is wrong with it ends the process, as it ends llama-server.
    pub(crate) fn read() -> Self {
        let args = llama::plain(std::env::args_os());
        match args.and_then(|args: Vec<OsString>| Self::try_parse_from(args).map_err(llama::BadArgument::Other)) {
            Ok(Self { slot_save_path: Some(path), .. }) if !path.is_dir() => {
                let path = path.display();
                eprintln!("error while handling argument \"--slot-save-path\": not a directory: {path}");
                std::process::exit(1)
            }
            Ok(args) => args,
            Err(llama::BadArgument::Other(error)) => refuse(&error),
            Err(error @ llama::BadArgument::NoValue(_)) => {
                eprintln!("{error}");
                std::process::exit(1)
            }
        }
    }

    pub(crate) fn threads(&self) -> usize {
        usize::try_from(self.threads).unwrap_or(1).max(1)
    }

    /// The model's file, when it is one and not just a name. Whether it exists is another question.
    pub(crate) fn model_file(&self) -> Option<PathBuf> {
        let path = PathBuf::from(&self.model);
        let is_path = self.model.starts_with(['/', '.']) || self.model.ends_with(".gguf") || path.is_file();
        is_path.then_some(path)
    }

    fn model_name(&self) -> String {
        let file = self.model_file().and_then(|path| Some(path.file_name()?.to_string_lossy().into_owned()));
        self.alias.clone().or(file).unwrap_or_else(|| self.model.clone())
    }

    /// Number and commit, as in `6891-abcdef12`.
    pub(crate) fn build(&self) -> &str {
        self.build.as_deref().unwrap_or(LLAMA_BUILD)
    }

    pub(crate) fn slots(&self) -> NonZeroU32 {
        let parallel = self.parallel.and_then(|count| u32::try_from(count).ok()).and_then(NonZeroU32::new);
        self.slots.flatten().or(parallel).unwrap_or(NonZeroU32::MIN)
    }

    /// Context of one slot: llama-server's is shared between them.
    pub(crate) fn ctx(&self) -> u32 {
        match self.ctx_size {
            Some(0) => MODEL_CTX,
            Some(total) => (total / self.slots()).max(1),
            None => self.ctx,
        }
    }

    /// Context of all slots together, in tokens.
    pub(crate) fn total_ctx(&self) -> u64 {
        u64::from(self.ctx()) * u64::from(self.slots().get())
    }

    pub(crate) fn config(&self) -> Result<Config> {
        let interval = match self.tokens_per_second {
            Some(speed) if speed > 0.0 => Duration::try_from_secs_f64(1.0 / speed),
            Some(_) => Ok(Duration::ZERO),
            None => Duration::try_from_secs_f64(self.token_interval_ms / 1000.0),
        };
        let defaults = Config::default();
        let is_llama = self.model_file().is_some() || self.build.is_some();
        Ok(Config {
            model: self.model_name(),
            model_path: self.model_file(),
            build: if is_llama { format!("b{}", self.build()) } else { defaults.build },
            api_key: self.api_key.clone(),
            slots: self.slots(),
            ctx: self.ctx(),
            load_time: Duration::from_millis(self.load_ms),
            prefill_tokens_per_second: self.prefill_speed,
            prefill_batch: self.prefill_batch,
            token_interval: interval.context("the time between tokens is no time")?,
            burst: self.burst,
            output: self.output_length(),
            seeds: if self.ignore_seed { SeedBehaviour::Ignored } else { SeedBehaviour::Honoured },
            cache_sensitive: self.cache_sensitive,
            split_characters: self.split_characters,
            embedding_width: self.embedding_width,
            slot_save_path: self.slot_save_path.clone(),
            faults: self.faults.clone().unwrap_or_default(),
        })
    }

    fn output_length(&self) -> OutputLength {
        match (self.eos_after, self.eos_percent) {
            (Some((low, high)), _) => OutputLength::Between(low, high),
            (None, Some((low, high))) => OutputLength::Percent(low, high),
            (None, None) => OutputLength::AsAsked,
        }
    }
}

/// llama-server has one sentence for an option that it does not know, and exits with 1.
fn refuse(error: &clap::Error) -> ! {
    if error.kind() != ErrorKind::UnknownArgument {
        error.exit();
    }
    let argument = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(argument)) => argument.as_str(),
        _ => "",
    };
    eprintln!("error: invalid argument: {argument}");
    std::process::exit(1)
}

fn parse_range(text: &str) -> Result<(u32, u32)> {
    let (low, high) = text.split_once("..").ok_or_else(|| anyhow!("expected MIN..MAX"))?;
    let (low, high) = (low.parse()?, high.parse()?);
    if low > high { Err(anyhow!("MIN is above MAX")) } else { Ok((low, high)) }
}

pub(crate) fn parse_faults(text: &str) -> Result<Faults> {
    let json = match text.strip_prefix('@') {
        Some(path) => std::fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?,
        None => text.to_owned(),
    };
    Ok(serde_json::from_str(&json)?)
}
