//! How pools are shown while they are waited for: to scripts one object per change, on a terminal a moving line each, else a line
//! at every change.

use std::collections::BTreeMap;
use std::io::IsTerminal as _;

use api_types::{PoolState, PoolStatus, ReloadState};
use indicatif::{MultiProgress, ProgressBar};
use openapi_client::FeedFrame;

use super::{reason, state};
use crate::failure::Failure;
use crate::show::millis;
use crate::{output, progress};

/// Where it is shown.
pub(crate) struct Board {
    place: Place,
    /// What was shown last of each pool.
    last: BTreeMap<String, Moment>,
}

enum Place {
    Json,
    Bars(MultiProgress, BTreeMap<String, ProgressBar>),
    Lines,
}

/// What is worth telling of a pool, so that it is told once.
#[derive(Clone, Debug, PartialEq)]
struct Moment {
    state: Option<PoolState>,
    ready: bool,
    activity: Option<String>,
    tenth: Option<u8>,
    error: Option<String>,
    reload: Option<ReloadState>,
}

impl Board {
    pub(crate) fn new(json: bool) -> Self {
        let place = match (json, std::io::stderr().is_terminal()) {
            (true, _) => Place::Json,
            (false, true) => Place::Bars(MultiProgress::new(), BTreeMap::new()),
            (false, false) => Place::Lines,
        };
        Self { place, last: BTreeMap::new() }
    }

    /// Shows how a pool stands, if that is news.
    pub(crate) fn show(&mut self, pool: &PoolStatus) -> Result<(), Failure> {
        let moment = Moment::of(pool);
        let is_news = self.last.get(&pool.id) != Some(&moment);
        match &mut self.place {
            Place::Json if is_news => output::json_line(&FeedFrame::Pool(Box::new(pool.clone())))?,
            Place::Lines if is_news => eprintln!("llama-orch: {}: {}", pool.id, sentence(pool)),
            Place::Bars(all, bars) => {
                let bar = bars.entry(pool.id.clone()).or_insert_with(|| all.add(progress::spinner("asking")));
                draw(bar, pool);
            }
            Place::Json | Place::Lines => {}
        }
        self.last.insert(pool.id.clone(), moment);
        Ok(())
    }

    /// Leaves the terminal to what follows.
    pub(crate) fn finish(&self) {
        if let Place::Bars(_, bars) = &self.place {
            bars.values().for_each(ProgressBar::finish_and_clear);
        }
    }
}

fn draw(bar: &ProgressBar, pool: &PoolStatus) {
    match (pool.health.progress.and_then(percent), bar.length()) {
        (Some(percent), _) => {
            bar.set_style(progress::share());
            bar.set_length(100);
            bar.set_position(u64::from(percent));
        }
        (None, Some(_)) => {
            bar.unset_length();
            bar.set_style(indicatif::ProgressStyle::default_spinner());
        }
        (None, None) => {}
    }
    bar.set_message(format!("{}: {}", pool.id, sentence(pool)));
}

impl Moment {
    fn of(pool: &PoolStatus) -> Self {
        let health = &pool.health;
        Self {
            state: health.state,
            ready: health.ready,
            activity: health.activity.clone(),
            tenth: health.progress.and_then(percent).map(|percent| percent / 10),
            error: health.last_error.clone(),
            reload: health.reload.as_ref().map(|reload| reload.state),
        }
    }
}

/// How a pool stands, in a line: `preparing, fetching the model (40 %)`.
pub(crate) fn sentence(pool: &PoolStatus) -> String {
    let health = &pool.health;
    let mut text = state(health).to_owned();
    if let Some(activity) = &health.activity {
        text.push_str(&format!(", {activity}"));
    }
    if let Some(percent) = health.progress.and_then(percent) {
        text.push_str(&format!(" ({percent} %)"));
    }
    if health.ready {
        text.push_str(&format!(", serves {}", pool.model));
    }
    if let Some(wait) = health.next_attempt_ms {
        text.push_str(&format!(", tried again in {}", millis(wait)));
    }
    match reason(health) {
        Some(reason) if !health.ready => format!("{text}: {reason}"),
        _ => text,
    }
}

/// The same in a word or two.
pub(in crate::commands) fn state_of(pool: &PoolStatus) -> &'static str {
    state(&pool.health)
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is between 0 and 100")]
fn percent(share: f64) -> Option<u8> {
    share.is_finite().then(|| (share.clamp(0.0, 1.0) * 100.0) as u8)
}
