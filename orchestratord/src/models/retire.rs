//! What becomes of pools and tasks when the deadline of a retirement passes (LO-CAT-16).

use std::sync::Arc;
use std::time::Duration;

use api_types::ModelId;

use super::Barred;
use crate::app::App;
use crate::narrate;

/// Longest time until deadlines are looked at again, whatever happens to the wall clock meanwhile.
const LONGEST: Duration = Duration::from_secs(60);

/// Ends the tasks of retired models when their time is up, for ever.
pub async fn watch(app: &Arc<App>) {
    loop {
        let changed = app.models.retirements.notified();
        tokio::pin!(changed);
        // Listening comes before looking, or a change could fall between the two.
        changed.as_mut().enable();
        let now_ms = app.unix_now_ms();
        let retiring = app.models.retiring();
        for (model, _) in retiring.iter().filter(|(_, until_ms)| *until_ms <= now_ms) {
            app.end_tasks_of(model);
        }
        let next = retiring.iter().map(|(_, until_ms)| until_ms - now_ms).filter(|left_ms| *left_ms > 0).min();
        let wait = next.map_or(LONGEST, |left_ms| Duration::from_millis(left_ms.unsigned_abs()).min(LONGEST));
        tokio::select! {
            () = changed => {}
            () = tokio::time::sleep(wait) => {}
        }
    }
}

impl App {
    /// Ends whatever waits or runs on pools that serve a model.
    fn end_tasks_of(self: &Arc<Self>, model: &ModelId) {
        let serving = |task: &&Arc<crate::task::Task>| self.pools.scheduled(&task.pool_id()).served().id == *model;
        let living = self.tasks.living();
        let left: Vec<_> = living.iter().filter(serving).collect();
        if left.is_empty() {
            return;
        }
        narrate::retired(model, left.len());
        let refusal = Barred::Retired { until_ms: None }.refusal(model);
        self.fail_all(left, &refusal);
        self.dispatch();
    }
}
