//! What models and engines are known, and what their files say.
//!
//! A [`ModelRef`] says where a model comes from and how it must be; a [`CatalogStore`] remembers which ones are here, and an
//! [`EngineCatalogStore`] which engines; [`verify_files`] and [`judge`] find out whether one may be used; the readers find out
//! from a file's header what it holds. Never here: the network, other processes, secrets (LO-CAT-09).

pub mod files;

mod digest;
mod engines;
mod entry;
mod fetch;
mod file_fetcher;
mod fs_catalog;
pub mod json_file;
mod local_files;
mod model_ref;
mod models_dir;
mod sqlite_catalog;
mod store;
mod trust;
mod verdict;

pub use digest::{Digest, DigestError};
pub use engines::{EngineCatalogStore, EngineEntry, FsEngineCatalog};
pub use entry::{CatalogEntry, ResolvedModel, StoredFile};
pub use fetch::{FetchContext, FetchError, Fetched, ModelFetcher, Progress};
pub use file_fetcher::{FileFetcher, default_model_cache_dir};
pub use fs_catalog::FsCatalog;
pub use model_ref::{ModelRef, RefError};
pub use sqlite_catalog::SqliteCatalog;
pub use store::{CatalogError, CatalogStore, ListFilter, Page};
pub use trust::{RootsError, Trust, checked_signatures, judge};
pub use verdict::{FilesVerdict, Verdict, VerifyError, verify_digest, verify_files};
