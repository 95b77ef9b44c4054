//! Where a model comes from (LO-CAT-07, ORCH-3090).

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use api_types::ModelId;
use url::Url;

use crate::{Digest, DigestError};

/// Longest reference, in bytes.
const LONGEST: usize = 2048;

/// A reference to a model, parsed and normalised.
///
/// | Written | Means |
/// |---|---|
/// | `hf:org/repo` | all files of a repository of the Hugging Face Hub |
/// | `hf:org/repo/dir/file.gguf@revision` | one file of it, or all parts of a split one, at a branch, tag or commit |
/// | `file:/abs/path`, `/abs/path` | a file or folder of this machine |
/// | `file:rel/path`, `./rel/path`, `rel/path` | the same, below the models' folder |
/// | `https://host/path` | one file; `http:` as well, which has to be of this machine or to have a digest |
/// | `s3://bucket/key` | one object; all objects below it when it ends with `/` |
/// | `oci://registry/repo:tag`, `oci://registry/repo@sha256:…` | the layers of an artifact |
///
/// Spaces around it are dropped; scheme and host are lower case. Names with `..`, empty parts, backslashes or control characters
/// are refused, also where they are percent-encoded. [`ModelRef::id`] is the same for all ways to write one thing.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ModelRef {
    /// A repository of the Hugging Face Hub.
    Hf {
        /// Who publishes it.
        org: String,
        /// The repository.
        repo: String,
        /// One file of it; all of them without.
        path: Option<String>,
        /// Branch, tag or commit; `main` without.
        revision: Option<String>,
    },
    /// A file or folder of this machine.
    File {
        /// Absolute, or below the models' folder.
        path: PathBuf,
    },
    /// A file behind a URL, `https:` or `http:`.
    Url {
        /// The URL, without user and fragment.
        url: Url,
    },
    /// Objects of an S3 bucket.
    S3 {
        /// The bucket.
        bucket: String,
        /// Name of the object; of all objects that begin with it when it ends with `/`.
        key: String,
    },
    /// An artifact of an OCI registry.
    Oci {
        /// Host, with port where it is not the usual one.
        registry: String,
        /// The repository.
        repository: String,
        /// Tag; `latest` when there is no digest either.
        tag: Option<String>,
        /// Digest of the manifest.
        digest: Option<Digest>,
    },
}

/// A text is no reference to a model.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RefError {
    /// There is nothing.
    #[error("a model reference is wanted, such as hf:org/repo/file.gguf or file:/path/model.gguf")]
    Empty,
    /// It is too long.
    #[error("a model reference has at most {LONGEST} bytes")]
    TooLong,
    /// No source of this name is known.
    #[error("`{0}:` is no source of models; use hf:, file:, https:, s3: or oci:")]
    UnknownScheme(String),
    /// A part of a name is empty, `.` or `..`, begins or ends with a space, or has a backslash or a control character.
    #[error(
        "`{0}` must be a plain path: no empty part, no `..`, no space around a part, no backslash, no control character"
    )]
    UnsafePath(&'static str),
    /// Something is missing or malformed.
    #[error("{0}")]
    Malformed(&'static str),
    /// The digest is none.
    #[error("digest: {0}")]
    Digest(#[from] DigestError),
}

impl FromStr for ModelRef {
    type Err = RefError;

    fn from_str(text: &str) -> Result<Self, RefError> {
        let text = text.trim();
        if text.is_empty() {
            return Err(RefError::Empty);
        }
        if text.len() > LONGEST {
            return Err(RefError::TooLong);
        }
        if text.contains(|c: char| c == '\\' || c.is_control()) {
            return Err(RefError::UnsafePath("reference"));
        }
        let model = match text.split_once(':').filter(|(scheme, _)| is_scheme(scheme)) {
            Some((scheme, rest)) => behind_scheme(text, &scheme.to_ascii_lowercase(), rest)?,
            None => file(text)?,
        };
        // Escaping may have made it longer, and an id has to be a reference too.
        if model.to_string().len() > LONGEST { Err(RefError::TooLong) } else { Ok(model) }
    }
}

fn behind_scheme(text: &str, scheme: &str, rest: &str) -> Result<ModelRef, RefError> {
    match scheme {
        "hf" => hugging_face(rest),
        "file" => match rest.strip_prefix("//") {
            Some(path) if !path.starts_with('/') => {
                Err(RefError::Malformed("file: wants file:/path, file:///path or file:path; it takes no host"))
            }
            Some(path) => file(path),
            None => file(rest),
        },
        "https" | "http" => behind_url(text),
        "s3" => s3(rest),
        "oci" => oci(rest),
        other => Err(RefError::UnknownScheme(other.to_owned())),
    }
}

fn is_scheme(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'))
}

/// Checks that a name with `/` cannot lead anywhere else, on any system, not even after percent-decoding.
pub(crate) fn plain<'a>(name: &'a str, what: &'static str) -> Result<&'a str, RefError> {
    let good = |part: &str| {
        let decoded = percent_decoded(part);
        !matches!(decoded.as_slice(), b"" | b"." | b"..")
            && !decoded.iter().any(|byte| matches!(byte, b'/' | b'\\') || byte.is_ascii_control())
            && !part.contains(char::is_control)
            && part.trim() == part
    };
    if name.split('/').all(good) { Ok(name) } else { Err(RefError::UnsafePath(what)) }
}

/// A name with `/` of which not a single byte may need escaping in a URL.
fn plain_words<'a>(name: &'a str, what: &'static str) -> Result<&'a str, RefError> {
    let name = plain(name, what)?;
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/');
    if name.chars().all(good) { Ok(name) } else { Err(RefError::UnsafePath(what)) }
}

fn hugging_face(rest: &str) -> Result<ModelRef, RefError> {
    const FORM: RefError = RefError::Malformed("hf: wants hf:org/repo, hf:org/repo/file or either with @revision");
    let rest = rest.strip_prefix("//").unwrap_or(rest);
    let (name, revision) = match rest.split_once('@') {
        Some((name, revision)) => (name, Some(plain_words(revision, "revision")?.to_owned())),
        None => (rest, None),
    };
    let (org, rest) = name.split_once('/').ok_or(FORM)?;
    let (repo, path) = match rest.split_once('/') {
        Some((repo, path)) => (repo, Some(path)),
        None => (rest, None),
    };
    let word = |text, what| plain_words(text, what).map(ToOwned::to_owned);
    let path = path.filter(|path| !path.is_empty());
    Ok(ModelRef::Hf {
        org: word(org, "org")?,
        repo: word(repo, "repo")?,
        path: path.map(|path| plain(path, "path").map(ToOwned::to_owned)).transpose()?,
        revision: revision.filter(|revision| revision != "main"),
    })
}

fn file(path: &str) -> Result<ModelRef, RefError> {
    let (root, relative) = match path.strip_prefix('/') {
        Some(relative) => ("/", relative),
        None => ("", path),
    };
    let parts = relative.split('/').filter(|part| !matches!(*part, "" | "."));
    let relative = parts.collect::<Vec<_>>().join("/");
    plain(&relative, "path")?;
    Ok(ModelRef::File { path: PathBuf::from(format!("{root}{relative}")) })
}

fn behind_url(text: &str) -> Result<ModelRef, RefError> {
    const FORM: RefError = RefError::Malformed("https: wants https://host/path");
    // A `Url` resolves dots silently, so they are looked for before.
    let path = text.split(['?', '#']).next().unwrap_or_default();
    if path.split('/').any(|part| matches!(percent_decoded(part).as_slice(), b"." | b"..")) {
        return Err(RefError::UnsafePath("path"));
    }
    let mut url = Url::parse(text).map_err(|_| FORM)?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(RefError::Malformed(
            "a URL must not hold a user or a password; sources take credentials from the environment",
        ));
    }
    // Wide dots become plain ones in a host.
    plain(url.host_str().ok_or(FORM)?, "host")?;
    let path = url.path().strip_prefix('/').ok_or(FORM)?;
    plain(path, "path")?;
    String::from_utf8(percent_decoded(path)).map_err(|_| RefError::UnsafePath("path"))?;
    url.set_fragment(None);
    if url.query() == Some("") {
        url.set_query(None);
    }
    Ok(ModelRef::Url { url })
}

fn percent_decoded(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = (bytes[at] == b'%').then(|| text.get(at + 1..at + 3)).flatten();
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                decoded.push(byte);
                at += 3;
            }
            None => {
                decoded.push(bytes[at]);
                at += 1;
            }
        }
    }
    decoded
}

fn s3(rest: &str) -> Result<ModelRef, RefError> {
    const FORM: RefError = RefError::Malformed("s3: wants s3://bucket/key, or s3://bucket/folder/");
    let (bucket, key) = rest.strip_prefix("//").and_then(|rest| rest.split_once('/')).ok_or(FORM)?;
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.');
    let framed = bucket.starts_with(|c: char| c != '.' && c != '-') && !bucket.ends_with(['.', '-']);
    if !(3..=63).contains(&bucket.len()) || !bucket.chars().all(good) || !framed {
        return Err(RefError::Malformed(
            "a bucket has 3 to 63 lower-case letters, digits, dots and dashes, and begins and ends with a letter or digit",
        ));
    }
    let named = key.strip_suffix('/').unwrap_or(key);
    plain(named, "key")?;
    Ok(ModelRef::S3 { bucket: bucket.to_owned(), key: key.to_owned() })
}

fn oci(rest: &str) -> Result<ModelRef, RefError> {
    const FORM: RefError = RefError::Malformed("oci: wants oci://registry/repository with :tag or @sha256:digest");
    let (registry, name) = rest.strip_prefix("//").and_then(|rest| rest.split_once('/')).ok_or(FORM)?;
    let is_host = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | ':' | '[' | ']');
    if !registry.chars().all(is_host) || !registry.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '[') {
        return Err(FORM);
    }
    let (name, digest) = match name.split_once('@') {
        Some((name, digest)) => (name, Some(digest.parse()?)),
        None => (name, None),
    };
    let (repository, tag) = match name.split_once(':') {
        Some((repository, tag)) => (repository, Some(tag)),
        None => (name, None),
    };
    let tag = tag.filter(|tag| *tag != "latest" || digest.is_some());
    let is_tag = |tag: &str| !tag.contains('/') && plain_words(tag, "tag").is_ok();
    if tag.is_some_and(|tag| !is_tag(tag)) {
        return Err(RefError::Malformed("a tag has letters, digits, dots, dashes and underscores"));
    }
    let repository = plain_words(repository, "repository")?;
    if repository.contains(|c: char| c.is_ascii_uppercase()) {
        return Err(RefError::Malformed("a repository is lower case"));
    }
    Ok(ModelRef::Oci {
        registry: registry.to_ascii_lowercase(),
        repository: repository.to_owned(),
        tag: tag.map(ToOwned::to_owned),
        digest,
    })
}

/// Names of query parameters that hold credentials or expire with them; they are no part of a model's name.
fn is_credential(parameter: &str) -> bool {
    let name = parameter.to_ascii_lowercase();
    ["token", "key", "sig", "secret", "password", "credential", "auth", "expires", "policy", "x-amz-", "x-goog-"]
        .iter()
        .any(|word| name.contains(word))
}

/// What is kept of a query is kept as it is written: a source may tell `%20` from `+`.
fn without_credentials(url: &Url) -> Url {
    let is_kept = |pair: &&str| {
        let name = url::form_urlencoded::parse(pair.as_bytes()).next().map(|(name, _)| name).unwrap_or_default();
        !is_credential(&name)
    };
    let kept = url.query().map(|query| query.split('&').filter(is_kept).collect::<Vec<_>>().join("&"));
    let mut bare = url.clone();
    bare.set_query(kept.as_deref().filter(|kept| !kept.is_empty()));
    bare
}

impl ModelRef {
    /// The stable id (ORCH-3704): the normalised reference without credentials.
    #[must_use]
    pub fn id(&self) -> ModelId {
        ModelId::from(self.to_string())
    }

    /// Where its file or folder belongs, below the models' folder. `None` for an absolute file, which stays where it is.
    #[must_use]
    pub fn cache_path(&self) -> Option<PathBuf> {
        let at = |revision: &Option<String>| {
            revision.as_ref().map_or_else(String::new, |name| format!("@{}", name.replace('/', "%2F")))
        };
        let path = match self {
            Self::Hf { org, repo, path, revision } => {
                let folder = format!("hf/{org}/{repo}{}", at(revision));
                path.as_ref().map_or_else(|| folder.clone(), |path| format!("{folder}/{path}"))
            }
            Self::File { path } if path.is_absolute() => return None,
            Self::File { path } => return Some(path.clone()),
            Self::Url { url } => {
                let host = url.host_str().unwrap_or_default();
                let port = url.port().map_or_else(String::new, |port| format!("_{port}"));
                let query = without_credentials(url)
                    .query()
                    .map_or_else(String::new, |query| format!("@{}", &Digest::of(query.as_bytes()).hex()[..16]));
                let decoded = String::from_utf8_lossy(&percent_decoded(url.path())).into_owned();
                format!("{}/{}{port}{decoded}{query}", url.scheme(), flat(host))
            }
            Self::S3 { bucket, key } => format!("s3/{bucket}/{}", key.trim_end_matches('/')),
            Self::Oci { registry, repository, tag, digest } => {
                let version = match digest {
                    Some(digest) => digest.hex(),
                    None => tag.as_deref().unwrap_or("latest"),
                };
                format!("oci/{}/{repository}@{version}", flat(registry))
            }
        };
        Some(PathBuf::from(path))
    }

    /// Whether it names a file of this machine, for which nothing is ever fetched.
    #[must_use]
    pub fn is_local(&self) -> bool {
        matches!(self, Self::File { .. })
    }
}

/// A name as one part of a path.
fn flat(name: &str) -> String {
    name.replace(['/', ':', '[', ']'], "_")
}

impl fmt::Display for ModelRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hf { org, repo, path, revision } => {
                write!(f, "hf:{org}/{repo}")?;
                if let Some(path) = path {
                    write!(f, "/{path}")?;
                }
                match revision {
                    Some(revision) => write!(f, "@{revision}"),
                    None => Ok(()),
                }
            }
            Self::File { path } => write!(f, "file:{}", Path::display(path)),
            Self::Url { url } => fmt::Display::fmt(&without_credentials(url), f),
            Self::S3 { bucket, key } => write!(f, "s3://{bucket}/{key}"),
            Self::Oci { registry, repository, tag, digest } => {
                write!(f, "oci://{registry}/{repository}")?;
                if let Some(tag) = tag {
                    write!(f, ":{tag}")?;
                }
                match digest {
                    Some(digest) => write!(f, "@{digest}"),
                    None => Ok(()),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
