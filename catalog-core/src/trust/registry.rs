//! Which registry a model comes from.

use api_types::ModelId;

use crate::ModelRef;

/// Whether a model comes from a registry. Parts are compared whole: `ghcr.io/acme` is not the beginning of `ghcr.io/acme-evil`.
pub(super) fn is_from(id: &ModelId, registry: &str) -> bool {
    let Ok(model) = id.as_str().parse::<ModelRef>() else { return false };
    let registry = registry.trim().trim_end_matches('/');
    let name = match Kind::of(registry) {
        Kind::Reference => Some(reference(&model)),
        Kind::Host => host(&model),
        Kind::Org => org(&model),
    };
    let rest = name.as_ref().and_then(|name| name.strip_prefix(&lower_host(registry)));
    !registry.is_empty() && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// What a registry's name is compared with. Organisations with a dot need `hf:`: anybody may take the name of a host.
enum Kind {
    Reference,
    Host,
    Org,
}

impl Kind {
    fn of(registry: &str) -> Self {
        let first = registry.split('/').next().unwrap_or_default();
        if registry.contains("://") || registry.starts_with("hf:") || registry.starts_with("file:") {
            Self::Reference
        } else if first.contains(['.', ':']) || first == "localhost" {
            Self::Host
        } else {
            Self::Org
        }
    }
}

fn lower_host(registry: &str) -> String {
    match (Kind::of(registry), registry.split_once('/')) {
        (Kind::Host, Some((host, prefix))) => format!("{}/{prefix}", host.to_ascii_lowercase()),
        (Kind::Host, None) => registry.to_ascii_lowercase(),
        _ => registry.to_owned(),
    }
}

/// The reference without revision, tag and digest.
fn reference(model: &ModelRef) -> String {
    match model {
        ModelRef::Hf { .. } => format!("hf:{}", org(model).unwrap_or_default()),
        ModelRef::Oci { registry, repository, .. } => format!("oci://{registry}/{repository}"),
        ModelRef::Url { url } => format!("{}://{}", url.scheme(), host(model).unwrap_or_default()),
        ModelRef::S3 { .. } | ModelRef::File { .. } => model.to_string(),
    }
}

fn host(model: &ModelRef) -> Option<String> {
    match model {
        ModelRef::Hf { .. } => org(model).map(|name| format!("huggingface.co/{name}")),
        ModelRef::Oci { registry, repository, .. } => Some(format!("{registry}/{repository}")),
        ModelRef::Url { url } => {
            let port = url.port().map_or_else(String::new, |port| format!(":{port}"));
            Some(format!("{}{port}{}", url.host_str()?, url.path()))
        }
        ModelRef::S3 { .. } | ModelRef::File { .. } => None,
    }
}

fn org(model: &ModelRef) -> Option<String> {
    let ModelRef::Hf { org, repo, path, .. } = model else { return None };
    Some(path.as_ref().map_or_else(|| format!("{org}/{repo}"), |path| format!("{org}/{repo}/{path}")))
}

#[cfg(test)]
mod tests {
    use super::is_from;

    /// LO-CAT-14: registries are compared in whole parts, by what the reference says.
    #[test]
    fn registries_match_in_whole_parts() {
        let cases = [
            ("hf:acme/model/a.gguf", "acme", true),
            ("hf:acme/model/a.gguf@v1", "acme/model", true),
            ("hf:acme/model@v1", "hf:acme/model", true),
            ("hf:acme/model", "hf:acme", true),
            ("hf:acme/model", "huggingface.co", true),
            ("hf:acme/model", "HuggingFace.co/acme/", true),
            ("hf:acme-evil/model", "acme", false),
            ("hf:acme-evil/model", "hf:acme", false),
            ("hf:ghcr.io/model", "ghcr.io", false),
            ("hf:localhost/model", "localhost", false),
            ("hf:ghcr.io/model", "hf:ghcr.io", true),
            ("oci://ghcr.io/acme/model:v1", "ghcr.io", true),
            ("oci://ghcr.io/acme/model:v1", "ghcr.io/acme", true),
            ("oci://ghcr.io/acme/model:v1", "oci://ghcr.io/acme/model", true),
            ("oci://ghcr.io/acme-evil/model", "ghcr.io/acme", false),
            ("oci://localhost:5000/acme/model", "localhost:5000", true),
            ("oci://localhost:5000/acme/model", "localhost", false),
            ("oci://acme/model", "acme", false),
            ("https://models.example/a/b.gguf", "models.example", true),
            ("https://models.example/a/b.gguf", "models.example/a", true),
            ("https://models.example/a/b.gguf", "https://models.example", true),
            ("http://models.example/a/b.gguf", "https://models.example", false),
            ("https://models.example.evil/a.gguf", "models.example", false),
            ("https://models.example:8443/a.gguf", "models.example", false),
            ("s3://bucket/folder/a.gguf", "s3://bucket", true),
            ("s3://bucket/folder/a.gguf", "s3://bucket/folder", true),
            ("s3://bucket-evil/a.gguf", "s3://bucket", false),
            ("s3://bucket/a.gguf", "bucket", false),
            ("file:/srv/models/a.gguf", "file:/srv/models", true),
            ("file:/srv/models/a.gguf", "file:/srv/mod", false),
            ("file:acme/a.gguf", "acme", false),
            ("file:/srv/models/a.gguf", "", false),
        ];
        for (id, registry, wanted) in cases {
            assert_eq!(is_from(&id.into(), registry), wanted, "{id} from {registry:?}");
        }
    }
}
