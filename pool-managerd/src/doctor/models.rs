//! The model of a pool: here, or to be had; fit to be loaded, as far as its header tells.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use api_types::{DoctorCheck, Engine, PoolFault};
use catalog_core::ModelRef;
use catalog_core::files;
use config_schema::{Config, Pool};
use model_provisioner::{Environment, FetchSettings, Fetcher, Sources, Web};

use super::{failed, passed, warned};
use crate::devices::{DeviceMask, Reading};
use crate::failure::Failure;
use crate::pool::StagedModel;
use crate::workshop::{Presence, need_of, resolve};

const NAME: &str = "model";

/// Whether the pool's model is here and fits its GPUs, or may be fetched.
pub(super) async fn examine(
    pool: &Pool,
    config: &Config,
    web: &Arc<Web>,
    reading: &Reading,
    presence: Presence,
) -> DoctorCheck {
    let wanted = pool.model_to_fetch();
    let reference: ModelRef = match wanted.parse() {
        Ok(reference) => reference,
        Err(error) => {
            let what = format!("`{wanted}` is no reference to a model: {error}");
            let fix = "name a file (file:/path/model.gguf) or a repository (hf:org/repo/file.gguf)";
            return failed(NAME, Some(&pool.id), &Failure::new(PoolFault::ModelUnavailable, what).with_fix(fix));
        }
    };
    let place = place(&reference, &config.catalog.models_dir);
    match place.filter(|place| place.exists()) {
        Some(path) => here(pool, path, resolve(pool, reading).ok(), reading, presence).await,
        None => absent(pool, &reference, config, web),
    }
}

/// Where its files are, or would be.
fn place(reference: &ModelRef, models_dir: &Path) -> Option<PathBuf> {
    match reference {
        ModelRef::File { path } => Some(models_dir.join(path)),
        other => Some(models_dir.join(other.cache_path()?)),
    }
}

fn absent(pool: &Pool, reference: &ModelRef, config: &Config, web: &Arc<Web>) -> DoctorCheck {
    if let ModelRef::File { path } = reference {
        let path = config.catalog.models_dir.join(path);
        let failure = Failure::new(PoolFault::ModelUnavailable, format!("{} does not exist", path.display()))
            .with_fix("put the model there, or name one to be fetched: model = \"hf:org/repo/file.gguf\"");
        return failed(NAME, Some(&pool.id), &failure);
    }
    let fetcher = Sources::new(&Environment::of_process()).map(|sources| {
        Fetcher::new(Arc::clone(web), sources, FetchSettings::new(config.catalog.models_dir.clone(), 1))
    });
    let pinned = pool.provisioning.model.checksum.is_some();
    // What a pool of the configuration needs is what the configuration names.
    match fetcher.and_then(|fetcher| fetcher.permits(reference, true, pinned)) {
        Ok(()) => passed(NAME, Some(&pool.id), format!("{reference} is not here yet and will be fetched")),
        Err(error) => {
            let fault = match error {
                catalog_core::FetchError::Denied(_) => PoolFault::NotAllowed,
                _ => PoolFault::ModelUnavailable,
            };
            failed(NAME, Some(&pool.id), &split(fault, &error.to_string()))
        }
    }
}

async fn here(
    pool: &Pool,
    path: PathBuf,
    mask: Option<DeviceMask>,
    reading: &Reading,
    presence: Presence,
) -> DoctorCheck {
    let shown = path.display().to_string();
    let read = tokio::task::spawn_blocking(move || files::read_local(&path)).await;
    let read = read.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
    let info = match read {
        Ok(info) => info,
        // Others may know more formats than we do.
        Err(_) if pool.engine != Engine::Llamacpp => return passed(NAME, Some(&pool.id), shown),
        Err(error) => {
            let what = format!("{shown} cannot be loaded: {}", with_causes(&error));
            let failure = Failure::new(PoolFault::ModelUnusable, what)
                .with_fix("llama.cpp wants a whole GGUF file; fetch or convert it anew");
            return failed(NAME, Some(&pool.id), &failure);
        }
    };
    let Some(((need_bytes, shape), mask)) = need_of(info, pool).zip(mask) else {
        return passed(NAME, Some(&pool.id), shown);
    };
    let Ok(found) = reading.as_ref() else { return passed(NAME, Some(&pool.id), shown) };
    let model = StagedModel {
        reference: pool.model.clone(),
        path: shown.clone().into(),
        bytes: 0,
        need_bytes: Some(need_bytes),
        shape: Some(shape),
    };
    if let Err(failure) = found.check_fit(&mask, pool, &model, true) {
        return failed(NAME, Some(&pool.id), &failure);
    }
    // What a running engine holds is its own.
    let lacks = (presence == Presence::Down).then(|| found.check_fit(&mask, pool, &model, false).err()).flatten();
    match lacks {
        Some(failure) => warned(NAME, Some(&pool.id), &failure),
        None => passed(NAME, Some(&pool.id), format!("{shown}, needs about {} MiB of GPU memory", need_bytes >> 20)),
    }
}

/// Refusals say before the semicolon what is wrong, and after it what to do.
fn split(fault: PoolFault, text: &str) -> Failure {
    match text.split_once("; ") {
        Some((what, fix)) => Failure::new(fault, what).with_fix(fix),
        None => Failure::new(fault, text),
    }
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| (*cause).source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
