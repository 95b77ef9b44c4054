//! How values look to people: durations, bytes, tables.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use openapi_client::Budgets;

/// `84 ms`, `2.1 s`, `3 min 20 s`, `2 h 5 min`.
pub(crate) fn duration(time: Duration) -> String {
    let seconds = time.as_secs();
    match time.as_millis() {
        ms @ 0..1000 => format!("{ms} ms"),
        1000..60_000 => format!("{:.1} s", time.as_secs_f64()),
        60_000..3_600_000 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
    }
}

/// The same for milliseconds as the wire has them; less than none is none.
pub(crate) fn millis(ms: i64) -> String {
    duration(Duration::from_millis(ms.max(0).unsigned_abs()))
}

/// Time since a moment given in milliseconds since the Unix epoch.
pub(crate) fn since(epoch_ms: i64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    duration(now.saturating_sub(Duration::from_millis(epoch_ms.max(0).unsigned_abs())))
}

/// Time until such a moment; none when it has passed.
pub(crate) fn until(epoch_ms: i64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    duration(Duration::from_millis(epoch_ms.max(0).unsigned_abs()).saturating_sub(now))
}

/// `11.9 GiB`.
pub(crate) fn bytes(count: i64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = approximate(count.max(0));
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{count} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

/// A count as a fraction can be computed from.
#[expect(clippy::cast_precision_loss, reason = "what is shown has a few digits")]
pub(crate) fn approximate(count: i64) -> f64 {
    count as f64
}

/// A cost without the digits that come of computing with fractions: `12.5`, `0.0003`.
fn cost(cost: f64) -> String {
    let text = format!("{cost:.6}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Names and values of the budgets that are configured.
pub(crate) fn budgets(budgets: Budgets) -> impl Iterator<Item = (&'static str, String)> {
    let all = [
        ("tokens left", budgets.tokens.map(|tokens| tokens.to_string())),
        ("time left", budgets.time_ms.map(millis)),
        ("cost left", budgets.cost.map(cost)),
    ];
    all.into_iter().filter_map(|(name, value)| Some((name, value?)))
}

/// A value that may be missing.
pub(crate) fn or_dash(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

/// Rows under headings, in columns as wide as their widest cell.
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// An empty table.
    pub(crate) fn new(headings: &[&str]) -> Self {
        Self { rows: vec![headings.iter().map(|heading| (*heading).to_owned()).collect()] }
    }

    /// Adds a row; it has as many cells as there are headings.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// The text, or `nothing` in place of a table without rows.
    pub(crate) fn render(&self, nothing: &str) -> String {
        if self.rows.len() == 1 {
            return format!("{nothing}\n");
        }
        let columns = self.rows[0].len();
        let widths: Vec<usize> = (0..columns)
            .map(|column| self.rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default())
            .collect();
        let mut text = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                let _ = write!(line, "{cell:width$}  ");
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// Names and values, one per line.
pub(crate) fn facts(pairs: &[(&str, String)]) -> String {
    let width = pairs.iter().map(|(name, _)| name.len()).max().unwrap_or_default() + 1;
    pairs.iter().fold(String::new(), |mut text, (name, value)| {
        let _ = writeln!(text, "{:width$}  {value}", format!("{name}:"));
        text
    })
}

#[cfg(test)]
mod tests {
    use super::{Table, bytes, cost, millis};

    #[test]
    fn values_read_well() {
        assert_eq!(
            [84, 2149, 200_000, 7_500_000, -5].map(millis),
            ["84 ms", "2.1 s", "3 min 20 s", "2 h 5 min", "0 ms"]
        );
        assert_eq!([12.5, 0.1 + 0.2, 100.0, 0.0].map(cost), ["12.5", "0.3", "100", "0"]);
        assert_eq!([512, 25_757_220_864].map(bytes), ["512 B", "24.0 GiB"]);
    }

    #[test]
    fn columns_line_up_without_trailing_space() {
        let mut table = Table::new(&["POOL", "STATE"]);
        assert_eq!(table.render("no pools"), "no pools\n");
        table.row(["gpu0".to_owned(), "ready".to_owned()]);
        table.row(["a-longer-one".to_owned(), "-".to_owned()]);
        assert_eq!(table.render(""), "POOL          STATE\ngpu0          ready\na-longer-one  -\n");
    }
}
