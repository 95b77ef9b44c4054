//! The thread that writes.

use std::io::{self, Write as _};
use std::sync::{Arc, PoisonError};

use super::file::LogFile;
use super::{LogLine, Order, Shared, Source, State};

/// Orders taken at once.
const BATCH: usize = 1024;

/// Writes until the log is dropped.
pub(super) fn run(shared: &Arc<Shared>, file: LogFile) {
    let mut writer = Writer { file, pending: Vec::new(), pending_lines: 0, lost: None };
    while let Some(orders) = next(shared) {
        for order in orders {
            writer.carry_out(order);
        }
        writer.flush();
    }
    shared.state().writer_ended = true;
    shared.taken.notify_all();
}

/// Waits for orders; `None` when there will be no more.
fn next(shared: &Shared) -> Option<Vec<Order>> {
    let is_idle = |state: &mut State| state.queue.is_empty() && !state.closed;
    let mut state = shared.work.wait_while(shared.state(), is_idle).unwrap_or_else(PoisonError::into_inner);
    let count = state.queue.len().min(BATCH);
    let orders: Vec<Order> = state.queue.drain(..count).collect();
    // What found no room is told even if no line follows.
    let told = if state.queue.is_empty() { std::mem::take(&mut state.unwritten) } else { 0 };
    drop(state);
    shared.taken.notify_all();
    let orders: Vec<Order> = orders.into_iter().chain((told > 0).then_some(Order::Skipped(told))).collect();
    (!orders.is_empty()).then_some(orders)
}

struct Writer {
    file: LogFile,
    pending: Vec<u8>,
    pending_lines: u64,
    /// Lines that could not be written since the last that could, and why.
    lost: Option<(u64, io::Error)>,
}

impl Writer {
    fn carry_out(&mut self, order: Order) {
        match order {
            Order::Write(line) => self.add(&line),
            Order::Skipped(count) => self.add(&note(&format!("{count} lines were not written: the disk is too slow"))),
            Order::Read(count, reply) => {
                self.flush();
                // Its asker may have gone.
                let _unread = reply.send(self.file.last_lines(count));
            }
        }
    }

    fn add(&mut self, line: &LogLine) {
        let start = self.pending.len();
        writeln!(self.pending, "{line}").expect("memory takes what is written to it");
        self.pending_lines += 1;
        if self.pending.len() as u64 > self.file.room() {
            let line = self.pending.split_off(start);
            self.pending_lines -= 1;
            self.flush();
            if let Err(error) = self.file.rotate() {
                // No file grows without bound.
                return self.lose(1, error);
            }
            self.pending = line;
            self.pending_lines = 1;
        }
    }

    fn flush(&mut self) {
        if self.pending.is_empty() {
            return;
        }
        let told = self.lost.as_ref().map(|(count, error)| {
            format!("{}\n", note(&format!("{count} lines were not written: {error}"))).into_bytes()
        });
        let bytes = told.unwrap_or_default().into_iter().chain(self.pending.drain(..)).collect::<Vec<u8>>();
        match self.file.append(&bytes) {
            Ok(()) => self.lost = None,
            Err(error) => self.lose(self.pending_lines, error),
        }
        self.pending_lines = 0;
    }

    fn lose(&mut self, lines: u64, error: io::Error) {
        let before = self.lost.take().map_or(0, |(count, _)| count);
        self.lost = Some((before + lines, error));
    }
}

fn note(text: &str) -> LogLine {
    LogLine::new(Source::Note, text)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::path::Path;
    use std::sync::Arc;

    use super::super::file::LogFile;
    use super::{LogLine, Order, Source, Writer};

    fn open(path: &Path) -> LogFile {
        LogFile::open(path, 1 << 20, 2).expect("a file")
    }

    fn line(text: &str) -> Order {
        Order::Write(Arc::new(LogLine::new(Source::Stdout, text)))
    }

    /// LO-POOL-05: what a full disk did not take is counted, and told as soon as there is room.
    #[test]
    fn lost_lines_are_told() {
        let folder = tempfile::tempdir().expect("a folder");
        let (full, free) = (folder.path().join("full"), folder.path().join("free"));
        symlink("/dev/full", &full).expect("a link");
        let mut writer = Writer { file: open(&full), pending: Vec::new(), pending_lines: 0, lost: None };
        for text in ["a", "b"] {
            writer.carry_out(line(text));
            writer.flush();
        }
        writer.file = open(&free);
        writer.carry_out(line("c"));
        writer.flush();
        let texts: Vec<String> = writer.file.last_lines(9).iter().map(|line| line.text.clone()).collect();
        assert_eq!(texts, ["2 lines were not written: No space left on device (os error 28)", "c"]);
    }
}
