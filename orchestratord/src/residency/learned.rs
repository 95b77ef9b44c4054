//! What earlier loads took: memory and time. Kept over restarts in `data_dir/catalog/loads.json`.

use std::path::Path;

use catalog_core::CatalogError;
use catalog_core::json_file::{JsonFile, Record};
use serde::{Deserialize, Serialize};

use crate::narrate;

/// Loads that count.
const KEPT: usize = 5;

/// A model's loads on some devices, with a context, slots and an engine.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Loads {
    /// Model, context, slots, devices and engine.
    key: String,
    /// The latest, the newest last.
    loads: Vec<Load>,
}

/// One load.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Load {
    /// Time from the promise of memory until it served, in milliseconds.
    pub(super) took_ms: u64,
    /// Memory that it held of each device then, in bytes; empty where the driver does not tell.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) held: Vec<u64>,
}

impl Record for Loads {
    const SCHEMA_VERSION: u64 = 1;

    fn key(&self) -> &str {
        &self.key
    }
}

impl Loads {
    /// Usual time of a load, in milliseconds: the median.
    pub(super) fn took_ms(&self) -> Option<u64> {
        let mut all: Vec<u64> = self.loads.iter().map(|load| load.took_ms).collect();
        all.sort_unstable();
        all.get(all.len() / 2).copied()
    }

    /// Memory of each device that a load takes, in bytes: the most that one took.
    pub(super) fn held(&self) -> Option<Vec<u64>> {
        let told = || self.loads.iter().filter(|load| !load.held.is_empty());
        let parts = told().next_back()?.held.len();
        let most = |part| told().filter_map(|load| load.held.get(part)).max().copied();
        (0..parts).map(most).collect()
    }
}

/// The file. Without managed pools there is none.
pub(super) struct Learned(Option<JsonFile<Loads>>);

impl Learned {
    pub(super) fn open(data_dir: &Path, is_used: bool) -> Result<Self, CatalogError> {
        let open = || JsonFile::open(&data_dir.join("catalog"), "loads.json");
        Ok(Self(is_used.then(open).transpose()?))
    }

    /// What is known of such loads.
    pub(super) fn of(&self, key: &str) -> Option<Loads> {
        let snapshot = self.0.as_ref()?.read().ok()?;
        snapshot.records.get(key).map(|loads| Loads::clone(loads))
    }

    /// Keeps what a load took. A file that cannot be written costs what it would have taught.
    pub(super) fn keep(&self, key: &str, load: Load) {
        let Some(file) = &self.0 else { return };
        let kept = file.change(|records| {
            let mut loads = records
                .get(key)
                .map_or_else(|| Loads { key: key.to_owned(), loads: Vec::new() }, |loads| Loads::clone(loads));
            loads.loads.push(load);
            let old = loads.loads.len().saturating_sub(KEPT);
            loads.loads.drain(..old);
            records.insert(key.into(), loads.into());
            Ok(((), true))
        });
        if let Err(error) = kept {
            tracing::warn!(error = %narrate::with_causes(&error), "what a load took cannot be kept");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Learned, Load};

    /// LO-SWP-05: the next prediction is what was measured: the usual time, the most memory; also after a restart.
    #[test]
    fn the_next_load_is_predicted_by_the_last() {
        let folder = tempfile::tempdir().expect("a folder");
        let learned = Learned::open(folder.path(), true).expect("it is opened");
        assert!(learned.of("m").is_none());
        for (took_ms, held) in
            [(900, vec![]), (30, vec![7, 1]), (10, vec![5, 2]), (20, vec![6, 2]), (25, vec![]), (22, vec![5, 1])]
        {
            learned.keep("m", Load { took_ms, held });
        }
        let again = Learned::open(folder.path(), true).expect("it is opened");
        let known = again.of("m").expect("it is known");
        assert_eq!((known.took_ms(), known.held()), (Some(22), Some(vec![7, 2])));
    }
}
