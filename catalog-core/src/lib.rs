//! What models and engines are known, and what their files say.
//!
//! A [`ModelRef`] says where a model comes from and how it must be; a [`CatalogStore`] remembers which ones are here; the
//! readers find out from a file's header what it holds. Never here: the network, other processes, secrets (LO-CAT-09).

pub mod files;

mod digest;
mod entry;
mod fetch;
mod model_ref;
mod store;

pub use digest::{Digest, DigestError};
pub use entry::{CatalogEntry, ResolvedModel, StoredFile};
pub use fetch::{FetchContext, FetchError, Fetched, ModelFetcher, Progress};
pub use model_ref::{ModelRef, RefError};
pub use store::{CatalogError, CatalogStore, ListFilter, Page};
