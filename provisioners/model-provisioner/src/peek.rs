//! Reads the beginning of a model's file without fetching the model, for questions that its header answers.

use catalog_core::{FetchContext, FetchError, ModelRef};
use reqwest::StatusCode;

use crate::download::content_range;
use crate::fetcher::Fetcher;
use crate::source::{Listing, RemoteFile, Source};
use crate::web::{Gate, Range, shown};

/// Bytes that are read at first.
const FIRST: usize = 256 << 10;
/// Most bytes that are ever read; headers with large vocabularies take some 20 MiB.
const MOST: usize = 128 << 20;

/// What a reader of a header says to what it has seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peek {
    /// It wants at least so many bytes in all, counted from the beginning.
    More(usize),
    /// It has seen enough.
    Done,
}

/// What was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peeked {
    /// The file whose beginning was read.
    pub file: String,
    /// Its size in bytes, when the source tells.
    pub file_bytes: Option<u64>,
    /// Bytes of all files with weights, when the source tells.
    pub weights_bytes: Option<u64>,
}

impl Fetcher {
    /// Hands the beginning of the model's first file with weights to `read`, more and more of it until that is done. Nothing
    /// is written. The outbound policy decides as for a fetch.
    ///
    /// # Errors
    /// [`FetchError`]; [`FetchError::Unsupported`] when there is no such file, or its header has no end.
    pub async fn peek(
        &self,
        model: &ModelRef,
        context: &FetchContext,
        read: &mut (dyn FnMut(&[u8]) -> Peek + Send),
    ) -> Result<Peeked, FetchError> {
        let (gate, source) = self.gate(model, context.configured, false)?;
        let look = async {
            let listing = self.list(source, model, &gate).await?;
            let weights = weights(&listing);
            let Some(file) = weights.first() else {
                return Err(FetchError::Unsupported(format!("{model} has no .gguf and no .safetensors file")));
            };
            Beginning { model, source, gate: &gate, file }.read(read).await?;
            Ok(Peeked {
                file: file.name.clone(),
                file_bytes: file.size,
                weights_bytes: weights.iter().map(|file| file.size).sum(),
            })
        };
        tokio::select! {
            biased;
            () = context.cancel.cancelled() => Err(FetchError::Canceled),
            done = look => done,
        }
    }
}

/// The files with weights; all files of a model that is one file, whatever its name.
fn weights(listing: &Listing) -> Vec<&RemoteFile> {
    let with_end = |end: &str| listing.files.iter().filter(|file| file.name.ends_with(end)).collect::<Vec<_>>();
    let by_format = [".gguf", ".safetensors"].map(with_end).into_iter().find(|files| !files.is_empty());
    by_format.unwrap_or_else(|| listing.files.iter().filter(|_| listing.single).collect())
}

struct Beginning<'a> {
    model: &'a ModelRef,
    source: &'a dyn Source,
    gate: &'a Gate,
    file: &'a RemoteFile,
}

impl Beginning<'_> {
    async fn read(&self, read: &mut (dyn FnMut(&[u8]) -> Peek + Send)) -> Result<(), FetchError> {
        let mut seen = Vec::new();
        let mut wanted = FIRST;
        loop {
            let limit = self.file.size.map_or(MOST, |size| usize::try_from(size).unwrap_or(MOST)).min(MOST);
            let before = seen.len();
            self.extend(&mut seen, wanted.min(limit)).await?;
            match read(&seen) {
                Peek::Done => return Ok(()),
                Peek::More(more) if seen.len() > before && more > seen.len() && seen.len() < limit => {
                    wanted = more.max(seen.len() * 2);
                }
                Peek::More(_) => {
                    let shown = shown(&self.file.request.url);
                    return Err(FetchError::Unsupported(format!("the header of {shown} has no end")));
                }
            }
        }
    }

    /// Reads on until there are `wanted` bytes or the file ends.
    async fn extend(&self, seen: &mut Vec<u8>, wanted: usize) -> Result<(), FetchError> {
        let Some(last) = wanted.checked_sub(1).filter(|_| wanted > seen.len()) else { return Ok(()) };
        let from = seen.len();
        let range = Range { from: from as u64, to: Some(last as u64), if_range: None };
        let request = self.source.request(self.model, self.file, self.gate).await?;
        let mut response = self.gate.get(&request, Some(&range)).await?;
        let mut passed_over = match response.status() {
            // A source without ranges begins at the beginning.
            StatusCode::OK => from,
            StatusCode::PARTIAL_CONTENT
                if content_range(response.headers()).is_some_and(|(first, ..)| first == range.from) =>
            {
                0
            }
            StatusCode::RANGE_NOT_SATISFIABLE => return Ok(()),
            _ => return Err(crate::https::refused(&response, self.source.advice())),
        };
        while seen.len() < wanted {
            let Some(piece) = self.gate.piece(&mut response).await? else { return Ok(()) };
            let skip = passed_over.min(piece.len());
            passed_over -= skip;
            let take = (piece.len() - skip).min(wanted - seen.len());
            seen.extend_from_slice(&piece[skip..skip + take]);
        }
        Ok(())
    }
}
