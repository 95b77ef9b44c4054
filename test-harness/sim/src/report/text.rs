//! The report for people.

use std::fmt::{self, Formatter};

use super::{Class, Decile, Next, Pool, Report, StartErrors};

impl fmt::Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: {}", self.scenario, self.shows)?;
        let hours = self.simulated_ms as f64 / 3.6e6;
        writeln!(
            f,
            "  seed {}, {} tasks, {hours:.1} h in {} events with every promise kept; story {}",
            self.seed, self.tasks, self.events, self.story
        )?;
        self.write_ends(f)?;
        write!(f, "  throughput  {:.3} tasks/s, {:.1} tokens/s", self.tasks_per_s, self.tokens_per_s)?;
        if let Some(share) = self.share_of_ideal {
            write!(f, ", {:.1} % of the ideal", share * 100.0)?;
        }
        writeln!(f)?;
        self.write_classes(f)?;
        self.write_pools(f)?;
        self.write_starts(f)?;
        write_deciles(f, "on time, at admission", &self.on_time)?;
        write_deciles(f, "on time, at start", &self.on_time_at_start)?;
        self.swap.as_ref().map_or(Ok(()), |swap| write!(f, "{swap}"))
    }
}

impl Report {
    fn write_ends(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let ends = &self.ends;
        let counts = [
            ("completed", ends.completed),
            ("failed", ends.failed),
            ("lost twice", ends.lost_twice),
            ("canceled", ends.canceled),
            ("expired", ends.expired),
            ("evicted", ends.evicted),
            ("turned out", ends.turned_out),
            ("gave up", ends.gave_up),
        ];
        write_counts(f, "ends", counts)?;
        write_counts(f, "refusals", self.refusals.iter().map(|(name, count)| (name.as_str(), *count)))?;
        let moves = [("to an idle pool", self.moves.idle), ("closed", self.moves.closed), ("lost", self.moves.lost)];
        write_counts(f, "moves", moves)?;
        write_counts(f, "retried", [("tasks", self.retried)])
    }

    fn write_classes(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "  {:<12}{:>8}{:>10}", "class", "tasks", "completed")?;
        for title in ["wait p50", "p90", "p99", "max", "max/mean", "end p50", "p99", "Jain"] {
            write!(f, "{title:>10}")?;
        }
        writeln!(f)?;
        for Class { class, submitted, completed, wait, turnaround, max_over_mean, jain, .. } in &self.classes {
            write!(f, "  {:<12}{submitted:>8}{:>8.1} %", class.as_str(), completed * 100.0)?;
            [wait.p50, wait.p90, wait.p99, wait.max].iter().try_for_each(|ms| write!(f, "{:>8.1} s", ms / 1e3))?;
            write!(f, "{max_over_mean:>10.1}")?;
            [turnaround.p50, turnaround.p99].iter().try_for_each(|ms| write!(f, "{:>8.1} s", ms / 1e3))?;
            writeln!(f, "{jain:>10.3}")?;
        }
        for Class { class, next, .. } in &self.classes {
            if let Some(Next { tasks, wait_over_remainder_p99: share }) = next {
                writeln!(
                    f,
                    "  {class} tasks that were next waited {share:.3} of a running task's remainder (p99 of {tasks})"
                )?;
            }
        }
        Ok(())
    }

    fn write_pools(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "  {:<12}{:>8}{:>10}{:>10}{:>12}", "pool", "slots", "busy", "starts", "tokens/s")?;
        for Pool { id, slots, utilisation, share, tokens_per_s } in &self.pools {
            let (busy, starts) = (utilisation * 100.0, share * 100.0);
            writeln!(f, "  {id:<12}{slots:>8}{busy:>8.1} %{starts:>8.1} %{tokens_per_s:>12.1}")?;
        }
        Ok(())
    }

    fn write_starts(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if self.starts.tasks == 0 {
            return Ok(());
        }
        writeln!(
            f,
            "  {:<24}{:>8}{:>12}{:>10}{:>12}{:>18}",
            "predicted start, ahead", "tasks", "median off", "p90", "informed", "predicted/actual"
        )?;
        let rows = std::iter::once(&("all", self.starts)).chain(&self.starts_by_depth).copied().collect::<Vec<_>>();
        for (ahead, StartErrors { tasks, median, p90, bias, informed }) in rows {
            if tasks > 0 {
                let (median, p90, informed) = (median * 100.0, p90 * 100.0, informed * 100.0);
                writeln!(f, "  {ahead:<24}{tasks:>8}{median:>10.1} %{p90:>8.1} %{informed:>10.1} %{bias:>18.2}")?;
            }
        }
        Ok(())
    }
}

/// Those that are not 0, on one line; nothing when all are.
fn write_counts<'a, N: fmt::Display + Default + PartialEq>(
    f: &mut Formatter<'_>,
    title: &str,
    counts: impl IntoIterator<Item = (&'a str, N)>,
) -> fmt::Result {
    let shown: Vec<String> = counts
        .into_iter()
        .filter(|(_, count)| *count != N::default())
        .map(|(name, count)| format!("{count} {name}"))
        .collect();
    if shown.is_empty() { Ok(()) } else { writeln!(f, "  {title:<12}{}", shown.join(", ")) }
}

fn write_deciles(f: &mut Formatter<'_>, title: &str, deciles: &[Decile]) -> fmt::Result {
    // Where there are no deadlines to miss there is nothing to see.
    if deciles.iter().all(|decile| decile.observed == 1.0) {
        return Ok(());
    }
    let mut row = |name: &str, cell: fn(&Decile) -> String| {
        write!(f, "  {name:<24}")?;
        deciles.iter().try_for_each(|decile| write!(f, "{:>8}", cell(decile)))?;
        writeln!(f)
    };
    row(title, |decile| format!("{:.1}-", decile.decile as f64 / 10.0))?;
    row("  tasks", |decile| decile.tasks.to_string())?;
    row("  predicted", |decile| format!("{:.3}", decile.predicted))?;
    row("  observed", |decile| format!("{:.3}", decile.observed))
}
