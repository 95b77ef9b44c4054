//! One file, from its source to its verified part: resumes, retries, and watches for silence.

use std::fs::File;
use std::future::Future;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use catalog_core::{Digest, FetchError, ModelRef, StoredFile};
use http_util::retry::RetryPolicy;
use reqwest::header::{
    CONTENT_LENGTH, CONTENT_RANGE, DATE, ETAG, HeaderMap, LAST_MODIFIED, RETRY_AFTER, TRANSFER_ENCODING,
};
use reqwest::{Response, StatusCode};
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinHandle};

use crate::part::{Known, Part, Paths, Tools, Whole, failed_to};
use crate::record::{Records, Wanted};
use crate::source::{RemoteFile, Source};
use crate::web::{Gate, Range, shown};

/// How often somebody else's work on the same file is looked at.
const LOCK_POLL: Duration = Duration::from_millis(100);
/// Pieces that may wait to be hashed and written.
const PIECES: usize = 32;
/// Longest that a source may ask to wait; beyond that the fetch fails instead.
const LONGEST_WAIT: Duration = Duration::from_secs(120);
/// A time of last change identifies a file when it is older than this at the time of the answer.
const SETTLED: Duration = Duration::from_secs(60);

/// One file to be brought here.
pub(crate) struct Download<'a> {
    pub(crate) model: &'a ModelRef,
    pub(crate) source: &'a dyn Source,
    pub(crate) gate: &'a Gate,
    pub(crate) file: &'a RemoteFile,
    pub(crate) paths: &'a Paths,
    pub(crate) digest: Option<&'a Digest>,
    pub(crate) records: &'a Records,
    pub(crate) tools: &'a Tools,
    pub(crate) retry: RetryPolicy,
}

/// A file that has come, or was here.
pub(crate) struct Staged {
    pub(crate) file: StoredFile,
    /// Its part, verified, when it has no name yet.
    pub(crate) fresh: Option<Whole>,
    /// Bytes that came over the network.
    pub(crate) transferred: u64,
}

impl Staged {
    fn here(file: StoredFile) -> Self {
        Self { file, fresh: None, transferred: 0 }
    }
}

/// What is known in the middle of a download.
#[derive(Default)]
struct State {
    /// Bytes that are here.
    at: u64,
    /// Bytes there will be.
    total: Option<u64>,
    /// The source's strong validator of what is here.
    validator: Option<String>,
    /// Bytes that came over the network.
    transferred: u64,
    /// Whether what is here came with more than one answer.
    resumed: bool,
}

/// Why an attempt failed.
enum Failure {
    /// It may work later, and not before the time that the source asked for.
    Passing(FetchError, Option<Duration>),
    /// It will not.
    Final(FetchError),
}

impl From<FetchError> for Failure {
    fn from(error: FetchError) -> Self {
        match error {
            FetchError::Source(_) => Self::Passing(error, None),
            other => Self::Final(other),
        }
    }
}

impl Download<'_> {
    /// Brings the file.
    pub(crate) async fn stage(&self) -> Result<Staged, FetchError> {
        if let (Some(told), Some(wanted)) = (&self.file.digest, self.digest)
            && told != wanted
        {
            return Err(self.wrong(told));
        }
        if let Some(here) = self.find_here().await? {
            return Ok(Staged::here(here));
        }
        let part = self.open().await?;
        if let Some(here) = self.records.find(&self.paths.dest, self.wanted()) {
            blocking(move || part.remove()).await?;
            self.count(&here);
            return Ok(Staged::here(here));
        }
        let (mut part, mut state) = self.kept(part).await?;
        let mut may_begin_anew = true;
        loop {
            let whole = self.complete(part, &mut state).await?;
            match self.digest {
                Some(wanted) if *wanted != whole.digest => {
                    let error = self.wrong(&whole.digest);
                    part = whole.into_part();
                    if !(state.resumed && std::mem::take(&mut may_begin_anew)) {
                        blocking(move || part.remove()).await?;
                        return Err(error);
                    }
                    // What was kept may have been damaged, or be of another version.
                    tracing::warn!(file = %self.file.name, "a resumed file has the wrong digest and is fetched anew");
                    let known = self.known_now(self.file.size, None);
                    part = blocking(move || part.restart(&known).map(|()| part)).await?;
                    state = State { total: self.file.size, transferred: state.transferred, ..State::default() };
                }
                _ => {
                    let file = StoredFile {
                        name: self.file.name.clone(),
                        size_bytes: whole.length(),
                        digest: whole.digest.clone(),
                    };
                    let whole = blocking(move || whole.sync().map(|()| whole)).await?;
                    return Ok(Staged { file, fresh: Some(whole), transferred: state.transferred });
                }
            }
        }
    }

    fn wrong(&self, found: &Digest) -> FetchError {
        let expected = self.digest.unwrap_or(found).clone();
        FetchError::Digest { file: self.file.name.clone(), expected, found: found.clone() }
    }

    fn wanted(&self) -> Wanted<'_> {
        Wanted {
            name: &self.file.name,
            size: self.file.size,
            digest: self.digest,
            version: self.file.version.as_deref(),
        }
    }

    fn count(&self, here: &StoredFile) {
        self.tools.progress.advanced(here.size_bytes);
    }

    /// The file, when it is here: by its record, else by its content where it is known what that must be.
    async fn find_here(&self) -> Result<Option<StoredFile>, FetchError> {
        let dest = self.paths.dest.clone();
        if let Some(here) = self.records.find(&dest, self.wanted()) {
            self.count(&here);
            return Ok(Some(here));
        }
        let Some(wanted) = self.digest.cloned() else { return Ok(None) };
        let Ok(found) = tokio::fs::metadata(&dest).await else { return Ok(None) };
        if !found.is_file() || self.file.size.is_some_and(|size| size != found.len()) {
            return Ok(None);
        }
        let cancel = self.tools.cancel.clone();
        let stop_if_canceled =
            move |_| if cancel.is_cancelled() { Err(std::io::ErrorKind::Interrupted.into()) } else { Ok(()) };
        let (path, records, version) = (dest.clone(), self.records.clone(), self.file.version.clone());
        let digest = blocking(move || {
            let digest = Digest::read(File::open(&path)?, stop_if_canceled)?;
            if digest == wanted {
                records.put(&path, &digest, version.as_deref());
            }
            Ok::<_, std::io::Error>((digest == wanted).then_some(digest))
        });
        let digest = match digest.await {
            _ if self.tools.cancel.is_cancelled() => return Err(FetchError::Canceled),
            result => result.map_err(failed_to("read", &dest))?,
        };
        let here = digest.map(|digest| StoredFile { name: self.file.name.clone(), size_bytes: found.len(), digest });
        here.iter().for_each(|here| self.count(here));
        Ok(here)
    }

    /// The part, once nobody else is at work on it.
    async fn open(&self) -> Result<Part, FetchError> {
        let mut told = false;
        loop {
            let (paths, tools) = (self.paths.clone(), self.tools.clone());
            if let Some(part) = blocking(move || Part::open(&paths, &tools)).await? {
                return Ok(part);
            }
            if !std::mem::replace(&mut told, true) {
                self.tools.progress.waiting();
            }
            self.unless_canceled(tokio::time::sleep(LOCK_POLL)).await?;
        }
    }

    /// Keeps what an earlier try left, if it is of the same file.
    async fn kept(&self, mut part: Part) -> Result<(Part, State), FetchError> {
        let now = self.known_now(self.file.size, None);
        let by_digest = self.digest.is_some();
        blocking(move || {
            let known = part.known().filter(|known| is_same(known, &now)).unwrap_or_default();
            let total = now.size.or(known.size);
            let there = part.paths().kept_bytes();
            let fits = there > 0 && total.is_none_or(|total| there <= total);
            if !fits || known.url.is_empty() || !(by_digest || known.validator.is_some()) {
                part.restart(&now)?;
                return Ok((part, State { total: now.size, ..State::default() }));
            }
            // The last byte is asked for again, so that the source says whether it is still the same file.
            part.keep(if total == Some(there) && !by_digest { there - 1 } else { there })?;
            let state =
                State { at: part.length(), total, validator: known.validator, resumed: true, ..State::default() };
            Ok((part, state))
        })
        .await
    }

    fn known_now(&self, size: Option<u64>, validator: Option<String>) -> Known {
        Known {
            url: shown(&self.file.request.url),
            digest: self.digest.cloned(),
            version: self.file.version.clone(),
            size,
            validator,
        }
    }

    /// Fetches what is missing of a part.
    async fn complete(&self, part: Part, state: &mut State) -> Result<Whole, FetchError> {
        if self.digest.is_some() && state.total == Some(state.at) {
            return Ok(part.whole());
        }
        let mut writer = Writer::start(part);
        let fetched = self.unless_canceled(self.fetch(&mut writer, state)).await.and_then(|result| result);
        // A writer that failed knows better than whoever could not reach it any more.
        let part = writer.finish().await?;
        fetched?;
        Ok(part.whole())
    }

    async fn unless_canceled<T>(&self, work: impl Future<Output = T>) -> Result<T, FetchError> {
        tokio::select! {
            biased;
            () = self.tools.cancel.cancelled() => Err(FetchError::Canceled),
            done = work => Ok(done),
        }
    }

    async fn fetch(&self, writer: &mut Writer, state: &mut State) -> Result<(), FetchError> {
        let (mut failures, mut furthest) = (0, state.at);
        loop {
            let (error, asked) = match self.attempt(writer, state).await {
                Ok(()) => return Ok(()),
                Err(Failure::Final(error)) => return Err(error),
                Err(Failure::Passing(error, asked)) => (error, asked),
            };
            // A source that has no ranges and always breaks off gets nowhere, however much it sends.
            if state.at > furthest {
                (failures, furthest) = (0, state.at);
            }
            if failures >= self.retry.retries || asked.is_some_and(|asked| asked > LONGEST_WAIT) {
                return Err(error);
            }
            let wait = self.retry.ceiling(failures).mul_f64(rand::random::<f64>()).max(asked.unwrap_or_default());
            failures += 1;
            tracing::debug!(%error, file = %self.file.name, at = state.at, failures, "transfer is begun again");
            tokio::time::sleep(wait).await;
        }
    }

    /// Asks once for what is missing, and takes what comes.
    async fn attempt(&self, writer: &mut Writer, state: &mut State) -> Result<(), Failure> {
        let resumes = state.at > 0 && (self.digest.is_some() || state.validator.is_some());
        // What has a known digest is compared with it anyway.
        let if_range = state.validator.clone().filter(|_| self.digest.is_none());
        let range = resumes.then_some(Range { from: state.at, to: None, if_range });
        let request = self.source.request(self.model, self.file, self.gate).await?;
        let mut response = self.gate.get(&request, range.as_ref()).await?;
        match response.status() {
            StatusCode::OK => self.begin(&response, writer, state).await?,
            StatusCode::PARTIAL_CONTENT if resumes => match self.same_rest(&response, state)? {
                Some(total) => (state.total, state.resumed) = (Some(total), true),
                None => return self.start_over(writer, state, "the source has another file by now").await,
            },
            StatusCode::RANGE_NOT_SATISFIABLE if resumes => {
                return self.start_over(writer, state, "the source has another file by now").await;
            }
            _ => return Err(self.refused(&response)),
        }
        while let Some(piece) = self.gate.piece(&mut response).await? {
            let length = piece.len() as u64;
            if state.total.is_some_and(|total| state.at + length > total) {
                return Err(Failure::Final(self.says("sends more than it announced")));
            }
            writer.send(Command::Append(piece, state.total)).await?;
            state.at += length;
            state.transferred += length;
        }
        match state.total {
            Some(total) if state.at < total => Err(self.says("ended before the file did").into()),
            _ => Ok(()),
        }
    }

    fn says(&self, what: &str) -> FetchError {
        FetchError::Source(format!("{} {what}", shown(&self.file.request.url)))
    }

    /// Begins with a whole file.
    async fn begin(&self, response: &Response, writer: &mut Writer, state: &mut State) -> Result<(), Failure> {
        let headers = response.headers();
        let length = number(headers, CONTENT_LENGTH.as_str());
        if let (Some(size), Some(length)) = (self.file.size, length)
            && size != length
        {
            let what = format!("announces {length} bytes, and {size} are expected; it may have been changed just now");
            return Err(Failure::Final(self.says(&what)));
        }
        let total = self.file.size.or(length);
        if total.is_none() && self.digest.is_none() && !headers.contains_key(TRANSFER_ENCODING) {
            let what = "does not say how long it is, so a cut would not be noticed; give the model a checksum";
            return Err(Failure::Final(self.says(what)));
        }
        self.restart(writer, state, total, validator(headers)).await
    }

    async fn start_over(&self, writer: &mut Writer, state: &mut State, why: &str) -> Result<(), Failure> {
        self.restart(writer, state, self.file.size, None).await?;
        Err(self.says(why).into())
    }

    async fn restart(
        &self,
        writer: &mut Writer,
        state: &mut State,
        total: Option<u64>,
        validator: Option<String>,
    ) -> Result<(), Failure> {
        let known = self.known_now(total, validator.clone());
        *state = State { total, validator, transferred: state.transferred, ..State::default() };
        Ok(writer.send(Command::Restart(known)).await?)
    }

    /// The whole file's size, when the answer is the rest of the file that is here in part.
    fn same_rest(&self, response: &Response, state: &State) -> Result<Option<u64>, Failure> {
        let headers = response.headers();
        let Some((from, to, total)) = content_range(headers) else {
            return Err(self.says("sends a part without saying which").into());
        };
        let is_asked = from == state.at && number(headers, CONTENT_LENGTH.as_str()).is_none_or(|n| n == to - from + 1);
        if !is_asked {
            return Err(self.says("sends another part than was asked for").into());
        }
        let is_same_length = state.total.is_none_or(|known| known == total);
        let is_same_version =
            self.digest.is_some() || validator(headers).is_none_or(|new| state.validator == Some(new));
        Ok((is_same_length && is_same_version).then_some(total))
    }

    fn refused(&self, response: &Response) -> Failure {
        let error = crate::https::refused(response, self.source.advice());
        match response.status().as_u16() {
            408 | 425 | 429 | 500..=599 => Failure::Passing(error, retry_after(response.headers())),
            _ => Failure::Final(error),
        }
    }
}

/// Whether what was kept belongs to the file that is wanted now.
fn is_same(kept: &Known, now: &Known) -> bool {
    match &now.digest {
        Some(_) => kept.digest == now.digest,
        None => {
            let same_size = now.size.is_none() || kept.size == now.size;
            kept.digest.is_none() && kept.url == now.url && kept.version == now.version && same_size
        }
    }
}

fn number(headers: &HeaderMap, name: &str) -> Option<u64> {
    headers.get(name)?.to_str().ok()?.trim().parse().ok()
}

/// First byte, last byte and size of the whole, when they make sense.
pub(crate) fn content_range(headers: &HeaderMap) -> Option<(u64, u64, u64)> {
    let text = headers.get(CONTENT_RANGE)?.to_str().ok()?.trim().strip_prefix("bytes ")?;
    let (range, total) = text.split_once('/')?;
    let (from, to) = range.split_once('-')?;
    let (from, to, total) = (from.trim().parse().ok()?, to.trim().parse().ok()?, total.trim().parse().ok()?);
    (from <= to && to < total).then_some((from, to, total))
}

/// What `If-Range` may be asked with. Source: RFC 9110, 13.1.5 and 8.8.2.2.
pub(crate) fn validator(headers: &HeaderMap) -> Option<String> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    if let Some(tag) = text(ETAG).filter(|tag| tag.starts_with('"')) {
        return Some(tag.to_owned());
    }
    let changed = text(LAST_MODIFIED)?;
    let age =
        httpdate::parse_http_date(text(DATE)?).ok()?.duration_since(httpdate::parse_http_date(changed).ok()?).ok()?;
    (age >= SETTLED).then(|| changed.to_owned())
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    match text.parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => httpdate::parse_http_date(text).ok()?.duration_since(SystemTime::now()).ok(),
    }
}

/// Runs what blocks.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    joined(tokio::task::spawn_blocking(work).await)
}

fn joined<T>(result: Result<T, JoinError>) -> T {
    // A blocking task that has begun cannot be aborted.
    result.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
}

enum Command {
    Restart(Known),
    Append(Bytes, Option<u64>),
}

/// Hashes and writes beside the connection, so that neither waits for the other.
struct Writer {
    commands: mpsc::Sender<Command>,
    thread: JoinHandle<Result<Part, FetchError>>,
}

impl Writer {
    fn start(mut part: Part) -> Self {
        let (commands, mut queue) = mpsc::channel(PIECES);
        let thread = tokio::task::spawn_blocking(move || {
            while let Some(command) = queue.blocking_recv() {
                match command {
                    Command::Restart(known) => part.restart(&known)?,
                    Command::Append(piece, size) => part.append(&piece, size)?,
                }
            }
            Ok(part)
        });
        Self { commands, thread }
    }

    async fn send(&mut self, command: Command) -> Result<(), FetchError> {
        // The reason is what `finish` returns.
        self.commands.send(command).await.map_err(|_| FetchError::Canceled)
    }

    async fn finish(self) -> Result<Part, FetchError> {
        drop(self.commands);
        joined(self.thread.await)
    }
}
