//! What a container has said and says (LO-CTR-07).

use std::sync::Arc;

use narration_core::{REDACTED, redact};
use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, BufReader};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::error::{ClientError, ContainerError};
use crate::executor::{Pipe, Spawned};
use crate::handle::ContainerHandle;

/// Lines that wait for a slow reader. When there are as many, the client is not read, and waits; the container never does,
/// because its log is a file of the runtime's.
const WAITING: usize = 256;

/// Which part of the log.
#[derive(Clone, Copy, Debug)]
pub struct LogOptions {
    /// Goes on until the container ends.
    pub follow: bool,
    /// Begins with this many of the last lines; with all of them if `None`.
    pub tail: Option<u32>,
    /// Most bytes of a line; longer ones are cut.
    pub line_limit: usize,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self { follow: false, tail: None, line_limit: 16 << 10 }
    }
}

/// Where a container said something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogSource {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// One line, redacted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// Where it was said.
    pub source: LogSource,
    /// Without its line end. What is not UTF-8 is replaced.
    pub text: String,
    /// It was longer than the limit; the rest is lost.
    pub cut: bool,
}

/// The lines of a container's log, in the order of each of its two sources. Dropping it ends the client behind it.
///
/// Nothing is dropped for a slow reader but what the runtime itself throws away: it keeps the last 64 MB.
#[derive(Debug)]
pub struct LogStream {
    lines: mpsc::Receiver<LogLine>,
    readers: JoinSet<()>,
}

impl LogStream {
    /// The next line; `None` when there are no more, because the container ended or all was read. May be dropped without
    /// losing a line.
    pub async fn next(&mut self) -> Option<LogLine> {
        let line = self.lines.recv().await;
        if line.is_none() {
            self.readers.shutdown().await;
        }
        line
    }
}

impl ContainerHandle {
    /// Its log. Must be called within a tokio runtime, whose tasks read it.
    ///
    /// # Errors
    /// When the client cannot be started. What it complains about later, such as that the container is gone, stands in the
    /// stream as a line of standard error.
    pub fn logs(&self, options: LogOptions) -> Result<LogStream, ContainerError> {
        let mut call = self.runtime.command(["logs"]);
        call.args.extend(options.follow.then(|| "--follow".to_owned()));
        call.args.extend(options.tail.map(|lines| format!("--tail={lines}")));
        call.args.push(self.id.clone());
        let spawned = self.runtime.0.executor.spawn(&call);
        let spawned = spawned.map_err(|source| ClientError::start(self.runtime.backend(), source));
        let Spawned { stdout, stderr, exit } = spawned.map_err(|error| self.error("read the log of", error))?;
        let (sender, lines) = mpsc::channel(WAITING);
        let mut readers = JoinSet::new();
        let cleaner = Cleaner { limit: options.line_limit, masked: Arc::clone(&self.masked) };
        readers.spawn(read(stdout, LogSource::Stdout, cleaner.clone(), sender.clone()));
        readers.spawn(read(stderr, LogSource::Stderr, cleaner, sender));
        readers.spawn(async move {
            let _ = exit.await;
        });
        Ok(LogStream { lines, readers })
    }
}

async fn read(pipe: Pipe, source: LogSource, cleaner: Cleaner, lines: mpsc::Sender<LogLine>) {
    let mut reader = BufReader::new(pipe);
    // A pipe that fails has nothing more to say.
    while let Ok(Some((bytes, is_whole))) = line(&mut reader, cleaner.most_read()).await {
        let (text, cut) = cleaner.clean(&bytes);
        if lines.send(LogLine { source, text, cut: cut || !is_whole }).await.is_err() {
            return;
        }
    }
}

/// The next line's first `most` bytes, and whether that is all of it.
async fn line(reader: &mut (impl AsyncBufRead + Unpin), most: usize) -> std::io::Result<Option<(Vec<u8>, bool)>> {
    let (mut kept, mut is_whole, mut is_empty) = (Vec::new(), true, true);
    loop {
        let piece = reader.fill_buf().await?;
        if piece.is_empty() {
            return Ok((!is_empty).then_some((kept, is_whole)));
        }
        is_empty = false;
        let end = piece.iter().position(|byte| *byte == b'\n');
        let text = &piece[..end.unwrap_or(piece.len())];
        let room = most - kept.len();
        is_whole &= text.len() <= room;
        kept.extend_from_slice(&text[..text.len().min(room)]);
        let consumed = end.map_or(piece.len(), |end| end + 1);
        reader.consume(consumed);
        if end.is_some() {
            return Ok(Some((kept, is_whole)));
        }
    }
}

/// Makes lines fit to be seen.
#[derive(Clone, Debug)]
struct Cleaner {
    limit: usize,
    masked: Arc<[String]>,
}

impl Cleaner {
    /// So much is read that a secret across the limit is seen whole before the line is cut.
    fn most_read(&self) -> usize {
        self.limit + self.masked.iter().map(String::len).max().unwrap_or(0)
    }

    /// The line, and whether it was cut.
    fn clean(&self, bytes: &[u8]) -> (String, bool) {
        let mut text = String::from_utf8_lossy(bytes).trim_end_matches('\r').to_owned();
        for secret in self.masked.iter().filter(|secret| text.contains(secret.as_str())).collect::<Vec<_>>() {
            text = text.replace(secret.as_str(), REDACTED);
        }
        let mut text = redact(&text).into_owned();
        let end = text.floor_char_boundary(self.limit);
        let is_cut = end < text.len();
        text.truncate(end);
        (text, is_cut)
    }
}

#[cfg(test)]
mod tests {
    use super::{Cleaner, line};
    use proptest::prelude::*;
    use tokio::io::BufReader;

    fn lines(text: &[u8], most: usize, buffer: usize) -> Vec<(String, bool)> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(async {
            let mut reader = BufReader::with_capacity(buffer, text);
            let mut found = Vec::new();
            while let Some((bytes, is_whole)) = line(&mut reader, most).await.expect("memory can be read") {
                found.push((String::from_utf8_lossy(&bytes).into_owned(), is_whole));
            }
            found
        })
    }

    proptest! {
        /// LO-CTR-07: lines come whole and in order however they arrive, and none is longer than the limit.
        #[test]
        fn lines_are_bounded(said in prop::collection::vec("[a-z]{0,12}", 0..8), most in 1..10usize, buffer in 1..20usize) {
            let text: String = said.iter().map(|line| format!("{line}\n")).collect();
            let expected: Vec<_> =
                said.iter().map(|line| (line[..line.len().min(most)].to_owned(), line.len() <= most)).collect();
            prop_assert_eq!(lines(text.as_bytes(), most, buffer), expected);
        }
    }

    /// The last line may have no end.
    #[test]
    fn an_unfinished_line_is_one() {
        assert_eq!(lines(b"a\nb", 9, 4), [("a".to_owned(), true), ("b".to_owned(), true)]);
        assert_eq!(lines(b"", 9, 4), []);
        assert_eq!(lines(b"\n", 9, 4), [(String::new(), true)]);
    }

    /// LO-CTR-07: the values of variables are masked, also across the limit; so is what looks like a secret.
    #[test]
    fn secrets_are_masked() {
        let cleaner = Cleaner { limit: 20, masked: ["correct-horse".to_owned()].into() };
        assert_eq!(cleaner.clean(b"has correct-horse"), ("has [redacted]".to_owned(), false));
        let across = b"0123456789012 correct-horse";
        assert!(across.len() <= cleaner.most_read());
        assert_eq!(cleaner.clean(across), ("0123456789012 [redac".to_owned(), true));
        assert_eq!(cleaner.clean(b"Bearer abcdef\r"), ("Bearer [redacted]".to_owned(), false));
        assert_eq!(cleaner.clean("ééééééééééé".as_bytes()), ("éééééééééé".to_owned(), true));
    }
}
