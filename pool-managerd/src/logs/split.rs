//! Bytes of a pipe into lines.

use std::time::{Duration, Instant};

use memchr::memchr2;

/// Longest line that is kept whole, in bytes.
pub(super) const LONGEST: usize = 16 * 1024;

/// Gap between two states of a progress bar that are kept.
const PROGRESS_GAP: Duration = Duration::from_secs(1);

/// What a splitter finds.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// A line.
    Line(String),
    /// A state of a progress bar which is soon overwritten, and not kept.
    Passing,
}

/// Cuts a stream into lines. A carriage return ends a state of a progress bar: of these, one a second is kept, and the last one.
#[derive(Debug, Default)]
pub(super) struct Splitter {
    line: Vec<u8>,
    /// Bytes of this line beyond the longest.
    cut: usize,
    /// What a carriage return has ended, not yet overwritten and not handed out.
    held: Option<String>,
    /// The last byte was a carriage return.
    returned: bool,
    shown: Option<Instant>,
}

impl Splitter {
    /// Takes more of the stream, read at `now`.
    pub(super) fn push(&mut self, mut bytes: &[u8], now: Instant, found: &mut impl FnMut(Piece)) {
        while let Some(end) = memchr2(b'\n', b'\r', bytes) {
            self.extend(&bytes[..end]);
            if bytes[end] == b'\n' {
                self.end_line(found);
            } else {
                self.end_state(now, found);
            }
            bytes = &bytes[end + 1..];
        }
        self.extend(bytes);
    }

    /// The stream has ended, perhaps within a line.
    pub(super) fn finish(&mut self, found: &mut impl FnMut(Piece)) {
        if !self.line.is_empty() || self.held.is_some() {
            self.end_line(found);
        }
    }

    fn extend(&mut self, bytes: &[u8]) {
        let room = LONGEST - self.line.len();
        let kept = bytes.len().min(room);
        self.line.extend_from_slice(&bytes[..kept]);
        self.cut += bytes.len() - kept;
        self.returned &= bytes.is_empty();
    }

    fn end_line(&mut self, found: &mut impl FnMut(Piece)) {
        let held = self.held.take();
        // A line that ends with both characters was met at the first.
        if self.returned && self.line.is_empty() {
            if let Some(text) = held {
                found(Piece::Line(text));
            }
        } else {
            found(Piece::Line(self.take()));
        }
        self.returned = false;
    }

    fn end_state(&mut self, now: Instant, found: &mut impl FnMut(Piece)) {
        self.returned = true;
        if self.line.is_empty() {
            return;
        }
        let text = self.take();
        if self.shown.is_some_and(|shown| now.saturating_duration_since(shown) < PROGRESS_GAP) {
            self.held = Some(text);
            found(Piece::Passing);
        } else {
            self.held = None;
            self.shown = Some(now);
            found(Piece::Line(text));
        }
    }

    fn take(&mut self) -> String {
        let mut text = String::from_utf8_lossy(&self.line).into_owned();
        if self.cut > 0 {
            // The cut may have gone through a character.
            let whole = text.trim_end_matches(char::REPLACEMENT_CHARACTER).len();
            text.truncate(whole);
            text.push_str(&format!(" [and {} bytes more]", self.cut));
        }
        self.line.clear();
        self.cut = 0;
        text
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use proptest::prelude::*;

    use super::{LONGEST, Piece, Splitter};

    fn lines(chunks: &[&[u8]], gap: Duration) -> Vec<String> {
        let start = Instant::now();
        let mut lines = Vec::new();
        let mut splitter = Splitter::default();
        let mut found = |piece| {
            if let Piece::Line(text) = piece {
                lines.push(text);
            }
        };
        for (index, chunk) in (0..).zip(chunks) {
            splitter.push(chunk, start + gap * index, &mut found);
        }
        splitter.finish(&mut found);
        lines
    }

    #[test]
    fn both_kinds_of_line_ends() {
        let check = |chunks: &[&[u8]], expected: &[&str]| assert_eq!(lines(chunks, Duration::ZERO), expected);
        check(&[b"a\nb\n"], &["a", "b"]);
        check(&[b"a", b"b\n\nc"], &["ab", "", "c"]);
        check(&[b"a\r\nb\r\nc\r\n"], &["a", "b", "c"]);
        check(&[b"a\r", b"\nb\r", b"\n"], &["a", "b"]);
        check(&[b"\xff\xfe\n"], &["\u{fffd}\u{fffd}"]);
    }

    /// LO-POOL-05: a progress bar costs a line a second, not one for each of its states, and its last state is kept.
    #[test]
    fn progress_bars_are_thinned() {
        let bar: Vec<String> = (0..=100).map(|percent| format!("\r{percent}%")).collect();
        let mut chunks: Vec<&[u8]> = bar.iter().map(String::as_bytes).collect();
        chunks.push(b"\ndone\n");
        assert_eq!(lines(&chunks, Duration::ZERO), ["0%", "100%", "done"]);
        assert_eq!(lines(&chunks, Duration::from_millis(500)).len(), 51 + 1);
        assert_eq!(lines(&[b"1%\r2%\r3%\r"], Duration::ZERO), ["1%", "3%"]);
    }

    /// LO-POOL-05: no line costs more memory than the longest that is kept.
    #[test]
    fn long_lines_are_cut() {
        let long = "é".repeat(LONGEST);
        let lines = lines(&[b"x", long.as_bytes(), b"\nnext\n"], Duration::ZERO);
        assert_eq!(lines[1], "next");
        let (kept, told) = lines[0].split_once(" [and ").expect("it says so");
        assert_eq!(kept, format!("x{}", "é".repeat((LONGEST - 1) / 2)));
        assert_eq!(told, format!("{} bytes more]", 1 + 2 * LONGEST - LONGEST));
    }

    proptest! {
        /// LO-POOL-05: lines are the same however the pipe deals them out.
        #[test]
        fn chunks_do_not_matter(text in "[ab\r\n]{0,40}", cuts in prop::collection::vec(0_usize..40, 0..5)) {
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let chunks: Vec<&[u8]> = cuts.windows(2).map(|cut| &text.as_bytes()[cut[0]..cut[1]]).collect();
            prop_assert_eq!(lines(&chunks, Duration::ZERO), lines(&[text.as_bytes()], Duration::ZERO));
        }
    }
}
