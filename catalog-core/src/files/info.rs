//! What headers say, in the catalog's words.

use api_types::ModelFacts;

use super::gguf::TensorType;
use super::safetensors::Config;
use super::{HeaderError, gguf, safetensors};

/// Most layers of a model, as in llama.cpp.
const MAX_LAYERS: u64 = 1024;
/// Largest of a model's other dimensions; keeps products of two far from overflow.
const MAX_SIZE: u64 = 1 << 24;

/// What a model's files say about it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ModelInfo {
    /// For people and for placement.
    pub facts: ModelFacts,
    /// For the memory it takes. `None` when the files do not say enough, as those of an adapter or a projector.
    pub shape: Option<ModelShape>,
}

/// What the memory that a model takes depends on. Sizes are counts of numbers unless they say bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModelShape {
    /// Bytes of weights that go to the device.
    pub weights_bytes: u64,
    /// Its layers.
    pub layers: Vec<LayerShape>,
    /// Tokens that a layer with a sliding window looks back.
    pub window: u64,
    /// Context it was trained for.
    pub ctx_train: Option<u64>,
    /// Tokens of the vocabulary.
    pub vocabulary: u64,
    /// Width of the residual stream.
    pub embedding: u64,
    /// Widest feed-forward layer; of all experts that one token uses.
    pub feed_forward: u64,
    /// Experts that one token uses; 0 of a model without experts.
    pub experts_used: u64,
    /// Widest queries of all heads together.
    pub queries: u64,
}

/// One layer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LayerShape {
    /// Keys and values it keeps of one token; 0 where it keeps none, or uses another layer's.
    pub kv: u64,
    /// Whether it keeps only what its sliding window sees.
    pub windowed: bool,
    /// Bytes it keeps of each sequence whatever its length.
    pub state_bytes: u64,
}

impl ModelShape {
    /// Bytes that one more token of context costs at 16 bits, beyond any sliding window.
    #[must_use]
    pub fn kv_bytes_per_token(&self) -> u64 {
        self.layers.iter().filter(|layer| !layer.windowed).map(|layer| layer.kv).sum::<u64>() * KV_BYTES
    }
}

/// Bytes of one number of a key or value: 16 bits, what engines use unless told otherwise.
pub(super) const KV_BYTES: u64 = 2;

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

impl ModelInfo {
    /// What the headers of a model's GGUF files say: its one file, or all parts of a split one, the first of them first.
    /// `files_bytes`, the length of all files, stands in for the weights where a tensor's type is not known.
    ///
    /// # Errors
    /// [`HeaderError`]: no parts, or sizes beyond any real model.
    pub fn of_gguf(parts: &[gguf::Header], files_bytes: Option<u64>) -> Result<Self, HeaderError> {
        let first = parts.first().ok_or(HeaderError::Malformed("there is no file"))?;
        let sum = |of: fn(&gguf::Header) -> u64| parts.iter().fold(0_u64, |sum, part| sum.saturating_add(of(part)));
        let bytes = parts.iter().try_fold(0_u64, |sum, part| sum.checked_add(part.tensor_bytes?)).or(files_bytes);
        let shape = bytes.map(|bytes| gguf_shape(first, parts, bytes)).transpose()?.flatten();
        let model = Gguf::of(first);
        let facts = ModelFacts {
            format: "gguf".to_owned(),
            architecture: model.architecture.map(ToOwned::to_owned),
            name: first.text("general.name").map(ToOwned::to_owned),
            ctx_max: model.uint("context_length").map(signed),
            quant: gguf_quant(parts),
            parameters: Some(signed(sum(|part| part.parameters))),
            layers: model.uint("block_count").map(signed),
            heads: model.largest("attention.head_count").map(signed),
            kv_heads: model.largest("attention.head_count_kv").map(signed),
            vocabulary: model.vocabulary().map(signed),
            tokenizer: first.text("tokenizer.ggml.model").map(ToOwned::to_owned),
            chat_template: first.values.contains_key("tokenizer.chat_template"),
            weights_bytes: bytes.map(signed),
            kv_bytes_per_token: shape.as_ref().map(|shape| signed(shape.kv_bytes_per_token())),
        };
        Ok(Self { facts, shape })
    }

    /// What the headers of a model's safetensors files, its `config.json`, and the bytes that its index names say.
    ///
    /// The headers may be left out where the index is at hand. `chat_template` tells whether there is a file of that name.
    ///
    /// # Errors
    /// [`HeaderError`]: sizes beyond any real model.
    pub fn of_safetensors(
        parts: &[safetensors::Header],
        config: Option<&Config>,
        total_bytes: Option<u64>,
        chat_template: bool,
    ) -> Result<Self, HeaderError> {
        let sum =
            |of: fn(&safetensors::Header) -> u64| parts.iter().fold(0_u64, |sum, part| sum.saturating_add(of(part)));
        let bytes = if parts.is_empty() { total_bytes } else { Some(sum(|part| part.tensor_bytes)) };
        let shape = match (config, bytes) {
            (Some(config), Some(bytes)) => config_shape(config, bytes)?,
            _ => None,
        };
        let quantised = config.and_then(Config::quantisation);
        let uint = |key| config.and_then(|config| config.uint(key)).map(signed);
        let facts = ModelFacts {
            format: "safetensors".to_owned(),
            architecture: config.and_then(Config::architecture).map(ToOwned::to_owned),
            name: None,
            ctx_max: uint("max_position_embeddings"),
            // What packs several weights into one number hides how many there are.
            parameters: (!parts.is_empty() && quantised.is_none()).then(|| signed(sum(|part| part.parameters))),
            quant: quantised.or_else(|| config.and_then(dtype)).or_else(|| safetensors_quant(parts)),
            layers: uint("num_hidden_layers"),
            heads: uint("num_attention_heads"),
            kv_heads: uint("num_key_value_heads").or_else(|| uint("num_attention_heads")),
            vocabulary: uint("vocab_size"),
            tokenizer: None,
            chat_template,
            weights_bytes: bytes.map(signed),
            kv_bytes_per_token: shape.as_ref().map(|shape| signed(shape.kv_bytes_per_token())),
        };
        Ok(Self { facts, shape })
    }
}

/// A GGUF header's keys, of which most begin with the name of the architecture.
struct Gguf<'a> {
    header: &'a gguf::Header,
    architecture: Option<&'a str>,
}

impl<'a> Gguf<'a> {
    fn of(header: &'a gguf::Header) -> Self {
        Self { header, architecture: header.text("general.architecture") }
    }

    fn key(&self, key: &str) -> String {
        format!("{}.{key}", self.architecture.unwrap_or_default())
    }

    fn uint(&self, key: &str) -> Option<u64> {
        self.header.uint(&self.key(key))
    }

    fn per_layer(&self, key: &str, count: usize) -> Option<Vec<u64>> {
        self.header.per_layer(&self.key(key), count)
    }

    fn largest(&self, key: &str) -> Option<u64> {
        let count = self.header.length(&self.key(key)).unwrap_or(1);
        self.per_layer(key, usize::try_from(count).ok()?)?.into_iter().max()
    }

    fn vocabulary(&self) -> Option<u64> {
        self.header.length("tokenizer.ggml.tokens").or_else(|| self.uint("vocab_size"))
    }
}

/// How an architecture's layers alternate: period, and whether the first of each period sees everything rather than the last.
/// Period 0: all are windowed. Files name at most the period. Source: the calls of `set_swa_pattern` in llama.cpp's models.
const WINDOW_PERIODS: &[(&str, u64, bool)] = &[
    ("afmoe", 4, false),
    ("cohere2", 4, false),
    ("exaone-moe", 4, false),
    ("exaone4", 4, false),
    ("gemma-embedding", 6, false),
    ("gemma2", 2, false),
    ("gemma3", 6, false),
    ("gemma3n", 5, false),
    ("gpt-oss", 2, false),
    ("llama4", 4, false),
    ("modern-bert", 3, true),
    ("olmo2", 4, false),
    ("plamo3", 8, false),
    ("smallthinker", 4, true),
];

/// Windows that llama.cpp fixes where the file does not name them.
const WINDOWS: &[(&str, u64)] = &[("gemma2", 4096), ("llama4", 8192)];

/// Architectures of which every fourth layer attends unless the file says otherwise; the others keep a state.
const INTERVALS: &[&str] = &["qwen3next", "qwen35", "qwen35moe"];

fn size(number: u64) -> Result<u64, HeaderError> {
    if number > MAX_SIZE { Err(HeaderError::Limit("of a dimension", MAX_SIZE)) } else { Ok(number) }
}

fn gguf_shape(first: &gguf::Header, parts: &[gguf::Header], bytes: u64) -> Result<Option<ModelShape>, HeaderError> {
    let model = Gguf::of(first);
    let (Some(count), Some(embedding)) = (model.uint("block_count"), model.uint("embedding_length")) else {
        return Ok(None);
    };
    let layers = gguf_layers(&model, count, size(embedding)?)?;
    let head = model.largest("attention.head_count").unwrap_or(0);
    let key = model.uint("attention.key_length").unwrap_or(embedding / head.max(1));
    let used = size(model.uint("expert_used_count").unwrap_or(0))?;
    let experts = used.saturating_mul(model.uint("expert_feed_forward_length").unwrap_or(0));
    // llama.cpp keeps the input embedding in the host's memory, unless it is the output matrix too.
    let untied = parts.iter().any(|part| part.has_output);
    let host = if untied { parts.iter().map(|part| part.embedding_bytes).max().unwrap_or(0) } else { 0 };
    Ok(Some(ModelShape {
        weights_bytes: bytes.saturating_sub(host),
        layers,
        window: size(gguf_window(&model))?,
        ctx_train: model.uint("context_length"),
        vocabulary: size(model.vocabulary().unwrap_or(0))?,
        embedding: size(embedding)?,
        feed_forward: size(model.largest("feed_forward_length").unwrap_or(0).max(experts))?,
        experts_used: used,
        queries: size(head.saturating_mul(key))?,
    }))
}

fn gguf_window(model: &Gguf<'_>) -> u64 {
    let fixed = || WINDOWS.iter().find(|(name, _)| Some(*name) == model.architecture).map_or(0, |(_, window)| *window);
    // Phi 3 names a window that llama.cpp does not use.
    if model.architecture == Some("phi3") { 0 } else { model.uint("attention.sliding_window").unwrap_or_else(fixed) }
}

fn gguf_layers(model: &Gguf<'_>, count: u64, embedding: u64) -> Result<Vec<LayerShape>, HeaderError> {
    if count > MAX_LAYERS {
        return Err(HeaderError::Limit("layers", MAX_LAYERS));
    }
    let layers = count as usize;
    let heads = model.per_layer("attention.head_count", layers).unwrap_or_else(|| vec![0; layers]);
    let kv_heads = model.per_layer("attention.head_count_kv", layers).unwrap_or_else(|| heads.clone());
    let windowed = windowed(model, layers);
    let recurrent = recurrent(model, layers, &kv_heads);
    let state = state_bytes(model, embedding)?;
    // The last layers may predict further tokens, or use the keys and values of layers before them.
    let without = ["nextn_predict_layers", "attention.shared_kv_layers"].map(|key| model.uint(key).unwrap_or(0));
    let own = if model.architecture == Some("gemma3n") { 20 } else { count.saturating_sub(without.iter().sum()) };
    let lengths = |suffix: &str, head: u64| -> Result<u64, HeaderError> {
        let length = |side: &str| {
            let plain = model.uint(&format!("attention.{side}_length")).unwrap_or(embedding / head.max(1));
            model.uint(&format!("attention.{side}_length{suffix}")).unwrap_or(plain)
        };
        // Of multi-head latent attention only the latent vector is kept, which stands in the place of the key.
        let latent = model.uint("attention.key_length_mla").is_some_and(|length| length > 0);
        Ok(size(length("key"))? + if latent { 0 } else { size(length("value"))? })
    };
    (0..layers)
        .map(|layer| {
            let attends = !recurrent[layer] || model.architecture == Some("falcon-h1");
            let suffix = if windowed[layer] { "_swa" } else { "" };
            let kept = attends && (layer as u64) < own;
            let kv = if kept { size(kv_heads[layer])? * lengths(suffix, heads[layer])? } else { 0 };
            Ok(LayerShape { kv, windowed: windowed[layer], state_bytes: if recurrent[layer] { state } else { 0 } })
        })
        .collect()
}

fn windowed(model: &Gguf<'_>, layers: usize) -> Vec<bool> {
    if gguf_window(model) == 0 {
        return vec![false; layers];
    }
    let known = WINDOW_PERIODS.iter().find(|(name, ..)| Some(*name) == model.architecture);
    let named = model.uint("attention.sliding_window_pattern");
    let listed = model.per_layer("attention.sliding_window_pattern", layers).filter(|_| named.is_none());
    match (listed, named, known) {
        (Some(listed), ..) => listed.iter().map(|layer| *layer != 0).collect(),
        (None, None, None) => vec![false; layers],
        (None, named, known) => {
            let (period, first) = known.map_or((1, false), |(_, period, first)| (*period, *first));
            alternating(layers, named.unwrap_or(period), first)
        }
    }
}

/// Which layers are windowed when one of each period is not, the first or the last.
fn alternating(layers: usize, period: u64, first: bool) -> Vec<bool> {
    let whole = if first { 0 } else { period.saturating_sub(1) };
    (0..layers as u64).map(|layer| layer.checked_rem(period).is_none_or(|place| place != whole)).collect()
}

fn recurrent(model: &Gguf<'_>, layers: usize, kv_heads: &[u64]) -> Vec<bool> {
    if model.architecture == Some("falcon-h1") {
        return vec![true; layers];
    }
    let usual = INTERVALS.iter().any(|name| Some(*name) == model.architecture).then_some(4);
    match model.uint("full_attention_interval").or(usual) {
        Some(interval) if interval > 0 => alternating(layers, interval, false),
        _ => kv_heads.iter().map(|heads| *heads == 0).collect(),
    }
}

/// Bytes that a recurrent layer keeps of one sequence, at 32 bits. Source: `n_embd_r` and `n_embd_s` of llama.cpp.
fn state_bytes(model: &Gguf<'_>, embedding: u64) -> Result<u64, HeaderError> {
    let uint = |key| size(model.uint(key).unwrap_or(0));
    if let Some(cache) = model.uint("shortconv.l_cache") {
        return Ok(embedding * size(cache)?.saturating_sub(1) * 4);
    }
    let (inner, state, groups) = (uint("ssm.inner_size")?, uint("ssm.state_size")?, uint("ssm.group_count")?);
    let kernel = uint("ssm.conv_kernel")?.saturating_sub(1);
    let convolution = kernel.saturating_mul(inner.saturating_add((2 * groups).saturating_mul(state)));
    Ok(convolution.saturating_add(state.saturating_mul(inner)).saturating_mul(4))
}

/// Names of `general.file_type`. Source: `enum llama_ftype` of llama.cpp.
const FILE_TYPES: &[(u64, &str)] = &[
    (0, "F32"),
    (1, "F16"),
    (2, "Q4_0"),
    (3, "Q4_1"),
    (7, "Q8_0"),
    (8, "Q5_0"),
    (9, "Q5_1"),
    (10, "Q2_K"),
    (11, "Q3_K_S"),
    (12, "Q3_K_M"),
    (13, "Q3_K_L"),
    (14, "Q4_K_S"),
    (15, "Q4_K_M"),
    (16, "Q5_K_S"),
    (17, "Q5_K_M"),
    (18, "Q6_K"),
    (19, "IQ2_XXS"),
    (20, "IQ2_XS"),
    (21, "Q2_K_S"),
    (22, "IQ3_XS"),
    (23, "IQ3_XXS"),
    (24, "IQ1_S"),
    (25, "IQ4_NL"),
    (26, "IQ3_S"),
    (27, "IQ3_M"),
    (28, "IQ2_S"),
    (29, "IQ2_M"),
    (30, "IQ4_XS"),
    (31, "IQ1_M"),
    (32, "BF16"),
    (36, "TQ1_0"),
    (37, "TQ2_0"),
    (38, "MXFP4"),
    (39, "NVFP4"),
    (40, "Q1_0"),
];

/// Set in `general.file_type` when it was guessed from the tensors.
const GUESSED: u64 = 1024;

fn gguf_quant(parts: &[gguf::Header]) -> Option<String> {
    let named = parts.first()?.uint("general.file_type").map(|kind| kind & !GUESSED);
    let named = FILE_TYPES.iter().find(|(kind, _)| Some(*kind) == named).map(|(_, name)| *name);
    let most = || {
        let kinds = parts.iter().flat_map(|part| &part.by_type);
        Some(TensorType::of(*kinds.max_by_key(|(_, weights)| **weights)?.0)?.name)
    };
    named.or_else(most).map(ToOwned::to_owned)
}

fn safetensors_quant(parts: &[safetensors::Header]) -> Option<String> {
    let kinds = parts.iter().flat_map(|part| &part.by_type);
    kinds.max_by_key(|(_, weights)| **weights).map(|(kind, _)| kind.clone())
}

/// The type of a model's weights, in the words of safetensors.
fn dtype(config: &Config) -> Option<String> {
    let name = config.text("dtype").or_else(|| config.text("torch_dtype"))?;
    let word = match name {
        "float32" => "F32",
        "float16" => "F16",
        "bfloat16" => "BF16",
        _ => return None,
    };
    Some(word.to_owned())
}

fn config_shape(config: &Config, bytes: u64) -> Result<Option<ModelShape>, HeaderError> {
    let uint = |key| config.uint(key);
    let (Some(count), Some(embedding)) = (uint("num_hidden_layers"), uint("hidden_size")) else {
        return Ok(None);
    };
    if count > MAX_LAYERS {
        return Err(HeaderError::Limit("layers", MAX_LAYERS));
    }
    let heads = size(uint("num_attention_heads").unwrap_or(0))?;
    let head = size(uint("head_dim").unwrap_or(embedding / heads.max(1)))?;
    let kv_heads = size(uint("num_key_value_heads").unwrap_or(heads))?;
    let kv = match uint("kv_lora_rank") {
        Some(rank) => size(rank)? + size(uint("qk_rope_head_dim").unwrap_or(0))?,
        None => 2 * kv_heads * head,
    };
    let window = if config.flag("use_sliding_window") == Some(false) { None } else { uint("sliding_window") };
    let kinds = config.texts("layer_types").unwrap_or_default();
    let period = uint("sliding_window_pattern").unwrap_or(0);
    let alternate = alternating(count as usize, period, false);
    let layer = |(index, alternate): (usize, bool)| {
        let kind = kinds.get(index);
        let windowed = kind.map_or(alternate, |kind| kind.contains("sliding") || kind.contains("chunked"));
        let attends = kind.is_none_or(|kind| kind.contains("attention") && !kind.contains("linear"));
        LayerShape { kv: if attends { kv } else { 0 }, windowed: window.is_some() && windowed, state_bytes: 0 }
    };
    let used = size(uint("num_experts_per_tok").unwrap_or(0))?;
    let experts = used.saturating_mul(uint("moe_intermediate_size").unwrap_or(0));
    Ok(Some(ModelShape {
        weights_bytes: bytes,
        layers: alternate.into_iter().enumerate().map(layer).collect(),
        window: size(window.unwrap_or(0))?,
        ctx_train: uint("max_position_embeddings"),
        vocabulary: size(uint("vocab_size").unwrap_or(0))?,
        embedding: size(embedding)?,
        feed_forward: size(config.largest("intermediate_size").unwrap_or(0).max(experts))?,
        experts_used: used,
        queries: size(heads.saturating_mul(head))?,
    }))
}
