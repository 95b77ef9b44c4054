//! What programs that run engines do alike before they do anything: their log, as flags and configuration want it.

use config_schema::{Loaded, LogFormat};
use narration_core::{Format, LogConfig};

/// The log that a configuration asks for.
#[must_use]
pub fn log_config(loaded: &Loaded) -> LogConfig {
    let log = &loaded.config.log;
    let format = match log.format {
        LogFormat::Auto => Format::Auto,
        LogFormat::Json => Format::Json,
        LogFormat::Pretty => Format::Pretty,
    };
    LogConfig { format, filter: log.level.clone(), ..LogConfig::default() }
}

/// Reads the flag that says how log lines look.
///
/// # Errors
/// What it may be.
pub fn log_format(text: &str) -> Result<LogFormat, String> {
    let known = LogFormat::ALL.iter().copied().find(|format| format.as_str() == text);
    known.ok_or_else(|| "one of auto, json, pretty".to_owned())
}
