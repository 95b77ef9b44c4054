//! The models. Sizes are those of the models named; which tensor has which type is as `llama-quantize` does it, roughly.

use crate::Sample;
use crate::writer::{F32, MXFP4, Q4_K, Q5_0, Q6_K, Q8_0, Type, Writer};

pub(crate) fn all() -> Vec<Sample> {
    vec![
        gemma3_270m(),
        qwen2_05b(),
        llama_8b(),
        mistral_7b(),
        qwen3_14b(),
        phi3_mini(),
        gemma2_9b(),
        gpt_oss_20b(),
        qwen3_30b_a3b(),
        granite_3b_a800m(),
    ]
}

/// Sizes of a model with plain attention.
struct Dense {
    layers: u32,
    embedding: u32,
    feed_forward: u32,
    heads: u32,
    kv_heads: u32,
    head: u32,
    ctx: u32,
    vocabulary: u32,
    /// Whether it has an output matrix of its own.
    untied: bool,
}

impl Dense {
    fn begin(&self, name: &'static str, architecture: &'static str, embedding: Type) -> Writer {
        let writer = Writer::new(name, architecture, self.vocabulary)
            .uints(&[
                ("context_length", self.ctx),
                ("embedding_length", self.embedding),
                ("block_count", self.layers),
                ("feed_forward_length", self.feed_forward),
                ("attention.head_count", self.heads),
                ("attention.head_count_kv", self.kv_heads),
                ("attention.key_length", self.head),
                ("attention.value_length", self.head),
                ("rope.dimension_count", self.head),
            ])
            .float("attention.layer_norm_rms_epsilon", 1e-6)
            .float("rope.freq_base", 1e6);
        let wide = [u64::from(self.embedding), u64::from(self.vocabulary)];
        let writer = writer.tensor("token_embd.weight", embedding, &wide).tensor("output_norm.weight", F32, &wide[..1]);
        if self.untied { writer.tensor("output.weight", Q6_K, &wide) } else { writer }
    }

    /// Norms, queries, keys, values, output.
    fn attention(&self, writer: Writer, layer: u32, plain: Type, fine: Type) -> Writer {
        let (embedding, kv) = (u64::from(self.embedding), u64::from(self.kv_heads * self.head));
        let queries = u64::from(self.heads * self.head);
        writer.layer(
            layer,
            &[
                ("attn_norm.weight", F32, &[embedding]),
                ("attn_q.weight", plain, &[embedding, queries]),
                ("attn_k.weight", plain, &[embedding, kv]),
                ("attn_v.weight", if layer.is_multiple_of(2) { fine } else { plain }, &[embedding, kv]),
                ("attn_output.weight", plain, &[queries, embedding]),
            ],
        )
    }

    fn feed_forward(&self, writer: Writer, layer: u32, plain: Type, fine: Type) -> Writer {
        let (embedding, wide) = (u64::from(self.embedding), u64::from(self.feed_forward));
        writer.layer(
            layer,
            &[
                ("ffn_norm.weight", F32, &[embedding]),
                ("ffn_gate.weight", plain, &[embedding, wide]),
                ("ffn_up.weight", plain, &[embedding, wide]),
                ("ffn_down.weight", if layer.is_multiple_of(2) { fine } else { plain }, &[wide, embedding]),
            ],
        )
    }

    /// Norms of each head's queries and keys.
    fn head_norms(&self, writer: Writer, layer: u32) -> Writer {
        let head = u64::from(self.head);
        writer.layer(layer, &[("attn_q_norm.weight", F32, &[head]), ("attn_k_norm.weight", F32, &[head])])
    }

    /// The norms that Gemma has after attention and feed-forward.
    fn post_norms(&self, writer: Writer, layer: u32) -> Writer {
        let width = u64::from(self.embedding);
        let norms: [(&str, Type, &[u64]); 2] =
            [("post_attention_norm.weight", F32, &[width]), ("post_ffw_norm.weight", F32, &[width])];
        writer.layer(layer, &norms)
    }

    fn all(&self, writer: Writer, plain: Type, fine: Type, more: impl Fn(Writer, u32) -> Writer) -> Sample {
        let layer = |writer, layer| {
            let writer = self.attention(writer, layer, plain, fine);
            more(self.feed_forward(writer, layer, plain, fine), layer)
        };
        (0..self.layers).fold(writer, layer).done()
    }
}

/// Gemma 3 270M, 8 bits: small, windows of 512 tokens on most layers, embedding and output are one.
fn gemma3_270m() -> Sample {
    let model = Dense {
        layers: 18,
        embedding: 640,
        feed_forward: 2048,
        heads: 4,
        kv_heads: 1,
        head: 256,
        ctx: 32_768,
        vocabulary: 262_144,
        untied: false,
    };
    let writer = model.begin("gemma3-270m", "gemma3", Q8_0).uint("attention.sliding_window", 512);
    model.all(writer, Q5_0, Q8_0, |writer, layer| model.post_norms(model.head_norms(writer, layer), layer))
}

/// Qwen 2.5 0.5B, 8 bits: biases, embedding and output are one.
fn qwen2_05b() -> Sample {
    let model = Dense {
        layers: 24,
        embedding: 896,
        feed_forward: 4864,
        heads: 14,
        kv_heads: 2,
        head: 64,
        ctx: 32_768,
        vocabulary: 151_936,
        untied: false,
    };
    let biases = |writer: Writer, layer| {
        writer.layer(layer, &[("attn_q.bias", F32, &[896]), ("attn_k.bias", F32, &[128]), ("attn_v.bias", F32, &[128])])
    };
    model.all(model.begin("qwen2.5-0.5b", "qwen2", Q8_0), Q8_0, Q8_0, biases)
}

/// Llama 3.1 8B, 4 bits: what most models look like.
fn llama_8b() -> Sample {
    let model = Dense {
        layers: 32,
        embedding: 4096,
        feed_forward: 14_336,
        heads: 32,
        kv_heads: 8,
        head: 128,
        ctx: 131_072,
        vocabulary: 128_256,
        untied: true,
    };
    model.all(model.begin("llama-3.1-8b", "llama", Q4_K), Q4_K, Q6_K, |writer, _| writer)
}

/// Mistral 7B v0.3, 8 bits: large weights and a small vocabulary.
fn mistral_7b() -> Sample {
    let model = Dense {
        layers: 32,
        embedding: 4096,
        feed_forward: 14_336,
        heads: 32,
        kv_heads: 8,
        head: 128,
        ctx: 32_768,
        vocabulary: 32_768,
        untied: true,
    };
    model.all(model.begin("mistral-7b", "llama", Q8_0), Q8_0, Q8_0, |writer, _| writer)
}

/// Qwen 3 14B, 4 bits.
fn qwen3_14b() -> Sample {
    let model = Dense {
        layers: 40,
        embedding: 5120,
        feed_forward: 17_408,
        heads: 40,
        kv_heads: 8,
        head: 128,
        ctx: 40_960,
        vocabulary: 151_936,
        untied: true,
    };
    model.all(model.begin("qwen3-14b", "qwen3", Q4_K), Q4_K, Q6_K, |writer, layer| model.head_norms(writer, layer))
}

/// Phi 3 mini, 4 bits: as many heads of keys and values as of queries, fused matrices, a window that is named and not used.
fn phi3_mini() -> Sample {
    let model = Dense {
        layers: 32,
        embedding: 3072,
        feed_forward: 8192,
        heads: 32,
        kv_heads: 32,
        head: 96,
        ctx: 4096,
        vocabulary: 32_064,
        untied: true,
    };
    let writer = model.begin("phi3-mini", "phi3", Q4_K).uint("attention.sliding_window", 2047);
    let layer = |writer: Writer, layer| {
        writer.layer(
            layer,
            &[
                ("attn_norm.weight", F32, &[3072]),
                ("attn_qkv.weight", Q4_K, &[3072, 9216]),
                ("attn_output.weight", Q4_K, &[3072, 3072]),
                ("ffn_norm.weight", F32, &[3072]),
                ("ffn_up.weight", Q4_K, &[3072, 16_384]),
                ("ffn_down.weight", Q6_K, &[8192, 3072]),
            ],
        )
    };
    (0..model.layers).fold(writer, layer).done()
}

/// Gemma 2 9B, 4 bits: every other layer has a window, a vocabulary of 256 thousand, wide heads.
fn gemma2_9b() -> Sample {
    let model = Dense {
        layers: 42,
        embedding: 3584,
        feed_forward: 14_336,
        heads: 16,
        kv_heads: 8,
        head: 256,
        ctx: 8192,
        vocabulary: 256_000,
        untied: false,
    };
    let writer = model.begin("gemma2-9b", "gemma2", Q6_K).uint("attention.sliding_window", 4096);
    let writer = writer.float("attn_logit_softcapping", 50.0).float("final_logit_softcapping", 30.0);
    model.all(writer, Q4_K, Q6_K, |writer, layer| model.post_norms(writer, layer))
}

/// gpt-oss 20B: experts of 4 bits with biases, windows of 128 tokens on every other layer, sinks.
fn gpt_oss_20b() -> Sample {
    let model = Dense {
        layers: 24,
        embedding: 2880,
        feed_forward: 2880,
        heads: 64,
        kv_heads: 8,
        head: 64,
        ctx: 131_072,
        vocabulary: 201_088,
        untied: false,
    };
    let wide = [2880, 201_088];
    let writer = model.begin("gpt-oss-20b", "gpt-oss", Q8_0).tensor("output.weight", Q8_0, &wide).uints(&[
        ("attention.sliding_window", 128),
        ("expert_count", 32),
        ("expert_used_count", 4),
        ("expert_feed_forward_length", 2880),
    ]);
    let layer = |writer, layer| {
        model.attention(writer, layer, Q8_0, Q8_0).layer(
            layer,
            &[
                ("attn_q.bias", F32, &[4096]),
                ("attn_k.bias", F32, &[512]),
                ("attn_v.bias", F32, &[512]),
                ("attn_output.bias", F32, &[2880]),
                ("attn_sinks.weight", F32, &[64]),
                ("post_attention_norm.weight", F32, &[2880]),
                ("ffn_gate_inp.weight", F32, &[2880, 32]),
                ("ffn_gate_inp.bias", F32, &[32]),
                ("ffn_gate_exps.weight", MXFP4, &[2880, 2880, 32]),
                ("ffn_gate_exps.bias", F32, &[2880, 32]),
                ("ffn_up_exps.weight", MXFP4, &[2880, 2880, 32]),
                ("ffn_up_exps.bias", F32, &[2880, 32]),
                ("ffn_down_exps.weight", MXFP4, &[2880, 2880, 32]),
                ("ffn_down_exps.bias", F32, &[2880, 32]),
            ],
        )
    };
    (0..model.layers).fold(writer, layer).done()
}

/// Qwen 3 30B A3B, 4 bits: 128 experts of which 8 are used.
fn qwen3_30b_a3b() -> Sample {
    let model = Dense {
        layers: 48,
        embedding: 2048,
        feed_forward: 6144,
        heads: 32,
        kv_heads: 4,
        head: 128,
        ctx: 40_960,
        vocabulary: 151_936,
        untied: true,
    };
    let writer = model.begin("qwen3-30b-a3b", "qwen3moe", Q4_K).uints(&[
        ("expert_count", 128),
        ("expert_used_count", 8),
        ("expert_feed_forward_length", 768),
    ]);
    let layer = |writer, layer| {
        let writer = model.head_norms(model.attention(writer, layer, Q4_K, Q6_K), layer);
        experts(writer, layer, [2048, 768, 128])
    };
    (0..model.layers).fold(writer, layer).done()
}

/// Granite 3.1 3B A800M, 4 bits: small experts of which many are used.
fn granite_3b_a800m() -> Sample {
    let model = Dense {
        layers: 32,
        embedding: 1536,
        feed_forward: 512,
        heads: 24,
        kv_heads: 8,
        head: 64,
        ctx: 131_072,
        vocabulary: 49_155,
        untied: false,
    };
    let writer =
        model.begin("granite-3b-a800m", "granitemoe", Q6_K).uints(&[("expert_count", 40), ("expert_used_count", 8)]);
    let writer = writer.float("attention.scale", 0.015_625).float("embedding_scale", 12.0);
    let writer = writer.float("residual_scale", 0.22).float("logit_scale", 6.0);
    let layer = |writer, layer| experts(model.attention(writer, layer, Q4_K, Q6_K), layer, [1536, 512, 40]);
    (0..model.layers).fold(writer, layer).done()
}

/// Experts of this embedding and width, so many of them.
fn experts(writer: Writer, layer: u32, [embedding, wide, count]: [u64; 3]) -> Writer {
    writer.layer(
        layer,
        &[
            ("ffn_norm.weight", F32, &[embedding]),
            ("ffn_gate_inp.weight", F32, &[embedding, count]),
            ("ffn_gate_exps.weight", Q4_K, &[embedding, wide, count]),
            ("ffn_up_exps.weight", Q4_K, &[embedding, wide, count]),
            ("ffn_down_exps.weight", Q6_K, &[wide, embedding, count]),
        ],
    )
}
