//! What is going on and for how long: a spinner on a terminal, plain lines anywhere else.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// One step under way. Dropped without [`Progress::done`] it leaves its line as it is: the error that follows explains.
pub(crate) struct Progress {
    what: String,
    started: Instant,
    spinner: Option<ProgressBar>,
}

impl Progress {
    /// Announces a step, in the form "installing …".
    pub(crate) fn start(what: impl Into<String>) -> Self {
        let what = what.into();
        let spinner = std::io::stderr().is_terminal().then(|| spinner(&what));
        if spinner.is_none() {
            eprintln!("{what} …");
        }
        Self { what, started: Instant::now(), spinner }
    }

    /// Closes the step and says how long it took.
    pub(crate) fn done(mut self) {
        let line = format!("{}: {}", self.what, seconds(self.started.elapsed()));
        match self.spinner.take() {
            Some(spinner) => {
                spinner.finish_and_clear();
                eprintln!("✓ {line}");
            }
            None => eprintln!("{line}"),
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(spinner) = self.spinner.take() {
            spinner.abandon();
        }
    }
}

fn spinner(what: &str) -> ProgressBar {
    let style = ProgressStyle::with_template("{spinner} {msg} … {elapsed}").expect("the template is a constant");
    let spinner = ProgressBar::new_spinner().with_style(style).with_message(what.to_owned());
    spinner.enable_steady_tick(Duration::from_millis(100));
    spinner
}

/// A duration for people: `3.2 s`.
pub(crate) fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}
