//! What llama.cpp takes for a model: as it said itself, for the models that it was asked about, and else by what it does.
//!
//! Nothing here comes from the estimate that the daemon makes, which tests compare with it.

use std::path::Path;

use sample_gguf::{Sample, recorded};

use crate::header::Header;

/// Memory in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Takes {
    /// Weights, of which each GPU has its share.
    pub(crate) weights: u64,
    /// Keys and values, of which each GPU has its share.
    pub(crate) context: u64,
    /// Buffers that it computes in, of which each GPU with a share has its own.
    pub(crate) compute: u64,
}

/// Tokens of a batch (`n_ubatch`).
const BATCH: u64 = 512;
/// Bytes of a number of keys and values, and of the masks of attention.
const HALF: u64 = 2;
/// Bytes of a number that is computed with.
const FLOAT: u64 = 4;

/// Of so many layers in a row all but the last have a window. Source: `set_swa_pattern` in llama.cpp's models.
const PERIODS: [(&str, usize); 3] = [("gemma2", 2), ("gemma3", 6), ("gpt-oss", 2)];

/// What a model with a context of so many tokens for each of so many slots takes. `None` when the file's header does not say
/// enough, or says of something that is not known here.
pub(crate) fn takes(file: &Path, ctx: u64, slots: u64) -> Option<Takes> {
    let header = Header::read(file).ok()?;
    if header.tensors.is_empty() {
        return None;
    }
    said(&header, ctx, slots).or_else(|| worked_out(&header, ctx, slots))
}

fn said(header: &Header, ctx: u64, slots: u64) -> Option<Takes> {
    let same = |sample: &Sample| sample.name == header.name && sample.file_bytes() == header.file_bytes;
    let sample = Sample::all().into_iter().find(same)?;
    let asked = (sample.name, ctx, slots);
    let one = recorded().into_iter().find(|one| (one.name.as_str(), one.ctx.into(), one.slots.into()) == asked)?;
    let (weights, context, compute) = one.on_gpu(&sample);
    Some(Takes { weights, context, compute })
}

fn worked_out(header: &Header, ctx: u64, slots: u64) -> Option<Takes> {
    // Models that keep a state, or keys and values in other ways.
    let other = ["ssm.state_size", "shortconv.l_cache", "attention.key_length_mla", "full_attention_interval"];
    if other.iter().any(|key| header.list(key).is_some()) {
        return None;
    }
    let tensor = |name: &str| header.tensors.get(name).copied();
    // The input embedding stays in the host's memory, unless it is the output, too (`dev_input` in `load_tensors`).
    let host = tensor("output.weight").and(tensor("token_embd.weight")).unwrap_or(0);
    let weights = header.tensors.values().sum::<u64>() - host;
    let cells = ctx.next_multiple_of(256);
    let layers = Layers::of(header)?;
    let (context, masks) = layers.context(cells);
    Some(Takes { weights, context: context * slots, compute: layers.batch(header) + masks })
}

/// Keys and values of the layers, in numbers for each token.
struct Layers {
    /// Whether a layer has a window, and its keys and values.
    layers: Vec<(bool, u64)>,
    window: u64,
    embedding: u64,
    queries: u64,
}

impl Layers {
    fn of(header: &Header) -> Option<Self> {
        let count = usize::try_from(header.number("block_count")?).ok()?;
        let embedding = header.number("embedding_length")?;
        let heads = header.number("attention.head_count")?;
        let head = |side: &str| header.number(&format!("attention.{side}_length")).unwrap_or(embedding / heads.max(1));
        let kv_heads = header.list("attention.head_count_kv").map_or_else(|| vec![heads], <[u64]>::to_vec);
        let period = PERIODS.iter().find(|(name, _)| *name == header.architecture).map(|(_, period)| *period);
        let window = period.and(header.number("attention.sliding_window")).unwrap_or(0);
        let layer = |index: usize| {
            let windowed = window > 0 && period.is_some_and(|period| index % period != period - 1);
            let kv_heads = kv_heads.get(index).or(kv_heads.last()).copied().unwrap_or(0);
            (windowed, kv_heads * (head("key") + head("value")))
        };
        Some(Self { layers: (0..count).map(layer).collect(), window, embedding, queries: heads * head("key") })
    }

    /// Bytes of keys and values of a slot, and of the masks of all (`llama_kv_cache_iswa`).
    fn context(&self, cells: u64) -> (u64, u64) {
        let within = cells.min((self.window + BATCH).next_multiple_of(256));
        let kept = |(windowed, kv): &(bool, u64)| if *windowed { within } else { cells } * kv * HALF;
        let masks = cells + if self.window > 0 { within } else { 0 };
        (self.layers.iter().map(kept).sum(), masks * BATCH * HALF)
    }

    /// Bytes of what is computed of a batch at its widest: a rule that is as good as what llama.cpp has said, see the test.
    fn batch(&self, header: &Header) -> u64 {
        let number = |key: &str| header.list(key).and_then(|all| all.iter().max()).copied().unwrap_or(0);
        let used = number("expert_used_count");
        let wide = number("feed_forward_length").max(used * number("expert_feed_forward_length"));
        let experts = if used > 0 { (2 * used + 1) * self.embedding } else { 0 };
        let kv = self.layers.iter().map(|(_, kv)| *kv).max().unwrap_or(0);
        let widest = (3 * wide).max(experts).max(2 * self.queries + kv);
        BATCH * FLOAT * (5 * self.embedding + widest)
    }
}

#[cfg(test)]
mod tests {
    use sample_gguf::{Sample, recorded};

    use super::{Takes, said, takes, worked_out};
    use crate::header::Header;

    /// LO-HST-40: the engine takes what llama.cpp said that it takes, and what is worked out for other contexts is within two
    /// hundredths of that, compute buffers within seven.
    #[test]
    fn what_is_taken_is_what_was_said() {
        let folder = tempfile::tempdir().expect("a folder");
        for one in recorded() {
            let sample = Sample::named(&one.name);
            let path = folder.path().join(format!("{}.gguf", one.name));
            sample.write(&path).expect("a file with a hole");
            let header = Header::read(&path).expect("a header");
            let (ctx, slots) = (one.ctx.into(), one.slots.into());
            let all = |taken: Takes| (taken.weights + taken.context + taken.compute) as f64;
            let said = said(&header, ctx, slots).expect("it is recorded");
            assert_eq!(takes(&path, ctx, slots), Some(said));
            let worked_out = worked_out(&header, ctx, slots).expect("it says enough");
            assert_eq!(worked_out.context, said.context, "{one:?}");
            assert!((all(worked_out) / all(said) - 1.0).abs() < 0.02, "{one:?}: {worked_out:?} {said:?}");
            let off = worked_out.compute as f64 / said.compute as f64 - 1.0;
            assert!(off.abs() < 0.07, "{one:?}: {worked_out:?} {said:?}");
            assert_eq!(super::said(&header, 777, 1), None, "nobody asked");
        }
    }
}
