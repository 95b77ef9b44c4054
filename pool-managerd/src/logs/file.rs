//! Files that rotate: `<pool>.log` is written, `<pool>.log.1` is the one before, and so on.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::LogLine;

/// Bytes read at once when lines are read back.
const BLOCK: u64 = 64 * 1024;

#[derive(Debug)]
pub(super) struct LogFile {
    path: PathBuf,
    file: File,
    length: u64,
    max_bytes: u64,
    files: usize,
}

impl LogFile {
    pub(super) fn open(path: &Path, max_bytes: u64, files: usize) -> io::Result<Self> {
        let file = create(path)?;
        let length = file.metadata()?.len();
        let mut log = Self { path: path.to_owned(), file, length, max_bytes, files: files.max(1) };
        log.end_torn_line()?;
        Ok(log)
    }

    /// Room for lines until it rotates.
    pub(super) fn room(&self) -> u64 {
        self.max_bytes.saturating_sub(self.length)
    }

    /// Appends whole lines. On an error the file is as it was, as far as the disk allows.
    pub(super) fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        self.file.write_all(lines).inspect_err(|_| {
            // A line must not continue half of another.
            let _as_far_as_possible = self.file.set_len(self.length);
        })?;
        self.length += lines.len() as u64;
        Ok(())
    }

    /// Begins a new file. When that fails the present one is emptied, because its size is bounded.
    pub(super) fn rotate(&mut self) -> io::Result<()> {
        let renamed =
            (1..self.files).rev().try_for_each(|number| rename(&self.numbered(number - 1), &self.numbered(number)));
        if self.files > 1
            && let Ok(file) = renamed.and_then(|()| create(&self.path))
        {
            self.file = file;
        }
        self.file.set_len(0)?;
        self.length = 0;
        Ok(())
    }

    /// The last lines of all files, oldest first.
    pub(super) fn last_lines(&self, count: usize) -> Vec<Arc<LogLine>> {
        let mut newest_first = Vec::new();
        for number in 0..self.files {
            let missing = count - newest_first.len();
            // A file that is not there, or cannot be read, has no lines to show.
            let Ok(text) = File::open(self.numbered(number)).and_then(|file| tail(file, missing)) else { continue };
            let text = String::from_utf8_lossy(&text);
            newest_first.extend(text.lines().rev().filter_map(LogLine::parse).take(missing).map(Arc::new));
            if newest_first.len() == count {
                break;
            }
        }
        newest_first.reverse();
        newest_first
    }

    /// A crash may have left half a line.
    fn end_torn_line(&mut self) -> io::Result<()> {
        if self.length == 0 {
            return Ok(());
        }
        let mut last = [0];
        let mut file = File::open(&self.path)?;
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)?;
        if last == *b"\n" { Ok(()) } else { self.append(b"\n") }
    }

    fn numbered(&self, number: usize) -> PathBuf {
        if number == 0 {
            return self.path.clone();
        }
        let mut path = OsString::from(&self.path);
        path.push(format!(".{number}"));
        PathBuf::from(path)
    }
}

fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

fn rename(from: &Path, to: &Path) -> io::Result<()> {
    match fs::rename(from, to) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// The end of the file, with at least `lines` lines if it has so many.
fn tail(mut file: File, lines: usize) -> io::Result<Vec<u8>> {
    let mut start = file.seek(SeekFrom::End(0))?;
    let mut blocks: Vec<Vec<u8>> = Vec::new();
    let mut ends = 0;
    // One more end of a line than lines, so that the first is whole.
    while start > 0 && ends <= lines {
        let from = start.saturating_sub(BLOCK);
        let mut block = Vec::new();
        file.seek(SeekFrom::Start(from))?;
        (&mut file).take(start - from).read_to_end(&mut block)?;
        ends += memchr::memchr_iter(b'\n', &block).count();
        blocks.push(block);
        start = from;
    }
    blocks.reverse();
    Ok(blocks.concat())
}
