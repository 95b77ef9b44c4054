//! Models of unlike families, as far as the memory that they take depends on them.
//!
//! Each [`Sample`] has the keys and tensors of a model that exists, as llama.cpp wants them, and no weights: its file is a header
//! and a hole, which has the real file's length and takes no place on a disk. llama.cpp itself loads such a file and says what
//! memory it takes; [`recorded()`] is what it said.
//!
//! Tests compare what we predict with these figures, and so does the simulated engine, which takes memory by them. The vocabulary
//! has its size and no words.

mod families;
mod recorded;
mod writer;

use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;

pub use recorded::{Recorded, recorded};

/// A model.
#[derive(Clone, Debug)]
pub struct Sample {
    /// Its short name, unlike any other's.
    pub name: &'static str,
    header: Vec<u8>,
    file_bytes: u64,
    host_bytes: u64,
}

impl Sample {
    /// Every sample.
    #[must_use]
    pub fn all() -> Vec<Self> {
        families::all()
    }

    /// The sample of this name.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn named(name: &str) -> Self {
        Self::all().into_iter().find(|sample| sample.name == name).unwrap_or_else(|| panic!("no sample {name}"))
    }

    /// What its file begins with: magic, keys, tensors.
    #[must_use]
    pub fn header(&self) -> &[u8] {
        &self.header
    }

    /// Length of its file.
    #[must_use]
    pub const fn file_bytes(&self) -> u64 {
        self.file_bytes
    }

    /// Bytes of weights that stay in the host's memory when all layers are on a GPU: the input embedding, unless it is the output
    /// matrix, too. Source: `dev_input` in `llama_model::load_tensors` of llama.cpp.
    #[must_use]
    pub const fn host_bytes(&self) -> u64 {
        self.host_bytes
    }

    /// Writes its file: the header, and a hole.
    ///
    /// # Errors
    /// When it cannot be written, or the file system has no files of that length.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let mut file = File::create(path)?;
        file.write_all(&self.header)?;
        file.set_len(self.file_bytes)
    }
}
