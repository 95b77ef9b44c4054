//! Manifests and indices, as far as models need them.

use std::collections::BTreeMap;

use catalog_core::{Digest, FetchError, ModelRef};
use serde::Deserialize;

use crate::plain_name;

/// What is understood, for `Accept`.
pub(super) const MEDIA_TYPES: [&str; 4] = [
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
];
/// Most layers of an artifact.
const MOST_LAYERS: usize = 1000;
/// Annotations that hold a layer's file name, ORAS' first.
const NAMES: [&str; 2] = ["org.opencontainers.image.title", "org.cncf.model.filepath"];
/// Says that a layer is a packed folder (ORAS).
const UNPACK: &str = "io.deis.oras.content.unpack";
/// What an artifact without layers has for one.
const EMPTY: &str = "application/vnd.oci.empty.v1+json";

/// A document behind a tag.
pub(super) enum Content {
    /// One artifact.
    Manifest(Manifest),
    /// A choice of artifacts.
    Index(Index),
}

/// One artifact.
pub(super) struct Manifest {
    /// Its own digest.
    pub(super) digest: Digest,
    layers: Vec<Descriptor>,
}

/// A choice of artifacts.
pub(super) struct Index(Vec<Descriptor>);

/// A layer that is a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Layer {
    pub(super) name: String,
    pub(super) digest: Digest,
    pub(super) size: u64,
}

#[derive(Deserialize)]
struct Document {
    layers: Option<Vec<Descriptor>>,
    manifests: Option<Vec<Descriptor>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    media_type: String,
    digest: String,
    size: u64,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
    platform: Option<Platform>,
}

#[derive(Deserialize)]
struct Platform {
    architecture: String,
    os: String,
}

impl Content {
    pub(super) fn parse(body: &[u8], model: &ModelRef) -> Result<Self, FetchError> {
        let unusable = |why| FetchError::Unsupported(format!("{model}: its manifest {why}"));
        let document: Document =
            serde_json::from_slice(body).map_err(|_| unusable("is none that OCI or Docker's schema 2 knows"))?;
        match (document.layers, document.manifests) {
            (Some(layers), None) if layers.len() <= MOST_LAYERS => {
                Ok(Self::Manifest(Manifest { digest: Digest::of(body), layers }))
            }
            (Some(_), None) => Err(unusable("has too many layers")),
            (None, Some(manifests)) => Ok(Self::Index(Index(manifests))),
            // Who takes it for a manifest and who takes it for an index would see different models under one digest.
            (Some(_), Some(_)) => Err(unusable("is a manifest and an index at once")),
            (None, None) => Err(unusable("has no layers")),
        }
    }
}

impl Index {
    /// The only one, else the first for no platform in particular, else the first for Linux on x86-64.
    pub(super) fn choose(self, model: &ModelRef) -> Result<Digest, FetchError> {
        // Attestations of what an image was built from are of the platform `unknown`.
        let is_known = |one: &Descriptor| one.platform.as_ref().is_none_or(|platform| platform.os != "unknown");
        let choice: Vec<_> = self.0.iter().filter(|one| is_known(one)).collect();
        let only = || if let [only] = choice[..] { Some(only) } else { None };
        let general = || choice.iter().copied().find(|one| one.platform.is_none());
        let own = || {
            choice.iter().copied().find(|one| {
                one.platform.as_ref().is_some_and(|platform| platform.os == "linux" && platform.architecture == "amd64")
            })
        };
        let chosen = only().or_else(general).or_else(own).ok_or_else(|| {
            FetchError::Unsupported(format!("{model}: nothing in its index is for linux/amd64; name one by its digest"))
        })?;
        chosen.digest(model)
    }
}

impl Manifest {
    /// Its layers as files.
    pub(super) fn files(&self, model: &ModelRef) -> Result<Vec<Layer>, FetchError> {
        let layers = self.layers.iter().filter(|layer| layer.media_type != EMPTY);
        let files = layers.map(|layer| layer.file(model)).collect::<Result<Vec<_>, _>>()?;
        if files.is_empty() {
            return Err(FetchError::Unsupported(format!("{model}: it has no layers, and so no files")));
        }
        Ok(files)
    }
}

impl Descriptor {
    fn digest(&self, model: &ModelRef) -> Result<Digest, FetchError> {
        let unknown = |_| FetchError::Unsupported(format!("{model}: a digest in its manifest is not a sha256"));
        self.digest.parse().map_err(unknown)
    }

    fn file(&self, model: &ModelRef) -> Result<Layer, FetchError> {
        let digest = self.digest(model)?;
        let named = NAMES.iter().find_map(|name| self.annotations.get(*name));
        let is_packed = self.annotations.contains_key(UNPACK)
            || self.media_type.contains(".tar") && named.is_none_or(|name| !name.contains(".tar"));
        // ORAS calls each layer a tar unless told otherwise, and names the file it is.
        let is_plain = named.is_some() && self.media_type == "application/vnd.oci.image.layer.v1.tar";
        if is_packed && !is_plain {
            return Err(FetchError::Unsupported(format!(
                "{model}: the layer {digest} is a packed folder, such as container images have; its files must be layers of \
                 their own"
            )));
        }
        let name = match named {
            Some(name) => plain_name(name)?,
            None => format!("{}.{}", digest.hex(), extension(&self.media_type)),
        };
        Ok(Layer { name, digest, size: self.size })
    }
}

/// What files of a kind are called.
fn extension(media_type: &str) -> &'static str {
    match media_type {
        "application/vnd.docker.ai.mmproj" | "application/vnd.ollama.image.model" => "gguf",
        _ if media_type.contains("gguf") => "gguf",
        _ if media_type.contains("safetensors") => "safetensors",
        _ if media_type.ends_with("json") || media_type == "application/vnd.ollama.image.params" => "json",
        _ if media_type.contains("license") || media_type.starts_with("text/") => "txt",
        _ => "bin",
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{Strategy as _, any, proptest};
    use serde_json::{Value, json};

    use super::*;

    const HEX: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

    fn model() -> ModelRef {
        "oci://registry.example/llm/tiny:1".parse().unwrap()
    }

    fn descriptor(media_type: &str, more: &Value) -> Value {
        let mut descriptor = json!({"mediaType": media_type, "digest": format!("sha256:{HEX}"), "size": 4});
        descriptor.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        descriptor
    }

    fn titled(media_type: &str, title: &str) -> Value {
        descriptor(media_type, &json!({"annotations": {"org.opencontainers.image.title": title}}))
    }

    fn names(layers: &[Value]) -> Result<Vec<String>, String> {
        let body = serde_json::to_vec(&json!({"schemaVersion": 2, "layers": layers})).unwrap();
        let Content::Manifest(manifest) = Content::parse(&body, &model()).map_err(|error| error.to_string())? else {
            panic!("it is a manifest")
        };
        let files = manifest.files(&model()).map_err(|error| error.to_string())?;
        Ok(files.into_iter().map(|file| file.name).collect())
    }

    /// ORCH-3090: files are called what their publishers call them, else by digest and kind.
    #[test]
    fn names_of_layers() {
        let oci = "application/vnd.oci.image.layer.v1.tar";
        for (layer, name) in [
            (titled(oci, "tiny.gguf"), "tiny.gguf".to_owned()),
            (titled("application/x", "a/b.safetensors"), "a/b.safetensors".to_owned()),
            (titled("application/x-tar", "corpus.tar"), "corpus.tar".to_owned()),
            (
                descriptor("application/x", &json!({"annotations": {"org.cncf.model.filepath": "m.bin"}})),
                "m.bin".into(),
            ),
            (descriptor("application/vnd.docker.ai.gguf.v3", &json!({})), format!("{HEX}.gguf")),
            (descriptor("application/vnd.ollama.image.model", &json!({})), format!("{HEX}.gguf")),
            (descriptor("application/vnd.docker.ai.license", &json!({})), format!("{HEX}.txt")),
            (descriptor("application/x-unheard-of", &json!({})), format!("{HEX}.bin")),
        ] {
            assert_eq!(names(std::slice::from_ref(&layer)), Ok(vec![name]), "{layer}");
        }
    }

    /// LO-CAT-10: a layer's name leads nowhere but below the model's folder, and nothing is unpacked.
    #[test]
    fn refuses_layers_that_are_no_plain_files() {
        for title in
            ["../x", "/etc/passwd", "a//b", "a\\b", "a/../../b", "", ".", "x\u{0}y", "m.gguf.part", "m.part.json"]
        {
            assert!(names(&[titled("application/x", title)]).unwrap_err().contains("plain path"), "{title:?}");
        }
        for layer in [
            descriptor("application/vnd.oci.image.layer.v1.tar+gzip", &json!({})),
            descriptor("application/vnd.docker.image.rootfs.diff.tar.gzip", &json!({})),
            titled("application/vnd.oci.image.layer.v1.tar+gzip", "folder"),
        ] {
            assert!(names(std::slice::from_ref(&layer)).unwrap_err().contains("packed"), "{layer}");
        }
        let sha512 = json!({"mediaType": "application/x", "digest": "sha512:00", "size": 1});
        assert!(names(&[sha512]).unwrap_err().contains("sha256"));
        assert!(names(&[descriptor(EMPTY, &json!({}))]).unwrap_err().contains("no files"));
        assert!(names(&vec![titled("a/b", "x"); MOST_LAYERS + 1]).unwrap_err().contains("too many"));
    }

    fn chosen(manifests: &Value) -> Result<String, String> {
        let body = serde_json::to_vec(&json!({"schemaVersion": 2, "manifests": manifests})).unwrap();
        let Ok(Content::Index(index)) = Content::parse(&body, &model()) else { panic!("it is an index") };
        index.choose(&model()).map(|digest| digest.hex()[..1].to_owned()).map_err(|error| error.to_string())
    }

    /// ORCH-3090: of several artifacts the one for any platform, else the one for this.
    #[test]
    fn chooses_from_an_index() {
        let one = |digit: &str, platform: Option<(&str, &str)>| {
            let digest = format!("sha256:{}", digit.repeat(64));
            let platform = platform.map(|(os, architecture)| json!({"os": os, "architecture": architecture}));
            json!({"mediaType": MEDIA_TYPES[0], "digest": digest, "size": 1, "platform": platform})
        };
        let arm = || one("1", Some(("linux", "arm64")));
        let amd = || one("2", Some(("linux", "amd64")));
        let attestation = || one("3", Some(("unknown", "unknown")));
        assert_eq!(chosen(&json!([attestation(), arm()])), Ok("1".to_owned()));
        assert_eq!(chosen(&json!([arm(), amd()])), Ok("2".to_owned()));
        assert_eq!(chosen(&json!([arm(), amd(), one("4", None)])), Ok("4".to_owned()));
        assert!(chosen(&json!([arm(), one("5", Some(("windows", "amd64")))])).unwrap_err().contains("linux/amd64"));
        assert!(chosen(&json!([])).is_err());
    }

    /// ORCH-3090: a document that could be read in two ways, or in none, is refused.
    #[test]
    fn refuses_what_it_cannot_read() {
        for (body, why) in [
            (json!({"layers": [], "manifests": []}), "at once"),
            (json!({"schemaVersion": 1, "fsLayers": []}), "no layers"),
            (json!({"layers": [{"mediaType": "a/b", "digest": "sha256:0", "size": -1}]}), "none that"),
            (json!([]), "none that"),
        ] {
            let Err(error) = Content::parse(&serde_json::to_vec(&body).unwrap(), &model()) else {
                panic!("{body} is refused")
            };
            assert!(error.to_string().contains(why), "{body}: {error}");
        }
    }

    proptest! {
        /// LO-CAT-10: whatever a registry sends, reading it does not panic, and no name leaves the folder.
        #[test]
        fn any_manifest(title in any::<String>(), media_type in ".{0,40}", junk in any::<Vec<u8>>().prop_map(|bytes| bytes)) {
            let _ = Content::parse(&junk, &model());
            if let Ok(found) = names(&[titled(&media_type, &title)]) {
                let escapes = |part: &str| matches!(part, "" | "." | "..") || part.contains('\\');
                assert!(!found[0].split('/').any(escapes), "{found:?}");
            }
        }
    }
}
