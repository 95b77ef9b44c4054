//! What moves on a terminal while something is waited for; all of it on stderr.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// A sign of life before a message.
pub(crate) fn spinner(message: &'static str) -> ProgressBar {
    let bar = ProgressBar::new_spinner().with_style(ProgressStyle::default_spinner());
    bar.set_message(message);
    bar.enable_steady_tick(Duration::from_millis(120));
    bar
}

/// How much is done, before a message.
pub(crate) fn share() -> ProgressStyle {
    ProgressStyle::with_template("{bar:16} {wide_msg}").expect("the template is well-formed")
}
