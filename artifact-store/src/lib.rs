//! Documents kept under the digest of their canonical JSON (LO-ART-01, LO-ART-02).
//!
//! On disk a document is `sha256/<first two digits>/<64 hex digits>.json`, and holds the canonical JSON and nothing else, so
//! that `sha256sum` of the file is its name. `index.db` has what is listed and filtered by; it is made again from the files
//! when it is missing. Files are mode 0600 and directories 0700: documents hold prompts.
//!
//! A document is written to `tmp`, entered in the index, and renamed to its place, in this order. What a crash leaves in
//! `tmp` is taken up at the next start if it is whole, so no entry lacks its file and no file its entry. What is read is
//! hashed first; a file that is not what its name says is set aside as `<name>.damaged` and its entry is removed.
//!
//! Documents that nobody waits for go through a bounded queue to one thread ([`ArtifactStore::put_later`]), which even makes
//! them: whoever hands one over pays for a lock and no more.
//!
//! Retention removes the oldest first, but never the newest of all, and never one that a kept document has as its parent.
//!
//! No document's content is in a log line or in an error.

mod blobs;
mod canonical;
mod document;
mod error;
mod index;
mod key;
mod queue;
mod shared;
mod store;
mod writer;

pub use canonical::canonical_json;
pub use document::{Document, Entry, Lineage, Page, Query};
pub use error::{OpenError, PutError, ReadError};
pub use key::Key;
pub use shared::Limits;
pub use store::{ArtifactStore, Usage};
