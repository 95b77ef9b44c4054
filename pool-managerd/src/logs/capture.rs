//! The thread that reads an engine's pipes.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::sync::mpsc::{Receiver, channel};
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, poll};

use super::split::{Piece, Splitter};
use super::{EngineLog, LogLine, Source};

/// As much as a pipe holds by default.
const CHUNK: usize = 64 * 1024;

struct Pipe {
    file: File,
    source: Source,
    splitter: Splitter,
}

pub(super) fn start(log: EngineLog, stdout: OwnedFd, stderr: OwnedFd) -> io::Result<Receiver<()>> {
    let (done, ended) = channel();
    let pipe = |fd, source| Pipe { file: File::from(fd), source, splitter: Splitter::default() };
    let pipes = vec![pipe(stdout, Source::Stdout), pipe(stderr, Source::Stderr)];
    std::thread::Builder::new().name("engine-output".to_owned()).spawn(move || {
        // Goes when the thread ends, however it does.
        let _done = done;
        run(&log, pipes);
    })?;
    Ok(ended)
}

fn run(log: &EngineLog, mut pipes: Vec<Pipe>) {
    let mut chunk = vec![0; CHUNK];
    while !pipes.is_empty() {
        let mut sources: Vec<_> = pipes.iter().map(|pipe| PollFd::new(&pipe.file, PollFlags::IN)).collect();
        if poll(&mut sources, None).is_err() {
            continue;
        }
        let speaks: Vec<bool> = sources.iter().map(|source| !source.revents().is_empty()).collect();
        drop(sources);
        let mut speaks = speaks.into_iter();
        pipes.retain_mut(|pipe| !speaks.next().unwrap_or(false) || pipe.read(log, &mut chunk));
    }
}

impl Pipe {
    /// Reads once; false when the pipe has ended.
    fn read(&mut self, log: &EngineLog, chunk: &mut [u8]) -> bool {
        let source = self.source;
        let mut found = |piece| match piece {
            Piece::Line(text) => log.shared().take(LogLine::new(source, &text)),
            Piece::Passing => log.count_activity(),
        };
        match self.file.read(chunk) {
            Ok(count @ 1..) => {
                self.splitter.push(&chunk[..count], Instant::now(), &mut found);
                true
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => true,
            Ok(_) | Err(_) => {
                self.splitter.finish(&mut found);
                false
            }
        }
    }
}
