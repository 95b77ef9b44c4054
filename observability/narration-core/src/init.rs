//! Sets the log up, once per process.

use std::fs::OpenOptions;
use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::thread::JoinHandle;

use tracing_subscriber::filter::{ParseError, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};
use tracing_subscriber::{Layer, Registry};

use crate::layer::{LineLayer, Style};
use crate::sink::{Limits, Sink};

/// How lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// [`Format::Pretty`] on a terminal, [`Format::Json`] otherwise.
    #[default]
    Auto,
    /// One flat JSON object a line.
    Json,
    /// For people: the sentence first.
    Pretty,
}

/// Where lines go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Output {
    /// Standard error.
    #[default]
    Stderr,
    /// The end of a file.
    File(PathBuf),
}

/// What the log should be like.
#[derive(Clone, Debug)]
pub struct LogConfig {
    /// How lines look.
    pub format: Format,
    /// What is logged unless `RUST_LOG` says otherwise: a level, or `module=level` pairs with commas between.
    pub filter: String,
    /// Where lines go.
    pub output: Output,
    /// How much may wait.
    pub limits: Limits,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { format: Format::Auto, filter: "info".to_owned(), output: Output::Stderr, limits: Limits::default() }
    }
}

/// Why the log could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// The filter is not one.
    #[error("the log filter `{text}` is not a level or a list such as `warn,orchestratord=debug`")]
    Filter {
        /// The text, from `RUST_LOG` or the configuration.
        text: String,
        /// Why.
        source: ParseError,
    },
    /// The output cannot be opened, or its thread not started.
    #[error("could not open the log's output")]
    Output(#[source] std::io::Error),
    /// The process has a log already.
    #[error("the log is set up already")]
    Already(#[source] TryInitError),
}

/// Keeps the log alive. Dropping it writes what waits and ends the log; keep it to the end of `main`, and call
/// [`Guard::flush`] before `std::process::exit`.
#[derive(Debug)]
#[must_use = "the log ends when this is dropped"]
pub struct Guard {
    sink: Sink,
    thread: Option<JoinHandle<()>>,
}

impl Guard {
    /// Returns when everything logged so far has been handed to the output.
    pub fn flush(&self) {
        self.sink.flush();
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.sink.close();
        if let Some(thread) = self.thread.take() {
            // A writer that panicked has nothing more to write.
            let _ = thread.join();
        }
    }
}

/// Sets up the log of this process.
///
/// # Errors
/// [`InitError`]: a bad filter, an output that cannot be opened, or a second call.
pub fn init(config: &LogConfig) -> Result<Guard, InitError> {
    let filter = filter(std::env::var("RUST_LOG").ok().as_deref(), &config.filter)?;
    let (output, terminal): (Box<dyn Write + Send>, bool) = match &config.output {
        Output::Stderr => (Box::new(std::io::stderr()), std::io::stderr().is_terminal()),
        Output::File(path) => {
            (Box::new(OpenOptions::new().create(true).append(true).open(path).map_err(InitError::Output)?), false)
        }
    };
    let (sink, thread) = Sink::start(output, config.limits).map_err(InitError::Output)?;
    let guard = Guard { sink: sink.clone(), thread: Some(thread) };
    let layer = LineLayer::new(style(config.format, terminal), sink);
    Registry::default().with(layer.with_filter(filter)).try_init().map_err(InitError::Already)?;
    Ok(guard)
}

fn style(format: Format, terminal: bool) -> Style {
    match (format, terminal) {
        (Format::Json, _) | (Format::Auto, false) => Style::Json,
        (Format::Pretty, _) | (Format::Auto, true) => Style::Pretty { colour: terminal },
    }
}

/// `RUST_LOG` unless it is unset or empty, else the configured filter.
fn filter(environment: Option<&str>, configured: &str) -> Result<Targets, InitError> {
    let text = environment.filter(|text| !text.is_empty()).unwrap_or(configured);
    text.parse().map_err(|source| InitError::Filter { text: text.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::{Format, Style, filter, style};
    use tracing::Level;

    /// ORCH-3303, HME-030: JSON unless a person is watching or asked otherwise.
    #[test]
    fn json_is_the_default_off_a_terminal() {
        assert_eq!(style(Format::Auto, false), Style::Json);
        assert_eq!(style(Format::Auto, true), Style::Pretty { colour: true });
        assert_eq!(style(Format::Json, true), Style::Json);
        assert_eq!(style(Format::Pretty, false), Style::Pretty { colour: false });
    }

    /// LO-CFG-10: RUST_LOG wins over the file.
    #[test]
    fn the_environment_wins() {
        let enabled = |environment, configured: &str| {
            filter(environment, configured).expect("a filter").would_enable("orchestratord", &Level::DEBUG)
        };
        assert!(enabled(Some("warn,orchestratord=debug"), "info"));
        assert!(!enabled(None, "info"));
        assert!(enabled(Some(""), "debug"));
        assert!(filter(Some("orchestratord=loud"), "info").is_err());
    }
}
