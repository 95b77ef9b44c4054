//! From answers to figures.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use api_types::Priority;
use serde::Serialize;

use super::super::DEBUG_BUILD;
use super::super::open_loop::{Answer, Reply};
use super::super::statistics::{float, percentile_us};
use super::super::task::Task;
use crate::args::{AdmitArgs, Classes};

/// What was measured.
#[derive(Debug, Serialize)]
pub(crate) struct Figures {
    settings: Settings,
    /// Latencies of the admitted tasks, class by class.
    classes: Vec<Class>,
    /// Refused tasks by the refusal's code. There should be none: the queue has room for all.
    refused: BTreeMap<&'static str, u64>,
    /// Answers per second, refusals included.
    achieved_per_s: f64,
    /// Microseconds of the orchestrator's processor time per task, its run included.
    cpu_us_per_task: f64,
}

/// What was asked for.
#[derive(Debug, Serialize)]
struct Settings {
    rate: u32,
    seconds: u32,
    priority: Classes,
    /// Whether no task ran.
    waiting: bool,
    connections: u32,
    seed: u64,
    /// Whether this is a debug build, whose figures mean little.
    debug_build: bool,
}

/// The admissions of one class.
#[derive(Debug, Serialize)]
struct Class {
    priority: Priority,
    admitted: u64,
    /// From the time at which the task was to be sent, to the answer.
    scheduled: Latency,
    /// From sending the task to the answer.
    service: Latency,
}

/// Latency in microseconds.
#[derive(Debug, Serialize)]
struct Latency {
    p50_us: f64,
    p90_us: f64,
    p99_us: f64,
    max_us: f64,
}

impl Figures {
    /// From all tasks and their answers, of which the first `warm_up` are not counted, and the processor time of all.
    pub(super) fn new(args: &AdmitArgs, tasks: &[Task], answers: &[Answer], warm_up: u32, cpu: Duration) -> Self {
        let AdmitArgs { rate, seconds, priority, waiting, connections, seed } = *args;
        let counted: Vec<(&Task, &Answer)> = tasks.iter().zip(answers).skip(warm_up as usize).collect();
        let mut refused = BTreeMap::new();
        for (_, answer) in &counted {
            if let Reply::Refused(code) = answer.reply {
                *refused.entry(code.as_str()).or_default() += 1;
            }
        }
        let classes = Priority::ALL.iter().map(|class| Class::new(*class, &counted));
        Self {
            settings: Settings {
                rate,
                seconds,
                priority,
                waiting,
                connections,
                seed,
                debug_build: cfg!(debug_assertions),
            },
            classes: classes.filter(|class| class.admitted > 0).collect(),
            refused,
            achieved_per_s: achieved(&counted, Duration::from_secs(seconds.into())),
            cpu_us_per_task: cpu.as_secs_f64() * 1e6 / float(tasks.len().max(1) as u64),
        }
    }
}

/// Answers per second from the first task's time to the last answer; that takes at least as long as was asked for.
fn achieved(counted: &[(&Task, &Answer)], asked: Duration) -> f64 {
    let first = counted.first().map_or(Duration::ZERO, |(task, _)| task.at);
    let last = counted.iter().map(|(_, answer)| answer.at).max().unwrap_or_default();
    float(counted.len() as u64) / last.saturating_sub(first).max(asked).as_secs_f64()
}

impl Class {
    fn new(priority: Priority, counted: &[(&Task, &Answer)]) -> Self {
        let admitted = counted
            .iter()
            .filter(|(task, answer)| task.priority == priority && matches!(answer.reply, Reply::Admitted { .. }));
        Self {
            priority,
            admitted: admitted.clone().count() as u64,
            scheduled: Latency::new(admitted.clone().map(|(task, answer)| answer.at.saturating_sub(task.at))),
            service: Latency::new(admitted.map(|(_, answer)| answer.service)),
        }
    }
}

impl Latency {
    fn new(times: impl Iterator<Item = Duration>) -> Self {
        let mut times: Vec<Duration> = times.collect();
        times.sort_unstable();
        let at = |share| percentile_us(&times, share);
        Self { p50_us: at(0.5), p90_us: at(0.9), p99_us: at(0.99), max_us: at(1.0) }
    }
}

impl super::super::Outcome for Figures {}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Settings { rate, seconds, connections, debug_build, .. } = self.settings;
        if debug_build {
            writeln!(f, "{DEBUG_BUILD}")?;
        }
        writeln!(f, "{rate} tasks per second for {seconds} s over {connections} connections\n")?;
        writeln!(f, "{:<36}{:>10}{:>10}{:>10}{:>10}", "latency of admissions, µs", "p50", "p90", "p99", "max")?;
        for Class { priority, scheduled, service, .. } in &self.classes {
            for (name, Latency { p50_us, p90_us, p99_us, max_us }) in [("scheduled", scheduled), ("service", service)] {
                let name = format!("{priority}, {name}");
                writeln!(f, "{name:<36}{p50_us:>10.0}{p90_us:>10.0}{p99_us:>10.0}{max_us:>10.0}")?;
            }
        }
        writeln!(f)?;
        for Class { priority, admitted, .. } in &self.classes {
            writeln!(f, "{:<36}{admitted:>10}", format!("{priority} tasks admitted"))?;
        }
        if self.refused.is_empty() {
            writeln!(f, "{:<36}{:>10}", "refused", 0)?;
        }
        for (code, count) in &self.refused {
            writeln!(f, "{:<36}{count:>10}", format!("refused with {code}"))?;
        }
        writeln!(f, "{:<36}{:>10.0}", "achieved, tasks/s", self.achieved_per_s)?;
        writeln!(f, "{:<36}{:>10.1}", "orchestratord CPU, µs per task", self.cpu_us_per_task)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use api_types::ErrorKind;
    use serde_json::json;

    use super::super::draw;
    use super::{AdmitArgs, Answer, Classes, Figures, Reply};

    /// A slow answer counts from the time its task was due, a refusal as a refusal, and the warm-up not at all.
    #[test]
    fn answers_count_from_their_tasks_times() {
        let args =
            AdmitArgs { rate: 100, seconds: 2, priority: Classes::Batch, waiting: false, connections: 1, seed: 1 };
        let tasks = draw(&args);
        let answer = |index: usize| {
            let (late_us, reply) = match index {
                299 => (5_000_000, Reply::Admitted { queue_position: 3 }),
                298 => (7, Reply::Refused(ErrorKind::AdmissionReject)),
                100.. => (500, Reply::Admitted { queue_position: 0 }),
                _ => (9_000_000, Reply::Refused(ErrorKind::Internal)),
            };
            Answer { at: tasks[index].at + Duration::from_micros(late_us), service: Duration::from_micros(300), reply }
        };
        let answers: Vec<Answer> = (0..300).map(answer).collect();
        let figures = Figures::new(&args, &tasks, &answers, 100, Duration::from_millis(30));
        let json = serde_json::to_value(&figures).expect("JSON");
        let latency = |p: f64, max: f64| json!({"p50_us": p, "p90_us": p, "p99_us": p, "max_us": max});
        assert_eq!(
            json["classes"],
            json!([{"priority": "batch", "admitted": 199, "scheduled": latency(500.0, 5e6), "service": latency(300.0, 300.0)}])
        );
        assert_eq!(json["refused"], json!({"ADMISSION_REJECT": 1}));
        assert_eq!(json["achieved_per_s"].as_f64().map(f64::round), Some(29.0));
        assert_eq!(json["cpu_us_per_task"].as_f64().map(f64::round), Some(100.0));
        assert!(figures.to_string().contains("refused with ADMISSION_REJECT"));
    }
}
