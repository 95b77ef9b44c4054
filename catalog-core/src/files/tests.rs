use std::fs;
use std::path::Path;

use proptest::prelude::{any, proptest};

use super::fit::{Need, ctx_max, least_vram_bytes, need};
use super::gguf::{MAX_KEPT, MAX_KEYS, MAX_LIST, MAX_TENSORS, Value};
use super::safetensors::{Config, index_total};
use super::{
    FilesError, Header, HeaderError, HeaderReader, LayerShape, ModelInfo, ModelShape, Progress, gguf, read_local,
    safetensors,
};

const MIB: u64 = 1 << 20;

/// Writes GGUF files.
#[derive(Clone)]
struct Writer {
    big_endian: bool,
    version: u32,
    keys: Vec<Vec<u8>>,
    tensors: Vec<Vec<u8>>,
    data: u64,
}

impl Writer {
    fn new(architecture: &str) -> Self {
        let writer = Self { big_endian: false, version: 3, keys: Vec::new(), tensors: Vec::new(), data: 0 };
        writer.text("general.architecture", architecture)
    }

    fn u32(&self, number: u32) -> [u8; 4] {
        if self.big_endian { number.to_be_bytes() } else { number.to_le_bytes() }
    }

    fn u64(&self, number: u64) -> [u8; 8] {
        if self.big_endian { number.to_be_bytes() } else { number.to_le_bytes() }
    }

    fn name(&self, name: &str) -> Vec<u8> {
        [&self.u64(name.len() as u64), name.as_bytes()].concat()
    }

    fn key(mut self, name: &str, kind: u32, value: &[u8]) -> Self {
        self.keys.push([&self.name(name), self.u32(kind).as_slice(), value].concat());
        self
    }

    fn text(self, name: &str, value: &str) -> Self {
        let value = self.name(value);
        self.key(name, 8, &value)
    }

    fn uint(self, name: &str, value: u32) -> Self {
        let value = self.u32(value);
        self.key(name, 4, &value)
    }

    fn uints(self, values: &[(&str, u32)]) -> Self {
        values.iter().fold(self, |writer, (name, value)| writer.uint(name, *value))
    }

    fn array(self, name: &str, kind: u32, count: u64, elements: &[u8]) -> Self {
        let value = [&self.u32(kind), self.u64(count).as_slice(), elements].concat();
        self.key(name, 9, &value)
    }

    fn list(self, name: &str, values: &[u32]) -> Self {
        let elements: Vec<u8> = values.iter().flat_map(|value| self.u32(*value)).collect();
        self.array(name, 4, values.len() as u64, &elements)
    }

    fn vocabulary(self, count: u64) -> Self {
        let words: Vec<u8> = (0..count).flat_map(|word| self.name(&format!("w{word}"))).collect();
        self.array("tokenizer.ggml.tokens", 8, count, &words)
    }

    fn tensor(mut self, name: &str, kind: u32, dims: &[u64]) -> Self {
        let kind_of = gguf::TensorType::of(kind);
        let mut tensor = self.name(name);
        tensor.extend(self.u32(dims.len() as u32));
        tensor.extend(dims.iter().flat_map(|dim| self.u64(*dim)));
        tensor.extend(self.u32(kind));
        tensor.extend(self.u64(self.data));
        self.tensors.push(tensor);
        let bytes = kind_of
            .map_or(0, |kind| dims.iter().fold(1, |all: u64, dim| all.wrapping_mul(*dim)) / kind.block * kind.bytes);
        self.data = self.data.wrapping_add(bytes.wrapping_add(31) & !31);
        self
    }

    fn header(&self) -> Vec<u8> {
        let counts = [self.u64(self.tensors.len() as u64), self.u64(self.keys.len() as u64)].concat();
        [b"GGUF".as_slice(), &self.u32(self.version), &counts, &self.keys.concat(), &self.tensors.concat()].concat()
    }

    fn info(&self) -> ModelInfo {
        let Ok(Some(Header::Gguf(header))) = read(&self.header(), 4096) else { panic!("a header") };
        ModelInfo::of_gguf(&[*header], None).expect("a model")
    }
}

fn read(bytes: &[u8], piece: usize) -> Result<Option<Header>, HeaderError> {
    let mut reader = HeaderReader::default();
    for piece in bytes.chunks(piece) {
        if let Progress::Done(header) = reader.feed(piece)? {
            return Ok(Some(header));
        }
    }
    Ok(None)
}

/// Gemma 3 270M as Q4_K_M, with the tensors of the real file and few of its words.
fn gemma3() -> Writer {
    const F32: u32 = 0;
    const Q5_0: u32 = 6;
    const Q8_0: u32 = 8;
    const Q4_K: u32 = 12;
    const Q6_K: u32 = 14;
    let mut file = Writer::new("gemma3")
        .text("general.name", "Gemma 3 270m")
        .uints(&[
            ("gemma3.context_length", 32768),
            ("gemma3.embedding_length", 640),
            ("gemma3.block_count", 18),
            ("gemma3.feed_forward_length", 2048),
            ("gemma3.attention.head_count", 4),
            ("gemma3.attention.key_length", 256),
            ("gemma3.attention.value_length", 256),
            ("gemma3.attention.sliding_window", 512),
            ("gemma3.attention.head_count_kv", 1),
            ("gemma3.vocab_size", 262_144),
            ("general.file_type", 15),
        ])
        .text("tokenizer.ggml.model", "llama")
        .text("tokenizer.chat_template", &"x".repeat(5000))
        .tensor("token_embd.weight", Q8_0, &[640, 262_144])
        .tensor("output_norm.weight", F32, &[640]);
    for layer in 0..18 {
        let half = layer % 2 == 0;
        let name = |what: &str| format!("blk.{layer}.{what}.weight");
        for (what, length) in
            [("attn_norm", 640), ("post_attention_norm", 640), ("ffn_norm", 640), ("post_ffw_norm", 640)]
        {
            file = file.tensor(&name(what), F32, &[length]);
        }
        file = file
            .tensor(&name("attn_q_norm"), F32, &[256])
            .tensor(&name("attn_k_norm"), F32, &[256])
            .tensor(&name("attn_q"), Q5_0, &[640, 1024])
            .tensor(&name("attn_k"), Q5_0, &[640, 256])
            .tensor(&name("attn_v"), if half { Q5_0 } else { Q8_0 }, &[640, 256])
            .tensor(&name("attn_output"), Q4_K, &[1024, 640])
            .tensor(&name("ffn_gate"), Q5_0, &[640, 2048])
            .tensor(&name("ffn_up"), Q5_0, &[640, 2048])
            .tensor(&name("ffn_down"), if half { Q4_K } else { Q6_K }, &[2048, 640]);
    }
    file
}

/// OC-CORE-1014: architecture, context, quantisation and heads come from the header, whatever its byte order and version.
#[test]
fn a_gguf_header_tells_the_facts() {
    let facts = gemma3().info().facts;
    assert_eq!((facts.format.as_str(), facts.architecture.as_deref()), ("gguf", Some("gemma3")));
    assert_eq!((facts.name.as_deref(), facts.ctx_max), (Some("Gemma 3 270m"), Some(32768)));
    assert_eq!((facts.quant.as_deref(), facts.tokenizer.as_deref()), (Some("Q4_K_M"), Some("llama")));
    assert_eq!((facts.layers, facts.heads, facts.kv_heads), (Some(18), Some(4), Some(1)));
    assert_eq!((facts.vocabulary, facts.chat_template), (Some(262_144), true));
    assert_eq!(facts.parameters, Some(268_098_176));
    // 3 of 18 layers see everything, each with 256 numbers of key and value at 16 bits.
    assert_eq!(facts.kv_bytes_per_token, Some(3 * 512 * 2));

    for version in [2, 3] {
        let mut file = Writer { big_endian: true, version, ..Writer::new("llama") };
        file.keys.clear();
        let file = file.text("general.architecture", "llama").uint("llama.block_count", 7).vocabulary(5);
        let facts = file.info().facts;
        assert_eq!((facts.layers, facts.vocabulary), (Some(7), Some(5)));
    }
}

/// What llama.cpp reported for Gemma 3 270M as Q4_K_M (its server as packaged by xllamacpp 2026.10.11549, `n_ubatch` 512, flash
/// attention, caches not unified): context of a slot, slots, keys and values of all layers, compute buffer; in MiB. The weights
/// were 235.16 MiB each time.
const REPORTED: &[(u32, u32, f64, f64)] = &[
    (2048, 1, 6.0 + 15.0, 21.28),
    (2048, 4, 24.0 + 60.0, 21.28),
    (8192, 1, 24.0 + 15.0, 27.28),
    (8192, 4, 96.0 + 60.0, 27.28),
    (32768, 1, 96.0 + 15.0, 51.28),
    (32768, 4, 384.0 + 60.0, 51.28),
];

/// Weights, keys and values are what the engine reports, and all of it is within a tenth.
#[test]
fn the_need_is_what_the_engine_reports() {
    let shape = gemma3().info().shape.expect("a shape");
    let mib = |bytes: u64| bytes as f64 / MIB as f64;
    for &(ctx, slots, kv, compute) in REPORTED {
        let need = need(&shape, ctx, slots);
        assert!((mib(need.weights_bytes) - 235.16).abs() < 0.01, "{need:?}");
        assert!((mib(need.kv_bytes) - kv).abs() < 0.001, "{need:?}");
        assert!((mib(need.compute_bytes) / compute - 1.0).abs() < 0.1, "{need:?} for {compute}");
        assert!((mib(need.total() - need.overhead_bytes) / (235.16 + kv + compute) - 1.0).abs() < 0.01, "{need:?}");
    }
}

/// Compute buffers that the same engine reported for other widths, at a context of 4096: embedding, feed-forward (of the experts
/// used), queries, keys and values, vocabulary, slots; in MiB.
const REPORTED_WIDTHS: &[(u64, u64, u64, u64, u64, u32, f64)] = &[
    (2048, 5632, 2048, 512, 32_000, 1, 57.02),
    (1024, 1024, 4096, 2048, 32_000, 4, 30.02),
    (1024, 2 * 2048, 1024, 512, 32_000, 1, 38.02),
    (1024, 1024, 4096, 4096, 32_000, 1, 34.02),
    (512, 512, 4096, 8192, 32_000, 64, 41.02),
    (2048, 1024, 2048, 4096, 32_000, 1, 36.02),
    (512, 1024, 4096, 1024, 128_000, 1, 25.02),
    (512, 1024, 4096, 1024, 128_000, 64, 40.27),
];

/// The estimate of compute buffers is not below what the engine takes, and not far above.
#[test]
fn buffers_are_estimated_for_other_widths() {
    for &(embedding, feed_forward, queries, kv, vocabulary, slots, reported) in REPORTED_WIDTHS {
        let layers = vec![LayerShape { kv, ..LayerShape::default() }];
        let shape = ModelShape { layers, vocabulary, embedding, feed_forward, queries, ..ModelShape::default() };
        let estimate = need(&shape, 4096, slots).compute_bytes as f64 / MIB as f64;
        assert!((0.999..1.2).contains(&(estimate / reported)), "{estimate} for {reported}");
    }
}

/// What each device has of its own counts for each of them.
#[test]
fn a_spread_model_needs_more() {
    let need = Need { weights_bytes: 1000, kv_bytes: 100, compute_bytes: 10, overhead_bytes: 1 };
    assert_eq!((need.total(), need.total_on(2)), (1111, 1122));
}

/// The largest context that fits does fit, and a longer one does not.
#[test]
fn the_largest_context_fits_just_so() {
    let shape = gemma3().info().shape.expect("a shape");
    assert_eq!(ctx_max(&shape, 1, 64 << 30), Some(32768));
    assert_eq!(ctx_max(&shape, 1, shape.weights_bytes), None);
    assert_eq!(ctx_max(&shape, 1, least_vram_bytes(&shape)), Some(256));
    for slots in [1, 3] {
        let vram = need(&shape, 10_000, slots).total();
        let ctx = ctx_max(&shape, slots, vram).expect("it fits");
        assert_eq!(ctx, 10_240, "contexts are whole multiples of 256");
        assert!(need(&shape, ctx, slots).total() <= vram && need(&shape, ctx + 1, slots).total() > vram);
    }
}

fn kv_bytes(file: &Writer, ctx: u32) -> u64 {
    need(&file.info().shape.expect("a shape"), ctx, 1).kv_bytes
}

/// Layers count as their architecture has them: windows, heads of each layer, latent attention, states.
#[test]
fn layers_count_as_their_architecture_has_them() {
    let base = |architecture: &str, values: &[(&str, u32)]| {
        let writer = Writer::new(architecture);
        let of = |name: &str| format!("{architecture}.{name}");
        let writer = writer.uint(&of("block_count"), 8).uint(&of("embedding_length"), 512);
        values.iter().fold(writer, |writer, (name, value)| writer.uint(&of(name), *value)).tensor("x", 0, &[4])
    };
    let attention: &[(&str, u32)] = &[("attention.head_count", 8), ("attention.head_count_kv", 2)];
    // Two heads of 512 / 8 numbers, key and value, 16 bits.
    let cell = 2 * 64 * 2 * 2;
    assert_eq!(kv_bytes(&base("llama", attention), 4000), 8 * cell * 4096);

    let windowed = base("gpt-oss", &[attention, &[("attention.sliding_window", 128)]].concat());
    assert_eq!(kv_bytes(&windowed, 4096), 4 * cell * 4096 + 4 * cell * 768);
    let listed = windowed.clone().list("gpt-oss.attention.sliding_window_pattern", &[1, 1, 1, 1, 1, 1, 1, 0]);
    assert_eq!(kv_bytes(&listed, 4096), cell * 4096 + 7 * cell * 768);
    let unused = base("phi3", &[attention, &[("attention.sliding_window", 128)]].concat());
    assert_eq!(kv_bytes(&unused, 4096), 8 * cell * 4096);

    let latent = [("attention.head_count", 8), ("attention.head_count_kv", 1), ("attention.key_length", 576)];
    let latent = base("deepseek2", &[latent.as_slice(), &[("attention.key_length_mla", 192)]].concat());
    assert_eq!(kv_bytes(&latent, 4096), 8 * 576 * 2 * 4096);

    let hybrid = base("nemotron_h", &[("attention.head_count", 8), ("ssm.inner_size", 1024), ("ssm.state_size", 16)])
        .list("nemotron_h.attention.head_count_kv", &[0, 0, 0, 2, 0, 0, 0, 2])
        .uints(&[("nemotron_h.ssm.conv_kernel", 4), ("nemotron_h.ssm.group_count", 1)]);
    let state = 4 * (3 * (1024 + 2 * 16) + 16 * 1024);
    assert_eq!(kv_bytes(&hybrid, 4096), 2 * cell * 4096 + 6 * state);

    let drafting = base("glm4moe", &[attention, &[("nextn_predict_layers", 1)]].concat());
    assert_eq!(kv_bytes(&drafting, 4096), 7 * cell * 4096);
}

/// OC-CORE-1014: an input embedding beside an output matrix stays in the host's memory; of a type that is not
/// known the files' length stands in, and the quantisation is that of most weights where the file names none.
#[test]
fn weights_count_where_they_are() {
    let file = Writer::new("llama").uint("llama.block_count", 1).uint("llama.embedding_length", 256);
    let file = file.tensor("token_embd.weight", 8, &[256, 64]).tensor("output.weight", 12, &[256, 1024]);
    let info = file.info();
    assert_eq!(info.facts.quant.as_deref(), Some("Q4_K"));
    assert_eq!(info.facts.weights_bytes, Some(256 * 64 / 32 * 34 + 1024 * 144));
    assert_eq!(info.shape.expect("a shape").weights_bytes, 1024 * 144);

    let strange = file.tensor("strange", 999, &[7]);
    assert_eq!((strange.info().facts.weights_bytes, strange.info().shape), (None, None));
    let Ok(Some(Header::Gguf(header))) = read(&strange.header(), 99) else { panic!("a header") };
    let sized = ModelInfo::of_gguf(&[*header], Some(MIB)).expect("a model");
    assert_eq!(sized.facts.weights_bytes, Some(1 << 20));
    let adapter = Writer::new("clip").tensor("x", 0, &[4]).info();
    assert_eq!(adapter.shape, None);
}

/// Claims beyond the limits, and contradictions, are refused by name and before anything is allocated for them.
#[test]
fn hostile_headers_are_refused_by_name() {
    use HeaderError::{Limit, Malformed, NotThis, Version};
    let refusal = |bytes: &[u8]| read(bytes, bytes.len()).expect_err("a refusal");
    let preamble = |version: u32, tensors: u64, keys: u64| {
        [b"GGUF".as_slice(), &version.to_le_bytes(), &tensors.to_le_bytes(), &keys.to_le_bytes()].concat()
    };
    let bad = |result: HeaderError| matches!(result, Malformed(_));
    assert_eq!(refusal(&preamble(1, 0, 0)), Version(1));
    assert_eq!(refusal(&preamble(3, u64::MAX, 0)), Limit("tensors", MAX_TENSORS));
    assert_eq!(refusal(&preamble(3, 0, u64::MAX)), Limit("keys", MAX_KEYS));
    let huge = |kind| Writer::new("x").array("a", kind, u64::MAX / 8, &[]).header();
    for kind in [0, 8, 10] {
        assert_eq!(refusal(&huge(kind)), Limit("elements of an array", gguf::MAX_ARRAY));
    }
    assert!(bad(refusal(&Writer::new("x").array("a", 9, 1, &[]).header())));
    assert_eq!(
        refusal(&Writer::new("x").array("a", 10, gguf::MAX_ARRAY, &[]).header()),
        Limit("bytes of the header", gguf::MAX_HEADER)
    );
    assert!(bad(refusal(&Writer::new("x").uint("twice", 1).uint("twice", 2).header())));
    assert!(bad(refusal(&Writer::new("x").key("strange", 13, &[0; 8]).header())));
    assert!(bad(refusal(&Writer::new("x").uint("general.alignment", 0).header())));
    assert!(bad(refusal(&Writer::new("x").tensor("t", 24, &[u64::MAX, 2]).header())));
    assert!(bad(refusal(&Writer::new("x").tensor("t", 8, &[33]).header())));
    let deep = Writer::new("x").tensor("t", 24, &[1; 5]).header();
    assert_eq!(refusal(&deep), Limit("dimensions of a tensor", 4));
    let layers = Writer::new("x").uint("x.block_count", u32::MAX).uint("x.embedding_length", 1).header();
    let Ok(Some(Header::Gguf(header))) = read(&layers, 99) else { panic!("a header") };
    assert_eq!(ModelInfo::of_gguf(&[*header], None), Err(Limit("layers", 1024)));

    let json = |json: &str| [&(json.len() as u64).to_le_bytes(), json.as_bytes()].concat();
    assert_eq!(refusal(&[u64::MAX.to_le_bytes().as_slice(), b"{"].concat()), Limit("bytes of the header", 32 << 20));
    assert_eq!(refusal(b"nothing of the kind"), NotThis("GGUF or safetensors"));
    for hostile in [
        r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}"#,
        r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}"#,
        r#"{"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}}"#,
        r#"{"a":{"dtype":"U8","shape":[1,1,1,1,1,1,1,1,1],"data_offsets":[0,1]}}"#,
        r#"{"a":{"dtype":"U8","shape":[1],"data_offsets":[1,0]}}"#,
        r#"{"a":7}"#,
    ] {
        assert!(bad(refusal(&json(hostile))), "{hostile}");
    }
}

/// A vocabulary is counted and not kept; what is kept stays below the limit.
#[test]
fn memory_does_not_follow_claims() {
    let file = gemma3().vocabulary(100_000).header();
    assert!(file.len() > 1_000_000);
    let used = allocation_counter::measure(|| {
        assert!(
            matches!(read(&file, 4096), Ok(Some(Header::Gguf(header))) if header.length("tokenizer.ggml.tokens") == Some(100_000))
        );
    });
    assert!(used.bytes_max < 64 << 10, "{} bytes", used.bytes_max);

    let list = vec![7; MAX_LIST as usize];
    let greedy = (0..600).fold(Writer::new("x"), |file, key| file.list(&format!("k{key}"), &list)).header();
    let used = allocation_counter::measure(|| {
        assert_eq!(read(&greedy, 4096), Err(HeaderError::Limit("bytes of metadata", MAX_KEPT as u64)));
    });
    assert!(used.bytes_max < 2 * MAX_KEPT as u64, "{} bytes", used.bytes_max);
}

/// OC-CORE-1014: a repository's `config.json` and tensors tell the facts; of layers with sliding windows it names which.
#[test]
fn safetensors_and_their_config_tell_the_facts() {
    let config =
        br#"{"model_type":"gemma3","torch_dtype":"bfloat16","text_config":{"num_hidden_layers":4,"hidden_size":640,
        "num_attention_heads":4,"num_key_value_heads":1,"head_dim":256,"intermediate_size":2048,"vocab_size":1000,
        "max_position_embeddings":32768,"sliding_window":512,
        "layer_types":["sliding_attention","sliding_attention","linear_attention","full_attention"]}}"#;
    let config = Config::parse(config).expect("a config");
    let total = index_total(br#"{"metadata":{"total_size":5000},"weight_map":{"a":"b"}}"#).expect("an index");
    let info = ModelInfo::of_safetensors(&[], Some(&config), total, true).expect("a model");
    let facts = info.facts;
    assert_eq!((facts.architecture.as_deref(), facts.quant.as_deref()), (Some("gemma3"), Some("BF16")));
    assert_eq!((facts.layers, facts.ctx_max, facts.vocabulary), (Some(4), Some(32768), Some(1000)));
    assert_eq!((facts.weights_bytes, facts.kv_bytes_per_token), (Some(5000), Some(512 * 2)));
    let Need { kv_bytes, .. } = need(&info.shape.expect("a shape"), 8192, 1);
    assert_eq!(kv_bytes, 1024 * 8192 + 2 * 1024 * 1024);

    let quantised = br#"{"num_hidden_layers":1,"quantization_config":{"quant_method":"awq","bits":4}}"#;
    let quantised = Config::parse(quantised).expect("a config");
    let part = safetensors::Header { parameters: 7, ..safetensors::Header::default() };
    let facts = ModelInfo::of_safetensors(&[part], Some(&quantised), None, false).expect("a model").facts;
    assert_eq!((facts.quant.as_deref(), facts.parameters), (Some("AWQ-4"), None));
}

fn write(path: &Path, header: &[u8], length: u64) {
    fs::write(path, header).expect("a file");
    fs::File::options().write(true).open(path).and_then(|file| file.set_len(length)).expect("a length");
}

/// All parts of a split model count, whichever of them is named; a missing part and a short file are named.
#[test]
fn models_on_disk_are_read_whole() {
    let folder = tempfile::tempdir().expect("a folder");
    let part = |number: usize| folder.path().join(format!("m-{number:05}-of-00002.gguf"));
    let split = |file: Writer, number: u32| file.uints(&[("split.no", number), ("split.count", 2)]);
    let first = split(gemma3(), 0);
    write(&part(1), &first.header(), 300 * MIB);
    assert!(matches!(read_local(folder.path()), Err(FilesError::Missing(path)) if path == part(2)));
    let mut second = split(Writer::new("gemma3"), 1).tensor("y", 0, &[1000]);
    second.keys.remove(0);
    write(&part(2), &second.header(), 100_000);
    let whole = read_local(folder.path()).expect("a model");
    assert_eq!(whole.facts.weights_bytes, gemma3().info().facts.weights_bytes.map(|bytes| bytes + 4000));
    assert_eq!(whole.facts.architecture.as_deref(), Some("gemma3"));
    assert_eq!(read_local(&part(2)).expect("a model"), whole);
    write(&part(2), &second.header(), 1000);
    assert!(matches!(read_local(&part(1)), Err(FilesError::Incomplete { found_bytes: 1000, .. })));
    write(&part(2), &second.header(), 30);
    assert!(matches!(read_local(&part(1)), Err(FilesError::Header { source: HeaderError::Truncated, .. })));
    fs::write(folder.path().join("other.gguf"), "").expect("a file");
    assert!(matches!(read_local(folder.path()), Err(FilesError::NotOne { found: 2, .. })));

    let folder = tempfile::tempdir().expect("a folder");
    let header = r#"{"a":{"dtype":"BF16","shape":[2,3],"data_offsets":[0,12]}}"#;
    let file = [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &[0; 12]].concat();
    for number in 1..=2 {
        fs::write(folder.path().join(format!("model-{number:05}-of-00002.safetensors")), &file).expect("a file");
    }
    fs::write(folder.path().join("config.json"), r#"{"num_hidden_layers":1,"hidden_size":8}"#).expect("a file");
    let facts = read_local(folder.path()).expect("a model").facts;
    assert_eq!((facts.weights_bytes, facts.parameters, facts.quant.as_deref()), (Some(24), Some(12), Some("BF16")));
}

proptest! {
    /// A header reads the same however it is cut, and a shorter one asks for what is missing.
    #[test]
    fn pieces_do_not_matter(piece in 1_usize..600, cut in any::<proptest::sample::Index>()) {
        let file = gemma3().vocabulary(50).header();
        assert_eq!(read(&file, piece), read(&file, file.len()));
        let mut reader = HeaderReader::default();
        let cut = cut.index(file.len());
        let Ok(Progress::NeedMore(more)) = reader.feed(&file[..cut]) else { panic!("it is not whole") };
        assert!(more > 0 && cut as u64 + more <= file.len() as u64);
    }

    /// Whatever a damaged or hostile file says, reading it ends in an answer within the limit.
    #[test]
    fn damage_is_survived(changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..6)) {
        let json = r#"{"__metadata__":{"format":"pt"},"a":{"dtype":"BF16","shape":[2,3],"data_offsets":[0,12]}}"#;
        let safetensors = [&(json.len() as u64).to_le_bytes(), json.as_bytes()].concat();
        let small = Writer::new("gemma3").uint("gemma3.block_count", 3).uint("gemma3.embedding_length", 8)
            .vocabulary(5).list("gemma3.attention.head_count_kv", &[1, 2, 3]).tensor("t", 8, &[32, 2]).header();
        for mut file in [small, safetensors, gemma3().header()] {
            for (place, byte) in &changes {
                let place = place.index(file.len());
                file[place] = *byte;
            }
            let used = allocation_counter::measure(|| {
                if let Ok(Some(Header::Gguf(header))) = read(&file, 1000)
                    && let Ok(ModelInfo { shape: Some(shape), .. }) = ModelInfo::of_gguf(&[*header], None)
                {
                    let _ = need(&shape, u32::MAX, u32::MAX);
                    let _ = ctx_max(&shape, 1, 1 << 40);
                }
            });
            assert!(used.bytes_max < 1 << 20, "{} bytes", used.bytes_max);
        }
    }
}

/// A value keeps its sign, and a number beyond `i64` is cut off.
#[test]
fn numbers_keep_their_sign() {
    let file = Writer::new("x").key("a", 1, &[0xff]).key("b", 10, &[0xff; 8]).key("c", 11, &[0xff; 8]).header();
    let Ok(Some(Header::Gguf(header))) = read(&file, 7) else { panic!("a header") };
    assert_eq!(header.values["a"], Value::Int(-1));
    assert_eq!(header.values["b"], Value::Int(i64::MAX));
    assert_eq!((&header.values["c"], header.uint("c")), (&Value::Int(-1), None));
}
