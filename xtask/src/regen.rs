//! Writes the generated files, each only when it changes. Tests of the crates they come from compare them and name these
//! commands.

use std::path::Path;

use anyhow::Context as _;

use crate::repo;

const CONFIG_SCHEMA: &str = "contracts/config-schema/llama-orch.schema.json";

pub(crate) fn all() -> anyhow::Result<()> {
    openapi()?;
    schema()
}

/// The OpenAPI documents and what else is generated from the API types.
pub(crate) fn openapi() -> anyhow::Result<()> {
    for (path, text) in api_types::openapi::documents() {
        write_if_changed(&repo::path(path), &text)?;
    }
    Ok(())
}

/// The configuration file's JSON Schema.
pub(crate) fn schema() -> anyhow::Result<()> {
    write_if_changed(&repo::path(CONFIG_SCHEMA), &config_schema::json_schema())
}

fn write_if_changed(path: &Path, text: &str) -> anyhow::Result<()> {
    if std::fs::read_to_string(path).is_ok_and(|present| present == text) {
        return Ok(());
    }
    let folder = path.parent().context("a generated file lies in a folder")?;
    std::fs::create_dir_all(folder)?;
    std::fs::write(path, text).with_context(|| format!("could not write {}", repo::shown(path)))?;
    println!("wrote {}", repo::shown(path));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::write_if_changed;

    /// LO-TOOL-04: a second run leaves the file alone.
    #[test]
    fn writes_only_what_changed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/file.yaml");
        write_if_changed(&path, "a").unwrap();
        let mut permissions = std::fs::metadata(&path).unwrap().permissions();
        permissions.set_readonly(true);
        std::fs::set_permissions(&path, permissions).unwrap();
        let written = std::fs::metadata(&path).unwrap().modified().unwrap();
        write_if_changed(&path, "a").unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().modified().unwrap(), written);
    }
}
