//! Headers of safetensors files, and the two JSON documents beside them.
//!
//! Source: the format's own README. The crate `safetensors` keeps every tensor of a header and allows 100 MB of it; here tensors
//! are added up as they pass, so that memory stays at the header's own length.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use serde::de::{DeserializeSeed, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::{HeaderError, Progress};

/// Longest header that is read, in bytes; the format allows three times as much, real ones have a few MiB.
pub const MAX_HEADER: u64 = 32 << 20;
/// Longest `config.json`, in bytes.
pub const MAX_CONFIG: u64 = 1 << 20;
/// Longest `model.safetensors.index.json`, in bytes.
pub const MAX_INDEX: u64 = 32 << 20;
/// Most dimensions of a tensor.
pub const MAX_DIMS: usize = 8;

/// Bytes of the length before the header.
const PREFIX: usize = 8;

/// What a header says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// Number of tensors.
    pub tensors: u64,
    /// Bytes of all tensors.
    pub tensor_bytes: u64,
    /// Numbers in all tensors.
    pub parameters: u64,
    /// Numbers by their type, such as `BF16`.
    pub by_type: BTreeMap<String, u64>,
    /// Length of the header with the 8 bytes before it.
    pub header_bytes: u64,
    /// Length of the whole file.
    pub file_bytes: u64,
}

/// Reads a header piece by piece.
#[derive(Debug, Default)]
pub struct Reader {
    pending: Vec<u8>,
}

impl Reader {
    /// Takes the next bytes of the file.
    ///
    /// # Errors
    /// [`HeaderError`]: the file is not what it should be, or beyond a limit. The reader is of no use after that.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<Progress<Header>, HeaderError> {
        let most = PREFIX + MAX_HEADER as usize;
        let wanted = bytes.len().min(most.saturating_sub(self.pending.len()));
        self.pending.extend_from_slice(&bytes[..wanted]);
        let Some((length, rest)) = self.pending.split_first_chunk::<PREFIX>() else {
            return Ok(Progress::NeedMore((PREFIX - self.pending.len()) as u64));
        };
        let length = u64::from_le_bytes(*length);
        if rest.first().is_some_and(|first| *first != b'{') || length < 2 {
            return Err(HeaderError::NotThis("safetensors"));
        }
        if length > MAX_HEADER {
            return Err(HeaderError::Limit("bytes of the header", MAX_HEADER));
        }
        match rest.get(..length as usize) {
            Some(json) => parse(json).map(Progress::Done),
            None => Ok(Progress::NeedMore(length - rest.len() as u64)),
        }
    }
}

fn parse(json: &[u8]) -> Result<Header, HeaderError> {
    let Tensors { mut header, end } =
        serde_json::from_slice(json).map_err(|_| HeaderError::Malformed("the header lists no tensors"))?;
    if end != header.tensor_bytes {
        return Err(HeaderError::Malformed("the tensors overlap or leave holes"));
    }
    header.header_bytes = (PREFIX + json.len()) as u64;
    header.file_bytes =
        end.checked_add(header.header_bytes).ok_or(HeaderError::Malformed("a tensor is larger than any file"))?;
    Ok(header)
}

/// A header under way, and where the last tensor ends.
#[derive(Default)]
struct Tensors {
    header: Header,
    end: u64,
}

impl<'de> Deserialize<'de> for Tensors {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(TensorsVisitor)
    }
}

struct TensorsVisitor;

impl<'de> Visitor<'de> for TensorsVisitor {
    type Value = Tensors;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("tensors by name")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Tensors, A::Error> {
        let mut all = Tensors::default();
        while let Some(name) = map.next_key::<Name<'_>>()? {
            if name.0 == "__metadata__" {
                map.next_value::<IgnoredAny>()?;
            } else {
                all.add(&map.next_value()?).ok_or_else(|| A::Error::custom("a tensor's size"))?;
            }
        }
        Ok(all)
    }
}

/// A text that is borrowed where it can be.
#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

#[derive(Deserialize)]
struct Tensor<'a> {
    #[serde(borrow)]
    dtype: Cow<'a, str>,
    #[serde(deserialize_with = "product")]
    shape: u64,
    data_offsets: (u64, u64),
}

/// The product of a list's numbers.
fn product<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    Product.deserialize(deserializer)
}

struct Product;

impl<'de> DeserializeSeed<'de> for Product {
    type Value = u64;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<u64, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Product {
    type Value = u64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the dimensions of a tensor")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut dims: A) -> Result<u64, A::Error> {
        let mut product: u64 = 1;
        let mut count = 0;
        while let Some(dim) = dims.next_element::<u64>()? {
            count += 1;
            let fits = product.checked_mul(dim).filter(|product| *product <= i64::MAX as u64 && count <= MAX_DIMS);
            product = fits.ok_or_else(|| A::Error::custom("a tensor's size"))?;
        }
        Ok(product)
    }
}

/// Bits of a number. Source: `Dtype` of the format's reference implementation.
fn bits(dtype: &str) -> Option<u64> {
    match dtype {
        "F4" => Some(4),
        "F6_E2M3" | "F6_E3M2" => Some(6),
        "BOOL" | "U8" | "I8" | "F8_E5M2" | "F8_E4M3" | "F8_E8M0" | "F8_E4M3FNUZ" | "F8_E5M2FNUZ" => Some(8),
        "U16" | "I16" | "F16" | "BF16" => Some(16),
        "U32" | "I32" | "F32" => Some(32),
        "U64" | "I64" | "F64" | "C64" => Some(64),
        _ => None,
    }
}

impl Tensors {
    /// Adds a tensor; `None` when its sizes contradict each other or overflow.
    fn add(&mut self, tensor: &Tensor<'_>) -> Option<()> {
        let (begin, end) = tensor.data_offsets;
        let bytes = end.checked_sub(begin)?;
        if let Some(bits) = bits(&tensor.dtype) {
            if tensor.shape.checked_mul(bits)?.div_ceil(8) != bytes {
                return None;
            }
            // Only of known types, so that the names in a file cannot fill the memory.
            let numbers = self.header.by_type.entry(tensor.dtype.to_string()).or_default();
            *numbers = numbers.checked_add(tensor.shape)?;
        }
        self.header.tensors += 1;
        self.header.tensor_bytes = self.header.tensor_bytes.checked_add(bytes)?;
        self.header.parameters = self.header.parameters.checked_add(tensor.shape)?;
        self.end = self.end.max(end);
        Some(())
    }
}

/// A `config.json`: what the model is.
#[derive(Clone, Debug, PartialEq)]
pub struct Config(Value);

impl Config {
    /// Reads one. It is held as JSON, which takes at most 64 times its length.
    ///
    /// # Errors
    /// [`HeaderError`]: longer than [`MAX_CONFIG`], or no JSON object.
    pub fn parse(json: &[u8]) -> Result<Self, HeaderError> {
        if json.len() as u64 > MAX_CONFIG {
            return Err(HeaderError::Limit("bytes of config.json", MAX_CONFIG));
        }
        match serde_json::from_slice(json) {
            Ok(config @ Value::Object(_)) => Ok(Self(config)),
            _ => Err(HeaderError::Malformed("config.json is no JSON object")),
        }
    }

    /// A value, of the text part where the model has more than text.
    fn get(&self, key: &str) -> Option<&Value> {
        let text = self.0.get("text_config").and_then(|text| text.get(key));
        text.or_else(|| self.0.get(key)).filter(|value| !value.is_null())
    }

    pub(super) fn uint(&self, key: &str) -> Option<u64> {
        self.get(key)?.as_u64()
    }

    /// A number that may be given for each layer; the largest then.
    pub(super) fn largest(&self, key: &str) -> Option<u64> {
        let value = self.get(key)?;
        value.as_u64().or_else(|| value.as_array()?.iter().filter_map(Value::as_u64).max())
    }

    pub(super) fn text(&self, key: &str) -> Option<&str> {
        self.get(key)?.as_str()
    }

    pub(super) fn flag(&self, key: &str) -> Option<bool> {
        self.get(key)?.as_bool()
    }

    /// A list of texts.
    pub(super) fn texts(&self, key: &str) -> Option<Vec<&str>> {
        self.get(key)?.as_array()?.iter().map(Value::as_str).collect()
    }

    /// The kind of model, of the whole where it has more than text.
    pub(super) fn architecture(&self) -> Option<&str> {
        self.0.get("model_type").and_then(Value::as_str)
    }

    /// The quantisation, such as `AWQ-4` or `FP8`.
    pub(super) fn quantisation(&self) -> Option<String> {
        let quantisation = self.get("quantization_config")?;
        let method = quantisation.get("quant_method")?.as_str()?.to_ascii_uppercase();
        let bits = quantisation.get("bits").and_then(Value::as_u64);
        Some(bits.map_or_else(|| method.clone(), |bits| format!("{method}-{bits}")))
    }
}

/// A `model.safetensors.index.json`: the bytes of all tensors of a model in several files.
///
/// # Errors
/// [`HeaderError`]: longer than [`MAX_INDEX`], or no such document.
pub fn index_total(json: &[u8]) -> Result<Option<u64>, HeaderError> {
    #[derive(Deserialize)]
    struct Index {
        #[serde(default)]
        metadata: Metadata,
    }
    #[derive(Default, Deserialize)]
    struct Metadata {
        #[serde(default)]
        total_size: Option<serde_json::Number>,
    }
    if json.len() as u64 > MAX_INDEX {
        return Err(HeaderError::Limit("bytes of the index", MAX_INDEX));
    }
    let index: Index =
        serde_json::from_slice(json).map_err(|_| HeaderError::Malformed("the index is no JSON object"))?;
    Ok(index.metadata.total_size.and_then(|size| size.as_u64()))
}
