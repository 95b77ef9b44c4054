//! GGUF of version 3, least byte first. Source: `docs/gguf.md` of ggml.

use crate::Sample;

/// Where tensors begin and how they are padded.
const ALIGNMENT: u64 = 32;

/// How weights are stored: number in files, weights of a block, bytes of a block. Source: `ggml.h`, `ggml-common.h`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Type(u32, u64, u64);

pub(crate) const F32: Type = Type(0, 1, 4);
pub(crate) const Q5_0: Type = Type(6, 32, 22);
pub(crate) const Q8_0: Type = Type(8, 32, 34);
pub(crate) const Q4_K: Type = Type(12, 256, 144);
pub(crate) const Q6_K: Type = Type(14, 256, 210);
pub(crate) const MXFP4: Type = Type(39, 32, 17);

/// A file in the making. Keys without a dot in front are the architecture's.
pub(crate) struct Writer {
    name: &'static str,
    architecture: &'static str,
    keys: u64,
    key_bytes: Vec<u8>,
    tensors: u64,
    tensor_bytes: Vec<u8>,
    data: u64,
    embedding: u64,
    has_output: bool,
}

fn text(to: &mut Vec<u8>, text: &str) {
    to.extend((text.len() as u64).to_le_bytes());
    to.extend(text.as_bytes());
}

impl Writer {
    pub(crate) fn new(name: &'static str, architecture: &'static str, vocabulary: u32) -> Self {
        let (key_bytes, tensor_bytes) = (Vec::new(), Vec::new());
        let (keys, tensors, data, embedding, has_output) = (0, 0, 0, 0, false);
        let writer = Self { name, architecture, keys, key_bytes, tensors, tensor_bytes, data, embedding, has_output };
        let writer = writer.text("general.architecture", architecture).text("general.name", name);
        writer.text("tokenizer.ggml.model", "none").uint("vocab_size", vocabulary)
    }

    fn key(&mut self, key: &str, kind: u32, value: &[u8]) {
        text(&mut self.key_bytes, key);
        self.key_bytes.extend(kind.to_le_bytes());
        self.key_bytes.extend(value);
        self.keys += 1;
    }

    fn text(mut self, key: &str, value: &str) -> Self {
        let mut bytes = Vec::new();
        text(&mut bytes, value);
        self.key(key, 8, &bytes);
        self
    }

    pub(crate) fn uint(mut self, key: &str, value: u32) -> Self {
        self.key(&format!("{}.{key}", self.architecture), 4, &value.to_le_bytes());
        self
    }

    pub(crate) fn uints(self, values: &[(&str, u32)]) -> Self {
        values.iter().fold(self, |writer, (key, value)| writer.uint(key, *value))
    }

    pub(crate) fn float(mut self, key: &str, value: f32) -> Self {
        self.key(&format!("{}.{key}", self.architecture), 6, &value.to_le_bytes());
        self
    }

    pub(crate) fn tensor(mut self, name: &str, Type(kind, block, bytes): Type, dims: &[u64]) -> Self {
        text(&mut self.tensor_bytes, name);
        self.tensor_bytes.extend((dims.len() as u32).to_le_bytes());
        self.tensor_bytes.extend(dims.iter().flat_map(|dim| dim.to_le_bytes()));
        self.tensor_bytes.extend(kind.to_le_bytes());
        self.tensor_bytes.extend(self.data.to_le_bytes());
        self.tensors += 1;
        let length = dims.iter().product::<u64>() / block * bytes;
        match name {
            "token_embd.weight" => self.embedding = length,
            "output.weight" => self.has_output = true,
            _ => {}
        }
        self.data += length.next_multiple_of(ALIGNMENT);
        self
    }

    /// Tensors of a layer, with what is before their names and after.
    pub(crate) fn layer(self, layer: u32, tensors: &[(&str, Type, &[u64])]) -> Self {
        tensors
            .iter()
            .fold(self, |writer, (name, kind, dims)| writer.tensor(&format!("blk.{layer}.{name}"), *kind, dims))
    }

    pub(crate) fn done(self) -> Sample {
        let mut header = b"GGUF".to_vec();
        header.extend(3_u32.to_le_bytes());
        header.extend(self.tensors.to_le_bytes());
        header.extend(self.keys.to_le_bytes());
        header.extend(self.key_bytes);
        header.extend(self.tensor_bytes);
        let file_bytes = (header.len() as u64).next_multiple_of(ALIGNMENT) + self.data;
        let host_bytes = if self.has_output { self.embedding } else { 0 };
        Sample { name: self.name, header, file_bytes, host_bytes }
    }
}
