//! What llama.cpp said.

use crate::Sample;

/// Memory that llama.cpp takes for a sample.
///
/// Its build for the CPU said so, which has everything in the host's memory; the sizes of buffers are those of a GPU's, as it does
/// flash attention on either. On a GPU the [input embedding](Sample::host_bytes) stays behind, and what CUDA itself takes is added.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// The sample's name.
    pub name: String,
    /// Context of a slot, in tokens.
    pub ctx: u32,
    /// Slots, each with a cache of its own.
    pub slots: u32,
    /// All weights, in MiB, rounded down as the others are.
    pub weights_mib: u64,
    /// Keys and values, in MiB.
    pub kv_mib: u64,
    /// Buffers it computes in, in MiB.
    pub compute_mib: u64,
}

/// Tab-separated: name, context of a slot, slots, and in MiB weights, keys and values, compute buffers. What
/// `xtask/engines/memory_llamacpp.py` printed for the files that the example `write` writes, with `xllamacpp` 2026.10.11549.
const TABLE: &str = include_str!("recorded.tsv");

/// All that was recorded, for every sample.
///
/// # Panics
/// When the table is not what it should be.
#[must_use]
pub fn recorded() -> Vec<Recorded> {
    TABLE.lines().map(Recorded::of_line).collect()
}

impl Recorded {
    /// A line of such a table.
    ///
    /// # Panics
    /// When it is none.
    #[must_use]
    pub fn of_line(line: &str) -> Self {
        let fields: Vec<&str> = line.split('\t').collect();
        let [name, ctx, slots, weights, kv, compute] = fields[..] else { panic!("no six fields: {line}") };
        let number = |text: &str| text.parse().unwrap_or_else(|_| panic!("no number: {text}"));
        Self {
            name: name.to_owned(),
            ctx: ctx.parse().expect("a context"),
            slots: slots.parse().expect("a number of slots"),
            weights_mib: number(weights),
            kv_mib: number(kv),
            compute_mib: number(compute),
        }
    }

    /// What a GPU holds of it, in bytes, apart from what CUDA itself takes: weights, keys and values, compute buffers.
    #[must_use]
    pub fn on_gpu(&self, sample: &Sample) -> (u64, u64, u64) {
        ((self.weights_mib << 20) - sample.host_bytes(), self.kv_mib << 20, self.compute_mib << 20)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::recorded;
    use crate::Sample;

    /// Each sample has been asked for, and the engine found as many bytes of weights as its file has.
    #[test]
    fn every_sample_is_recorded() {
        let all = recorded();
        let names: BTreeSet<_> = all.iter().map(|one| one.name.as_str()).collect();
        assert_eq!(names, Sample::all().iter().map(|sample| sample.name).collect());
        for one in &all {
            let bytes = Sample::named(&one.name).file_bytes();
            // Below the header's length and one that was rounded off.
            assert!((0..3 << 20).contains(&(bytes - (one.weights_mib << 20))), "{one:?}: {bytes}");
        }
    }
}
