//! What is found out of a model before an engine is started with it, wherever its files come from.

use std::path::{Path, PathBuf};

use api_types::{Engine, PoolFault};
use catalog_core::ModelRef;
use catalog_core::files::{self, FilesError};
use config_schema::Pool;

use crate::failure::Failure;
use crate::pool::StagedModel;
use crate::workshop::need_of;

/// What is to be fetched when a pool is to serve a model: the configuration may fetch something else for it than what tasks call
/// it.
///
/// # Errors
/// It is no reference to a model.
pub fn reference(pool: &Pool, model: &str) -> Result<ModelRef, Failure> {
    let wanted = if model == pool.model { pool.model_to_fetch() } else { model };
    wanted.parse().map_err(|error| {
        let message = format!("`{wanted}` is no reference to a model: {error}");
        Failure::new(PoolFault::ModelUnavailable, message)
            .with_fix("name a file (file:/path/model.gguf) or a repository (hf:org/repo/file.gguf)")
    })
}

/// Reads the header of a model's files: whether they can be what the pool's engine wants, and what memory they need.
///
/// # Errors
/// They are no model for it.
pub async fn inspect(pool: &Pool, model: &str, path: PathBuf) -> Result<StagedModel, Failure> {
    let looked = tokio::task::spawn_blocking(move || {
        let (bytes, info) = (size_of(&path), files::read_local(&path));
        (path, bytes, info)
    });
    let (path, bytes, info) = looked.await.map_err(|_| {
        Failure::new(PoolFault::ModelUnusable, "reading the model's header panicked; the log says where")
    })?;
    let info = info.map(Some).or_else(|error| unreadable(pool.engine, &path, &error))?;
    let (need_bytes, shape) = info.and_then(|info| need_of(info, pool)).unzip();
    Ok(StagedModel { reference: model.to_owned(), path, bytes, need_bytes, shape })
}

/// Files that cannot be read are no model for an engine that wants to read them itself; others may know more formats than we do.
fn unreadable<T>(engine: Engine, path: &Path, error: &FilesError) -> Result<Option<T>, Failure> {
    if engine != Engine::Llamacpp {
        return Ok(None);
    }
    let cause = std::error::Error::source(error).map_or_else(String::new, |cause| format!(": {cause}"));
    let message = format!("{} cannot be loaded: {error}{cause}", path.display());
    Err(Failure::new(PoolFault::ModelUnusable, message)
        .with_fix("llama.cpp wants a whole GGUF file; fetch or convert it anew"))
}

/// Bytes of a file, or of all files of a folder.
fn size_of(path: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(path) else {
        return std::fs::metadata(path).map_or(0, |file| file.len());
    };
    entries.flatten().map(|entry| size_of(&entry.path())).sum()
}
