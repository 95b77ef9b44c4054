//! The command line of what works on this machine rather than through a server: `doctor`, `up` and `down`.

use std::path::PathBuf;

/// The configuration that the daemon would read.
#[derive(Debug, clap::Args)]
pub(crate) struct ConfigArgs {
    /// Configuration file, TOML or YAML. Default: $LLAMA_ORCH_CONFIG, ./llama-orch.toml, ~/.config/llama-orch/config.toml.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
}

/// Options of `up`.
#[derive(Debug, clap::Args)]
pub(crate) struct UpArgs {
    #[command(flatten)]
    pub(crate) config: ConfigArgs,

    /// The first prompt.
    #[arg(long, value_name = "TEXT", default_value = "Write a haiku about a graphics card.\n")]
    pub(crate) prompt: String,

    /// Most tokens of the first answer.
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(i32).range(1..))]
    pub(crate) max_tokens: i32,

    /// Where there is no configuration file yet: write llama-orch.toml for this model and the GPU with most free memory. Such as
    /// hf:org/repo/file.gguf or file:/path/model.gguf.
    #[arg(long, value_name = "REF")]
    pub(crate) model: Option<String>,
}
