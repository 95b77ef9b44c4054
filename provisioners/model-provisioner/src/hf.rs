//! The Hugging Face Hub, and mirrors that speak as it does.
//!
//! Source: the Hub's API, <https://huggingface.co/docs/hub/api>: `GET /api/models/{repo}/revision/{revision}` names the commit
//! that a branch is at, `GET /api/models/{repo}/tree/{commit}?recursive=true` lists files with size and the SHA-256 of those in
//! LFS, `GET /{repo}/resolve/{commit}/{path}` redirects to where a file is delivered from. All files are of the one commit.

use async_trait::async_trait;
use catalog_core::{Digest, FetchError, ModelRef};
use http_util::Secret;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use url::Url;

use crate::https::refusal;
use crate::outbound::Home;
use crate::source::{Listing, RemoteFile, Source, distinct_names, plain_name};
use crate::web::{Document, Gate, Request, shown};

/// Where the Hub is, unless `HF_ENDPOINT` says otherwise.
const HUB: &str = "https://huggingface.co";
/// Domains that the Hub delivers from: `cdn-lfs.hf.co`, `cas-bridge.xethub.hf.co`, `cdn-lfs.huggingface.co` and the like.
const DELIVERY: [&str; 2] = ["huggingface.co", "hf.co"];
/// Largest document, in bytes.
const LARGEST: usize = 16 << 20;
/// Most pages of a list; a page has a thousand files.
const MOST_PAGES: usize = 100;
/// Ends of the files of other frameworks, which repeat the weights that are there as safetensors.
const DUPLICATES: [&str; 6] = [".bin", ".h5", ".msgpack", ".onnx", ".pt", ".pth"];

/// `hf:`.
#[derive(Clone, Debug)]
pub struct HfSource {
    endpoint: Url,
    token: Option<Secret>,
}

#[derive(Deserialize)]
struct Revision {
    sha: String,
}

#[derive(Deserialize)]
struct Item {
    #[serde(rename = "type")]
    kind: String,
    path: String,
    size: Option<u64>,
    /// The Git object.
    oid: Option<String>,
    lfs: Option<Lfs>,
}

#[derive(Deserialize)]
struct Lfs {
    oid: String,
    size: Option<u64>,
}

impl HfSource {
    /// The Hub at `endpoint`, `https://huggingface.co` without, asked with `token`. Values of `HF_ENDPOINT` and `HF_TOKEN`.
    ///
    /// # Errors
    /// [`FetchError::Unsupported`] when the endpoint is no URL.
    pub fn new(endpoint: Option<&str>, token: Option<Secret>) -> Result<Self, FetchError> {
        let unusable =
            || FetchError::Unsupported("HF_ENDPOINT must be a URL such as https://huggingface.co".to_owned());
        let endpoint: Url = endpoint.unwrap_or(HUB).parse().map_err(|_| unusable())?;
        if endpoint.cannot_be_a_base() || endpoint.host_str().is_none() {
            return Err(unusable());
        }
        Ok(Self { endpoint, token })
    }

    /// A URL of the Hub; parts with `/` stay one part.
    fn url(&self, parts: &[&str]) -> Result<Url, FetchError> {
        let mut url = self.endpoint.clone();
        url.path_segments_mut()
            .map_err(|()| FetchError::Unsupported("HF_ENDPOINT cannot be used".to_owned()))?
            .pop_if_empty()
            .extend(parts);
        Ok(url)
    }

    fn request(&self, url: Url) -> Request {
        Request::new(url).bearer(self.token.as_ref())
    }

    async fn ask<T: DeserializeOwned>(&self, url: Url, gate: &Gate) -> Result<(T, Document), FetchError> {
        let document = gate.document(&self.request(url.clone()), LARGEST).await?;
        if !document.status.is_success() {
            return Err(self.refused(&document, &url));
        }
        let parsed = serde_json::from_slice(&document.body)
            .map_err(|_| FetchError::Source(format!("{} is not what the Hub's API says it is", shown(&url))))?;
        Ok((parsed, document))
    }

    /// Source of the codes: `huggingface_hub`, `utils/_http.py`. Without a token the Hub answers 401 for what does not exist.
    fn refused(&self, document: &Document, url: &Url) -> FetchError {
        let what = shown(url);
        match document.header("x-error-code") {
            Some("RepoNotFound") if self.token.is_some() => {
                FetchError::NotFound(format!("{what}: there is no such repository"))
            }
            Some("RepoNotFound") => {
                let text = "there is no such repository, or it is private; for a private one set HF_TOKEN";
                FetchError::NotFound(format!("{what}: {text}"))
            }
            Some("RevisionNotFound") => FetchError::NotFound(format!("{what}: there is no such revision")),
            Some("EntryNotFound") => FetchError::NotFound(format!("{what}: there is no such file")),
            _ => refusal(document.status.as_u16(), &what, self.advice()),
        }
    }

    async fn tree(&self, repo: (&str, &str), commit: &str, gate: &Gate) -> Result<Vec<Item>, FetchError> {
        let mut next = self.url(&["api", "models", repo.0, repo.1, "tree", commit])?;
        next.set_query(Some("recursive=true"));
        let mut items = Vec::new();
        for _ in 0..MOST_PAGES {
            let (page, document): (Vec<Item>, _) = self.ask(next.clone(), gate).await?;
            items.extend(page);
            match document.header("link").and_then(next_page).and_then(|link| next.join(link).ok()) {
                // Credentials go along, so another origin must not say where.
                Some(link) if link.origin() == next.origin() => next = link,
                Some(link) => {
                    return Err(FetchError::Source(format!(
                        "the list goes on at {}, which is another host",
                        shown(&link)
                    )));
                }
                None => return Ok(items),
            }
        }
        Err(FetchError::Unsupported(format!("{}/{} has too many files; name one of them", repo.0, repo.1)))
    }

    fn file(&self, repo: (&str, &str), commit: &str, item: Item, name: &str) -> Result<RemoteFile, FetchError> {
        let parts: Vec<&str> = [repo.0, repo.1, "resolve", commit].into_iter().chain(item.path.split('/')).collect();
        let digest = item.lfs.as_ref().and_then(|lfs| lfs.oid.parse::<Digest>().ok());
        Ok(RemoteFile {
            name: plain_name(name)?,
            request: self.request(self.url(&parts)?),
            size: item.lfs.and_then(|lfs| lfs.size).or(item.size),
            digest,
            version: item.oid,
        })
    }
}

/// The target of `rel="next"`. Source: RFC 8288.
fn next_page(header: &str) -> Option<&str> {
    let link = header.split(',').find(|link| link.contains("rel=\"next\""))?;
    link.split_once('<')?.1.split_once('>').map(|(target, _)| target)
}

fn wanted(model: &ModelRef) -> Result<(&str, &str, Option<&str>, &str), FetchError> {
    match model {
        ModelRef::Hf { org, repo, path, revision } => {
            Ok((org, repo, path.as_deref(), revision.as_deref().unwrap_or("main")))
        }
        _ => Err(FetchError::Unsupported(format!("{model} is not of the Hub"))),
    }
}

#[async_trait]
impl Source for HfSource {
    fn home(&self, _model: &ModelRef) -> Result<Home, FetchError> {
        Ok(Home { origin: self.endpoint.clone(), delivery: DELIVERY.map(str::to_owned).to_vec() })
    }

    /// All files of a repository but `.gitattributes` and those that repeat its safetensors for another framework; one file;
    /// all parts of a split file; or all files of a folder.
    async fn list(&self, model: &ModelRef, gate: &Gate) -> Result<Listing, FetchError> {
        let (org, repo, path, revision) = wanted(model)?;
        let (Revision { sha }, _) =
            self.ask(self.url(&["api", "models", org, repo, "revision", revision])?, gate).await?;
        if sha.is_empty() || !sha.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Err(FetchError::Source(format!("{model} has a commit that is none")));
        }
        let mut items = self.tree((org, repo), &sha, gate).await?;
        items.retain(|item| item.kind == "file");
        let selection = select(&items, path);
        let mut files = Vec::new();
        for item in items {
            if let Some(name) = selection.name_of(&item.path).map(ToOwned::to_owned) {
                files.push(self.file((org, repo), &sha, item, &name)?);
            }
        }
        if files.is_empty() {
            return Err(FetchError::NotFound(format!("{model}: there is no such file at {revision}")));
        }
        distinct_names(&files)?;
        files.sort_by(|a, b| a.name.cmp(&b.name));
        let single = matches!(selection, Selection::File(_) | Selection::Parts { .. });
        Ok(Listing { files, single, source_url: format!("{}@{sha}", shown(&self.url(&[org, repo])?)) })
    }

    fn advice(&self) -> &'static str {
        "set HF_TOKEN to a token that may read it, and accept its conditions on the Hub if it has any"
    }
}

/// Which files of a repository are wanted.
enum Selection<'a> {
    /// This one.
    File(&'a str),
    /// The parts of a split one: what comes before their numbers, and from `-of-` on.
    Parts { before: &'a str, after: &'a str },
    /// Those below this folder, with its final slash.
    Folder(String),
    /// All, except those that repeat others.
    All { has_safetensors: bool },
}

fn select<'a>(items: &[Item], path: Option<&'a str>) -> Selection<'a> {
    let Some(path) = path else {
        let is_safetensors = |item: &Item| item.path.ends_with(".safetensors");
        return Selection::All { has_safetensors: items.iter().any(is_safetensors) };
    };
    if !items.iter().any(|item| item.path == path) {
        return Selection::Folder(format!("{path}/"));
    }
    match split_part(path) {
        Some((before, after)) => Selection::Parts { before, after },
        None => Selection::File(path),
    }
}

impl Selection<'_> {
    /// A file's name below the model's folder, when it is wanted.
    fn name_of<'p>(&self, path: &'p str) -> Option<&'p str> {
        match self {
            Self::File(wanted) => (path == *wanted).then(|| last_part(path)),
            Self::Parts { before, after } => (split_part(path) == Some((before, after))).then(|| last_part(path)),
            Self::Folder(folder) => path.strip_prefix(folder.as_str()),
            Self::All { has_safetensors } => {
                let repeats = *has_safetensors && DUPLICATES.iter().any(|end| path.ends_with(end));
                (path != ".gitattributes" && !repeats).then_some(path)
            }
        }
    }
}

fn last_part(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// A part of a split GGUF, `x-00001-of-00003.gguf`, without its number. Source: llama.cpp, `tools/gguf-split`.
pub(crate) fn split_part(name: &str) -> Option<(&str, &str)> {
    let stem = name.strip_suffix(".gguf")?;
    let (rest, count) = stem.rsplit_once("-of-")?;
    let (before, number) = rest.rsplit_once('-')?;
    let is_number = |text: &str| text.len() == 5 && text.bytes().all(|byte| byte.is_ascii_digit());
    (is_number(count) && is_number(number)).then(|| (before, &name[rest.len()..]))
}
