//! The table, for people: `cargo nextest run -p orchestratord matrix --no-capture`.

/// What came of a row.
pub(super) struct Line {
    pub(super) provoked: &'static str,
    pub(super) state: String,
    pub(super) fault: String,
    pub(super) error: String,
    pub(super) returns: String,
    pub(super) left: usize,
}

/// Longest text of a cell.
const WIDEST: usize = 110;

pub(super) fn print(lines: &[Line]) {
    let head = ["provoked", "state", "fault", "last error", "comes back", "left over"].map(ToOwned::to_owned);
    let rows = lines.iter().map(|line| {
        let left = if line.left == 0 { "nothing".to_owned() } else { line.left.to_string() };
        let error = shortened(&line.error);
        [line.provoked.to_owned(), line.state.clone(), line.fault.clone(), error, line.returns.clone(), left]
    });
    let table: Vec<_> = std::iter::once(head).chain(rows).collect();
    let widths: [usize; 6] =
        std::array::from_fn(|column| table.iter().map(|row| row[column].chars().count()).max().unwrap_or(0));
    for row in table {
        let cells: Vec<_> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        println!("| {} |", cells.join(" | "));
    }
}

/// Without what differs from one run to the next, and not too long.
fn shortened(error: &str) -> String {
    let words = error.split(' ').map(|word| match word.rsplit_once('/') {
        Some((folder, name)) if folder.contains("/tmp") || folder.contains("file:") => format!("…/{name}"),
        _ => word.to_owned(),
    });
    let text = words.collect::<Vec<_>>().join(" ").replace('\n', " ");
    if text.chars().count() <= WIDEST { text } else { text.chars().take(WIDEST - 1).chain(['…']).collect() }
}
