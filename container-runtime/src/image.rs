//! What an image is called.

use std::fmt::{self, Display};
use std::str::FromStr;

use serde::Serialize;

/// The digest of an image's manifest: `sha256:` and 64 hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct ImageDigest(String);

impl ImageDigest {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Display for ImageDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for ImageDigest {
    type Err = ImageRefError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let hex = text.strip_prefix("sha256:").unwrap_or_default();
        let is_digest = hex.len() == 64 && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if is_digest { Ok(Self(text.to_owned())) } else { Err(ImageRefError::Digest { digest: text.to_owned() }) }
    }
}

/// Names an image: where it comes from, and which one. Written `[registry/]name[:tag][@sha256:…]`.
///
/// Parsing makes short names whole as docker does (`vllm/vllm-openai` is `docker.io/vllm/vllm-openai`), so that they mean
/// the same to both clients whatever the machine's list of registries says. Without tag and digest the tag is `latest`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct ImageRef {
    /// Registry and name, as in `docker.io/vllm/vllm-openai`.
    pub image: String,
    /// The tag, which may mean another image tomorrow.
    pub tag: Option<String>,
    /// The digest, which may not.
    pub digest: Option<ImageDigest>,
}

/// Why a text names no image.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ImageRefError {
    /// Not a digest.
    #[error("{digest:?} is not an image digest; write `sha256:` and 64 lower-case hexadecimal digits")]
    Digest {
        /// What was given.
        digest: String,
    },
    /// Not a name.
    #[error("{image:?} is not the name of an image; write it as `[registry/]name[:tag][@sha256:…]` in lower case")]
    Name {
        /// What was given.
        image: String,
    },
    /// Not a tag.
    #[error("{tag:?} is not a tag; it has at most 128 letters, digits, `_`, `.` and `-`")]
    Tag {
        /// What was given.
        tag: String,
    },
}

impl ImageRef {
    /// The registry it would be fetched from; `localhost` for images that were built here. For the outbound policy.
    #[must_use]
    pub fn registry(&self) -> &str {
        self.image.split('/').next().unwrap_or_default()
    }

    /// Whether it was built on this machine and can be had from nowhere.
    #[must_use]
    pub fn is_local(&self) -> bool {
        self.registry() == "localhost"
    }

    /// The one name that clients are given. Not both tag and digest: some refuse that.
    #[must_use]
    pub fn reference(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => format!("{}@{digest}", self.image),
            (None, Some(tag)) => format!("{}:{tag}", self.image),
            (None, None) => self.image.clone(),
        }
    }
}

impl Display for ImageRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.image)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

impl FromStr for ImageRef {
    type Err = ImageRefError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (named, digest) = match text.split_once('@') {
            Some((named, digest)) => (named, Some(digest.parse()?)),
            None => (text, None),
        };
        // A colon before the last slash belongs to the registry's port.
        let (name, tag) = match named.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
            _ => (named, None),
        };
        if let Some(tag) = tag.filter(|tag| !is_tag(tag)) {
            return Err(ImageRefError::Tag { tag: tag.to_owned() });
        }
        let image = whole(name).ok_or_else(|| ImageRefError::Name { image: text.to_owned() })?;
        let latest = digest.is_none().then_some("latest");
        Ok(Self { image, tag: tag.or(latest).map(str::to_owned), digest })
    }
}

/// The name with its registry, if it is a name.
fn whole(name: &str) -> Option<String> {
    let (first, rest) = name.split_once('/').unwrap_or(("", name));
    let is_registry = first == "localhost" || first.contains(['.', ':']);
    let path = if is_registry { rest } else { name };
    let is_path = !path.is_empty() && path.split('/').all(is_component);
    if !is_path || (is_registry && !is_host(first)) {
        return None;
    }
    Some(match (is_registry, path.contains('/')) {
        (true, _) => name.to_owned(),
        (false, true) => format!("docker.io/{name}"),
        (false, false) => format!("docker.io/library/{name}"),
    })
}

fn is_host(host: &str) -> bool {
    host.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '[')
        && host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b':' | b'[' | b']'))
}

fn is_component(part: &str) -> bool {
    part.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
        && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'_' | b'-'))
}

fn is_tag(tag: &str) -> bool {
    let first = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    tag.len() <= 128
        && tag.bytes().next().is_some_and(first)
        && tag.bytes().all(|b| first(b) || matches!(b, b'.' | b'-'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::ImageRef;

    const DIGEST: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    /// ORCH-3802: names mean the same whichever client reads them, and a digest goes before a tag.
    #[test]
    fn names() {
        for (text, whole, reference, registry) in [
            ("vllm/vllm-openai", "docker.io/vllm/vllm-openai:latest", "docker.io/vllm/vllm-openai:latest", "docker.io"),
            ("ubuntu:24.04", "docker.io/library/ubuntu:24.04", "docker.io/library/ubuntu:24.04", "docker.io"),
            ("localhost/mock:1", "localhost/mock:1", "localhost/mock:1", "localhost"),
            ("127.0.0.1:5000/a/b", "127.0.0.1:5000/a/b:latest", "127.0.0.1:5000/a/b:latest", "127.0.0.1:5000"),
            (
                "nvcr.io/nvidia/tritonserver:25.01-py3",
                "nvcr.io/nvidia/tritonserver:25.01-py3",
                "nvcr.io/nvidia/tritonserver:25.01-py3",
                "nvcr.io",
            ),
        ] {
            let image: ImageRef = text.parse().expect(text);
            assert_eq!((&*image.to_string(), &*image.reference(), image.registry()), (whole, reference, registry));
        }
        let both: ImageRef = format!("ghcr.io/a/b:v1@{DIGEST}").parse().expect("both");
        assert_eq!(both.reference(), format!("ghcr.io/a/b@{DIGEST}"));
        assert_eq!(both.to_string(), format!("ghcr.io/a/b:v1@{DIGEST}"));
    }

    /// ORCH-3802: what is no name is refused before a client sees it; a name can be no option and no second argument.
    #[test]
    fn refusals() {
        let short = format!("a@{}", &DIGEST[..70]);
        for text in [
            "",
            "-rm",
            "--privileged/x",
            "a b",
            "A/b",
            "a:",
            "a:b c",
            "a@sha256:1",
            "a@md5:00",
            "a//b",
            "/a",
            "a/",
            &short,
            "a.b:c/",
        ] {
            text.parse::<ImageRef>().expect_err(text);
        }
    }

    proptest! {
        /// What was parsed reads the same again.
        #[test]
        fn parsing_its_own_text_changes_nothing(text in "[a-z0-9.:/@_-]{0,40}") {
            if let Ok(image) = text.parse::<ImageRef>() {
                prop_assert_eq!(image.to_string().parse::<ImageRef>(), Ok(image));
            }
        }
    }
}
