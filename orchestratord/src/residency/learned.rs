//! What earlier loads took: memory and time. Kept over restarts in `data_dir/catalog/loads.json`.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

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

/// What is known, and the file that keeps it over restarts; without managed pools there is none.
pub(super) struct Learned {
    known: Mutex<HashMap<String, Loads>>,
    file: Option<Arc<JsonFile<Loads>>>,
}

impl Learned {
    pub(super) fn open(data_dir: &Path, is_used: bool) -> Result<Self, CatalogError> {
        let open = || JsonFile::<Loads>::open(&data_dir.join("catalog"), "loads.json");
        let file = is_used.then(open).transpose()?;
        let mut known = HashMap::new();
        if let Some(file) = &file {
            let snapshot = file.read()?;
            known.extend(snapshot.records.iter().map(|(key, loads)| (key.to_string(), Loads::clone(loads))));
        }
        Ok(Self { known: Mutex::new(known), file: file.map(Arc::new) })
    }

    /// What is known of such loads.
    pub(super) fn of(&self, key: &str) -> Option<Loads> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned()
    }

    /// Takes in what a load took. What comes back writes it down, which takes a disk its time.
    pub(super) fn keep(&self, key: &str, load: Load) -> impl FnOnce() + Send + use<> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let loads = known.entry(key.to_owned()).or_insert_with(|| Loads { key: key.to_owned(), loads: Vec::new() });
        loads.loads.push(load);
        let old = loads.loads.len().saturating_sub(KEPT);
        loads.loads.drain(..old);
        let (file, loads) = (self.file.clone(), loads.clone());
        move || {
            let Some(file) = file else { return };
            let written = file.change(|records| {
                records.insert(loads.key.as_str().into(), loads.into());
                Ok(((), true))
            });
            // It costs what the next life of the daemon would have known.
            if let Err(error) = written {
                tracing::warn!(error = %narrate::with_causes(&error), "what a load took cannot be kept");
            }
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
            learned.keep("m", Load { took_ms, held })();
        }
        let again = Learned::open(folder.path(), true).expect("it is opened");
        let known = again.of("m").expect("it is known");
        assert_eq!((known.took_ms(), known.held()), (Some(22), Some(vec![7, 2])));
    }
}
