//! When a waiting task starts.

/// What stands between a task and a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Slots without a task.
    pub free_slots: u64,
    /// Tasks that start before it.
    pub tasks_ahead: u64,
    /// How long one of those takes on average, in milliseconds.
    pub mean_service_ms: u64,
}

/// Time until the task starts, in milliseconds: the tasks ahead take slots as they fall free, each for the average
/// duration. `running_ms` holds what is left of each running task.
///
/// The tasks ahead start at fixed times, `remainder + k × mean` on each slot, so the answer is the smallest time at which
/// more slots have fallen free than tasks stand ahead. It is found by bisection: O(slots × log time), however long the
/// queue is. Interactive tasks that arrive later and overtake are not foreseen.
#[must_use]
pub fn predict_start_ms(waiting: Waiting, running_ms: &(impl Iterator<Item = u64> + Clone)) -> u64 {
    let slots = waiting.free_slots.saturating_add(running_ms.clone().count() as u64);
    if slots == 0 || waiting.free_slots > waiting.tasks_ahead {
        // Without any slot there is nothing to compute with: all tasks ahead, one after the other.
        let alone = waiting.tasks_ahead.saturating_mul(waiting.mean_service_ms);
        return if slots == 0 { alone } else { 0 };
    }
    let starts_until = |time: u64| -> u64 {
        let on_slot = |free_at: u64| match (time.checked_sub(free_at), waiting.mean_service_ms) {
            (None, _) => 0,
            (Some(_), 0) => u64::MAX,
            (Some(span), mean) => span / mean + 1,
        };
        let free = on_slot(0).saturating_mul(waiting.free_slots);
        running_ms.clone().fold(free, |sum, remainder| sum.saturating_add(on_slot(remainder)))
    };
    // By then even one slot alone has worked off everything.
    let longest = running_ms.clone().max().unwrap_or(0);
    let mut latest = longest.saturating_add(waiting.tasks_ahead.saturating_mul(waiting.mean_service_ms));
    let mut earliest = 0;
    while earliest < latest {
        let middle = earliest + (latest - earliest) / 2;
        if starts_until(middle) > waiting.tasks_ahead {
            latest = middle;
        } else {
            earliest = middle + 1;
        }
    }
    earliest
}
