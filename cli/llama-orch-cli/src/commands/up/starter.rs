//! A first configuration.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::PathBuf;

use config_schema::Config;
use pool_managerd::devices::discover;

use crate::exit::Exit;
use crate::failure::Failure;

const FILE: &str = "llama-orch.toml";

/// Writes a configuration with one pool, on the GPU with most free memory, into the working directory.
pub(super) fn write(defaults: &Config, model: &str) -> Result<PathBuf, Failure> {
    let found = discover(defaults.engines.nvml_library.as_deref()).map_err(|absent| {
        Failure::new(Exit::Unfit, absent.to_string(), "`llama-orch doctor` says what is missing and how to get it")
    })?;
    let roomiest = found.devices.iter().max_by_key(|device| device.vram_free_bytes);
    let (index, name) = roomiest.map_or((0, "GPU"), |device| (device.index, device.name.as_str()));
    let path = PathBuf::from(FILE);
    let cannot = |error: std::io::Error| Failure::local(format!("cannot write {FILE}: {error}"));
    let mut file = OpenOptions::new().write(true).create_new(true).open(&path).map_err(cannot)?;
    file.write_all(text(model, index, name).as_bytes()).map_err(cannot)?;
    Ok(path)
}

/// What one looks like.
pub(in crate::commands) fn example() -> String {
    text("hf:org/repo/file.gguf", 0, "the first one that nvidia-smi lists")
}

fn text(model: &str, index: u32, gpu: &str) -> String {
    // A JSON string is a basic string of TOML.
    let model = serde_json::Value::from(model);
    let gpu: String = gpu.chars().filter(|letter| !letter.is_control()).collect();
    format!(
        "\
# One pool: llama.cpp, built here with CUDA, on one GPU. Every key is explained in examples/reference.toml.

[[pools]]
id = \"gpu{index}\"
engine = \"llamacpp\"
model = {model}
ctx = 8192
devices = [{index}]                         # {gpu}

[pools.provisioning]
mode = \"source\"                       # needs git, cmake, a compiler and nvcc: `llama-orch doctor`

[pools.provisioning.source]
repo = \"https://github.com/ggml-org/llama.cpp\"
ref = \"b6891\"
"
    )
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use config_schema::{Config, Sources};

    use super::text;

    /// ORCH-3800: what is written is a configuration, whatever the model and the GPU are called.
    #[test]
    fn the_first_configuration_can_be_loaded() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("llama-orch.toml");
        std::fs::write(&path, text("file:/m/a \"b\".gguf", 1, "RTX\n3090 # x")).expect("a file");
        let environment = BTreeMap::from([("HOME", "/home/somebody")]);
        let mut sources = Sources::new(&environment);
        sources.file = Some(path);
        let loaded = Config::load(&sources).expect("it is a configuration");
        let pool = &loaded.config.pools[0];
        assert_eq!((pool.id.to_string(), pool.model.as_str()), ("gpu1".to_owned(), "file:/m/a \"b\".gguf"));
        assert!(pool.is_managed() && pool.device_mask().as_deref() == Some("1"), "{pool:?}");
    }
}
