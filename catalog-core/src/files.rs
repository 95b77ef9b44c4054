//! What the files of a model say about it: their headers, the memory it takes, and whether that fits a device.
//!
//! Files come from strangers. The readers hold every claim of a file against limits, count in checked arithmetic, and allocate
//! for bytes that are there, never for lengths that are claimed; fuzz targets hold them to it.

pub mod fit;
pub mod gguf;
mod info;
mod local;
pub mod safetensors;

pub use info::{LayerShape, ModelInfo, ModelShape};
pub use local::{FilesError, read_local};

/// How far a header is.
#[derive(Clone, Debug, PartialEq)]
pub enum Progress<T> {
    /// At least so many more bytes of the file are needed. Asking for more of them at once saves round trips.
    NeedMore(u64),
    /// It is whole; what was fed beyond it was passed over.
    Done(T),
}

/// A file's header cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// It is another kind of file.
    #[error("this is no {0} file")]
    NotThis(&'static str),
    /// It is of a version that nobody reads any more, or none reads yet.
    #[error("version {0} of GGUF is not known; 2 and 3 are, convert the model anew")]
    Version(u32),
    /// It says more than any real model.
    #[error("more than {1} {0}; no real model has that")]
    Limit(&'static str, u64),
    /// It contradicts its format.
    #[error("{0}; the file is damaged")]
    Malformed(&'static str),
    /// The file ends before its header.
    #[error("the file ends within its header")]
    Truncated,
}

/// The header of a model file of either kind.
#[derive(Clone, Debug, PartialEq)]
pub enum Header {
    /// Of a GGUF file.
    Gguf(Box<gguf::Header>),
    /// Of a safetensors file.
    Safetensors(safetensors::Header),
}

/// Reads the header of a file whose kind shows from its first bytes.
///
/// For files that are elsewhere: ask for the first MiB, feed it, and go on asking for at least what [`Progress::NeedMore`] says,
/// each piece following the last, until the header is done.
///
/// ```
/// use catalog_core::files::{HeaderError, HeaderReader, Progress};
///
/// let mut reader = HeaderReader::default();
/// assert_eq!(reader.feed(b"GG"), Ok(Progress::NeedMore(6)));
/// assert_eq!(reader.feed(b"UF\x01\0\0\0"), Err(HeaderError::Version(1)));
/// ```
#[derive(Debug, Default)]
pub struct HeaderReader(Kind);

#[derive(Debug)]
enum Kind {
    Unknown(Vec<u8>),
    Gguf(Box<gguf::Reader>),
    Safetensors(safetensors::Reader),
}

impl Default for Kind {
    fn default() -> Self {
        Self::Unknown(Vec::new())
    }
}

/// Bytes from which the kind of a file shows.
const SNIFF: usize = 8;

impl HeaderReader {
    /// Takes the next bytes of the file.
    ///
    /// # Errors
    /// [`HeaderError`]; the reader is of no use after that.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<Progress<Header>, HeaderError> {
        match &mut self.0 {
            Kind::Unknown(first) => {
                first.extend_from_slice(bytes);
                if first.len() < SNIFF {
                    return Ok(Progress::NeedMore((SNIFF - first.len()) as u64));
                }
                let first = std::mem::take(first);
                self.0 = if first.starts_with(b"GGUF") {
                    Kind::Gguf(Box::new(gguf::Reader::new()))
                } else {
                    Kind::Safetensors(safetensors::Reader::default())
                };
                self.feed(&first)
            }
            Kind::Gguf(reader) => reader.feed(bytes).map(|progress| progress.map(|h| Header::Gguf(Box::new(h)))),
            Kind::Safetensors(reader) => match reader.feed(bytes) {
                // Nobody has said that it is one.
                Err(HeaderError::NotThis(_)) => Err(HeaderError::NotThis("GGUF or safetensors")),
                fed => fed.map(|progress| progress.map(Header::Safetensors)),
            },
        }
    }
}

impl<T> Progress<T> {
    fn map<U>(self, change: impl FnOnce(T) -> U) -> Progress<U> {
        match self {
            Self::NeedMore(count) => Progress::NeedMore(count),
            Self::Done(done) => Progress::Done(change(done)),
        }
    }
}

#[cfg(test)]
mod tests;
