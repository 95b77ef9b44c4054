//! Models on this machine.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::safetensors::{Config, MAX_CONFIG};
use super::{Header, HeaderError, HeaderReader, ModelInfo, Progress, safetensors};

/// Bytes that are read at once.
const CHUNK: usize = 64 << 10;
/// Most files of one model.
const MAX_FILES: usize = 4096;

/// The files of a model cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// A file's content is not usable.
    #[error("cannot read the header of {}", path.display())]
    Header {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: HeaderError,
    },
    /// A file is shorter than its header says.
    #[error("{} has {found_bytes} bytes and must have {wanted_bytes}; fetch it again", path.display())]
    Incomplete {
        /// The file.
        path: PathBuf,
        /// Its length.
        found_bytes: u64,
        /// What its header asks for.
        wanted_bytes: u64,
    },
    /// A file of the model is not there.
    #[error("{} is missing; fetch the model again", .0.display())]
    Missing(PathBuf),
    /// There is no model, or more than one.
    #[error("{} holds {found} models; name the file of one", path.display())]
    NotOne {
        /// The folder.
        path: PathBuf,
        /// How many there are.
        found: usize,
    },
    /// It could not be read.
    #[error("cannot read {}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
}

/// Reads what a model on this machine says about itself: a GGUF file, or any part of a split one; a safetensors file; or a folder
/// with one model. Only headers are read.
///
/// # Errors
/// [`FilesError`].
pub fn read_local(path: &Path) -> Result<ModelInfo, FilesError> {
    let files = if path.is_dir() { model_files(path)? } else { vec![path.to_owned()] };
    let first = &files[0];
    let at = |source| FilesError::Header { path: first.clone(), source };
    let (header, mut bytes) = read_header(first)?;
    match header {
        Header::Gguf(header) => {
            let mut parts = vec![*header];
            for part in split_parts(first).into_iter().filter(|part| part != first) {
                let (Header::Gguf(header), length) = read_header(&part)? else { return Err(wrong(&part, "GGUF")) };
                bytes = bytes.saturating_add(length);
                parts.push(*header);
            }
            // The first part is the one with the metadata.
            parts.sort_by_key(|part| part.uint("split.no").unwrap_or(0));
            ModelInfo::of_gguf(&parts, Some(bytes)).map_err(at)
        }
        Header::Safetensors(header) => {
            let mut parts = vec![header];
            for part in &files[1..] {
                let (Header::Safetensors(header), _) = read_header(part)? else {
                    return Err(wrong(part, "safetensors"));
                };
                parts.push(header);
            }
            let folder = first.parent().unwrap_or(Path::new("."));
            beside_safetensors(folder, &parts).map_err(|(path, source)| FilesError::Header { path, source })
        }
    }
}

fn beside_safetensors(folder: &Path, parts: &[safetensors::Header]) -> Result<ModelInfo, (PathBuf, HeaderError)> {
    let path = folder.join("config.json");
    let at = |source| (path.clone(), source);
    let config = small_file(&path, MAX_CONFIG).map(|json| Config::parse(&json)).transpose().map_err(at)?;
    let template = folder.join("chat_template.jinja").is_file()
        || small_file(&folder.join("tokenizer_config.json"), MAX_CONFIG)
            .is_some_and(|json| Config::parse(&json).is_ok_and(|config| config.text("chat_template").is_some()));
    ModelInfo::of_safetensors(parts, config.as_ref(), None, template).map_err(at)
}

fn wrong(path: &Path, kind: &'static str) -> FilesError {
    FilesError::Header { path: path.to_owned(), source: HeaderError::NotThis(kind) }
}

/// A file's header, and the file's length.
fn read_header(path: &Path) -> Result<(Header, u64), FilesError> {
    let io = |source| FilesError::Io { path: path.to_owned(), source };
    let bad = |source| FilesError::Header { path: path.to_owned(), source };
    let mut file = match File::open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(FilesError::Missing(path.to_owned())),
        opened => opened.map_err(io)?,
    };
    let mut reader = HeaderReader::default();
    let mut chunk = vec![0; CHUNK];
    let header = loop {
        let length = file.read(&mut chunk).map_err(io)?;
        if length == 0 {
            return Err(bad(HeaderError::Truncated));
        }
        if let Progress::Done(header) = reader.feed(&chunk[..length]).map_err(bad)? {
            break header;
        }
    };
    let wanted = match &header {
        Header::Gguf(header) => header.file_bytes.unwrap_or(0),
        Header::Safetensors(header) => header.file_bytes,
    };
    let found = file.metadata().map_err(io)?.len();
    if found < wanted {
        return Err(FilesError::Incomplete { path: path.to_owned(), found_bytes: found, wanted_bytes: wanted });
    }
    Ok((header, found))
}

/// A small file's content; `None` when it is not there, cannot be read, or is longer than anybody would read.
fn small_file(path: &Path, most: u64) -> Option<Vec<u8>> {
    let mut content = Vec::new();
    let length = File::open(path).ok()?.take(most + 1).read_to_end(&mut content).ok()?;
    (length as u64 <= most).then_some(content)
}

/// The files of the one model in a folder; of a split GGUF model its first part.
fn model_files(folder: &Path) -> Result<Vec<PathBuf>, FilesError> {
    let io = |source| FilesError::Io { path: folder.to_owned(), source };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(io)?.take(MAX_FILES) {
        files.push(entry.map_err(io)?.path());
    }
    files.sort();
    let ending = |ending: &'static str| move |file: &PathBuf| file.extension().is_some_and(|found| found == ending);
    let mut safetensors: Vec<_> = files.iter().filter(|file| ending("safetensors")(file)).cloned().collect();
    if !safetensors.is_empty() {
        // A repository may hold its weights a second time, in one file.
        let numbered = |file: &PathBuf| split_number(file).is_some();
        if safetensors.iter().any(numbered) {
            safetensors.retain(numbered);
        }
        missing(&safetensors)?;
        return Ok(safetensors);
    }
    files.retain(|file| ending("gguf")(file) && split_number(file).is_none_or(|(_, number, _)| number == 1));
    match files.len() {
        1 => Ok(files),
        found => Err(FilesError::NotOne { path: folder.to_owned(), found }),
    }
}

/// Fails when one of the numbered files of a model is not among them.
fn missing(files: &[PathBuf]) -> Result<(), FilesError> {
    let wanted = files.first().map(|first| split_parts(first)).unwrap_or_default();
    match wanted.into_iter().find(|part| !files.contains(part)) {
        Some(part) => Err(FilesError::Missing(part)),
        None => Ok(()),
    }
}

/// All parts of a split model of which this is one, whether they are there or not; nothing for other files.
fn split_parts(path: &Path) -> Vec<PathBuf> {
    let Some((stem, _, count)) = split_number(path) else {
        return Vec::new();
    };
    let ending = path.extension().unwrap_or_default().to_string_lossy();
    (1..=count).map(|number| path.with_file_name(format!("{stem}-{number:05}-of-{count:05}.{ending}"))).collect()
}

/// Name, number and count from `name-00001-of-00003.gguf`.
fn split_number(path: &Path) -> Option<(&str, usize, usize)> {
    let (rest, count) = path.file_stem()?.to_str()?.rsplit_once("-of-")?;
    let (stem, number) = rest.rsplit_once('-')?;
    let parse = |text: &str| (text.len() == 5).then(|| text.parse::<usize>().ok()).flatten();
    let (number, count) = (parse(number)?, parse(count)?);
    (1..=count.min(MAX_FILES)).contains(&number).then_some((stem, number, count.min(MAX_FILES)))
}
