//! Headers of GGUF files.
//!
//! Source: the GGUF specification, `docs/gguf.md` of ggml, versions 2 and 3 in either byte order. The reader is fed pieces of the
//! file from its start and keeps scalars, short texts and short lists of whole numbers; everything else, the vocabulary above all,
//! is counted and passed over. A length that a file claims is never allocated for: memory is at most the piece last fed plus
//! [`MAX_KEPT`].

use std::collections::BTreeMap;

use super::{HeaderError, Progress};

/// Longest header that is read, in bytes. Real ones have a few MiB.
pub const MAX_HEADER: u64 = 64 << 20;
/// Most metadata keys.
pub const MAX_KEYS: u64 = 4096;
/// Most tensors.
pub const MAX_TENSORS: u64 = 1 << 17;
/// Longest name of a key or tensor, in bytes.
pub const MAX_NAME: u64 = 256;
/// Longest text that is kept, in bytes; of longer ones only that they are there.
pub const MAX_TEXT: u64 = 1024;
/// Most elements of an array.
pub const MAX_ARRAY: u64 = 1 << 24;
/// Most elements of a list that is kept.
pub const MAX_LIST: u64 = 1024;
/// Most dimensions of a tensor, as in ggml.
pub const MAX_DIMS: u32 = 4;
/// Most bytes of names and values that are kept.
pub const MAX_KEPT: usize = 4 << 20;

/// Bytes that are counted for an entry beside its name and value.
const ENTRY: usize = 96;

/// What a header says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Header {
    /// Version of the format.
    pub version: u32,
    /// Metadata by key.
    pub values: BTreeMap<String, Value>,
    /// Number of tensors.
    pub tensors: u64,
    /// Bytes of all tensors; `None` when one is of a type that is not known here.
    pub tensor_bytes: Option<u64>,
    /// Weights of all tensors.
    pub parameters: u64,
    /// Weights by [`TensorType`] id.
    pub by_type: BTreeMap<u32, u64>,
    /// Whether there is an output matrix beside the input embedding.
    pub has_output: bool,
    /// Bytes of the input embedding.
    pub embedding_bytes: u64,
    /// Length of the header, without the padding after it.
    pub header_bytes: u64,
    /// Least length of the whole file; `None` as for `tensor_bytes`.
    pub file_bytes: Option<u64>,
}

/// A metadata value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A whole number; those beyond `i64` are cut off at its ends.
    Int(i64),
    /// A number.
    Float(f64),
    /// Yes or no.
    Bool(bool),
    /// A text of at most [`MAX_TEXT`] bytes.
    Text(String),
    /// Whole numbers or yes and no, at most [`MAX_LIST`].
    List(Vec<i64>),
    /// A longer text or another list, with its length.
    Skipped(u64),
}

impl Header {
    /// A whole number that is not negative.
    #[must_use]
    pub fn uint(&self, key: &str) -> Option<u64> {
        match self.values.get(key)? {
            Value::Int(number) => u64::try_from(*number).ok(),
            _ => None,
        }
    }

    /// A text.
    #[must_use]
    pub fn text(&self, key: &str) -> Option<&str> {
        match self.values.get(key)? {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// How many elements a list has, or bytes a long text.
    #[must_use]
    pub fn length(&self, key: &str) -> Option<u64> {
        match self.values.get(key)? {
            Value::List(list) => Some(list.len() as u64),
            Value::Skipped(length) => Some(*length),
            _ => None,
        }
    }

    /// A number for each of `count` layers: the same for all, or one each. `None` when the key is missing or too short.
    #[must_use]
    pub fn per_layer(&self, key: &str, count: usize) -> Option<Vec<u64>> {
        match self.values.get(key)? {
            Value::Int(number) => Some(vec![u64::try_from(*number).ok()?; count]),
            Value::List(list) => list.get(..count)?.iter().map(|number| u64::try_from(*number).ok()).collect(),
            _ => None,
        }
    }
}

/// How tensors of one type are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TensorType {
    /// Its number in files.
    pub id: u32,
    /// Its name, such as `Q4_K`.
    pub name: &'static str,
    /// Weights in a block.
    pub block: u64,
    /// Bytes of a block.
    pub bytes: u64,
}

impl TensorType {
    /// The type with this number.
    #[must_use]
    pub fn of(id: u32) -> Option<&'static Self> {
        TENSOR_TYPES.iter().find(|kind| kind.id == id)
    }
}

const fn kind(id: u32, name: &'static str, block: u64, bytes: u64) -> TensorType {
    TensorType { id, name, block, bytes }
}

/// Source: `ggml.h` (`enum ggml_type`) and the block structs of `ggml-common.h`. Numbers that are missing were withdrawn.
const TENSOR_TYPES: &[TensorType] = &[
    kind(0, "F32", 1, 4),
    kind(1, "F16", 1, 2),
    kind(2, "Q4_0", 32, 18),
    kind(3, "Q4_1", 32, 20),
    kind(6, "Q5_0", 32, 22),
    kind(7, "Q5_1", 32, 24),
    kind(8, "Q8_0", 32, 34),
    kind(9, "Q8_1", 32, 36),
    kind(10, "Q2_K", 256, 84),
    kind(11, "Q3_K", 256, 110),
    kind(12, "Q4_K", 256, 144),
    kind(13, "Q5_K", 256, 176),
    kind(14, "Q6_K", 256, 210),
    kind(15, "Q8_K", 256, 292),
    kind(16, "IQ2_XXS", 256, 66),
    kind(17, "IQ2_XS", 256, 74),
    kind(18, "IQ3_XXS", 256, 98),
    kind(19, "IQ1_S", 256, 50),
    kind(20, "IQ4_NL", 32, 18),
    kind(21, "IQ3_S", 256, 110),
    kind(22, "IQ2_S", 256, 82),
    kind(23, "IQ4_XS", 256, 136),
    kind(24, "I8", 1, 1),
    kind(25, "I16", 1, 2),
    kind(26, "I32", 1, 4),
    kind(27, "I64", 1, 8),
    kind(28, "F64", 1, 8),
    kind(29, "IQ1_M", 256, 56),
    kind(30, "BF16", 1, 2),
    kind(34, "TQ1_0", 256, 54),
    kind(35, "TQ2_0", 256, 66),
    kind(39, "MXFP4", 32, 17),
    kind(40, "NVFP4", 64, 36),
    kind(41, "Q1_0", 128, 18),
];

/// Reads a header piece by piece.
#[derive(Debug, Default)]
pub struct Reader {
    /// Bytes that were fed and not yet understood.
    pending: Vec<u8>,
    /// Bytes still to be passed over.
    skip: u64,
    /// Bytes that were understood or passed over.
    read: u64,
    step: Step,
    big_endian: bool,
    tensors_left: u64,
    kept: usize,
    /// Where the data of the last tensor ends, from the start of the data.
    data_end: Option<u64>,
    header: Header,
}

/// What comes next.
#[derive(Debug, Default)]
enum Step {
    #[default]
    Preamble,
    Keys(u64),
    /// So many strings of an array, and then so many keys.
    Strings(u64, u64),
    Tensors,
    End,
}

/// Why one thing could not be read from the pending bytes.
enum Stop {
    /// So many bytes more are needed.
    Short(u64),
    Bad(HeaderError),
}

impl From<HeaderError> for Stop {
    fn from(error: HeaderError) -> Self {
        Self::Bad(error)
    }
}

impl Reader {
    /// A reader at the start of a file.
    #[must_use]
    pub fn new() -> Self {
        Self { data_end: Some(0), header: Header { tensor_bytes: Some(0), ..Header::default() }, ..Self::default() }
    }

    /// Takes the next bytes of the file.
    ///
    /// # Errors
    /// [`HeaderError`]: the file is not what it should be, or beyond a limit. The reader is of no use after that.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<Progress<Header>, HeaderError> {
        self.pending.extend_from_slice(bytes);
        let mut at = 0;
        let short = loop {
            let passed = self.skip.min((self.pending.len() - at) as u64);
            self.skip -= passed;
            self.advance(&mut at, passed)?;
            if self.skip > 0 {
                break self.skip;
            }
            if matches!(self.step, Step::End) {
                return self.end().map(Progress::Done);
            }
            let mut cursor = Cursor { bytes: &self.pending[at..], at: 0, big_endian: self.big_endian };
            match one(&mut self.step, &mut cursor) {
                Ok(found) => {
                    let length = cursor.at as u64;
                    self.big_endian = cursor.big_endian;
                    self.advance(&mut at, length)?;
                    self.take(found)?;
                }
                Err(Stop::Short(count)) => break count,
                Err(Stop::Bad(error)) => return Err(error),
            }
        };
        self.pending.drain(..at);
        if self.read.saturating_add(short) > MAX_HEADER {
            return Err(HeaderError::Limit("bytes of the header", MAX_HEADER));
        }
        Ok(Progress::NeedMore(short))
    }

    fn advance(&mut self, at: &mut usize, count: u64) -> Result<(), HeaderError> {
        *at += usize::try_from(count).expect("no more than the pending bytes");
        self.read += count;
        if self.read > MAX_HEADER { Err(HeaderError::Limit("bytes of the header", MAX_HEADER)) } else { Ok(()) }
    }

    fn take(&mut self, found: Found) -> Result<(), HeaderError> {
        match found {
            Found::Preamble { version, tensors, .. } => {
                self.header.version = version;
                self.header.tensors = tensors;
                self.tensors_left = tensors;
            }
            Found::Skip(count) => self.skip = count,
            Found::Entry(key, value, skip) => {
                self.skip = skip;
                self.keep(key, value)?;
            }
            Found::Tensor(tensor) => {
                self.tensors_left -= 1;
                self.add(&tensor)?;
            }
        }
        match self.step {
            Step::Keys(0) | Step::Tensors if self.tensors_left == 0 => self.step = Step::End,
            Step::Keys(0) => self.step = Step::Tensors,
            _ => {}
        }
        Ok(())
    }

    fn keep(&mut self, key: String, value: Value) -> Result<(), HeaderError> {
        self.kept += ENTRY + key.len();
        self.kept += match &value {
            Value::Text(text) => text.len(),
            Value::List(list) => list.len() * size_of::<i64>(),
            _ => 0,
        };
        if self.kept > MAX_KEPT {
            return Err(HeaderError::Limit("bytes of metadata", MAX_KEPT as u64));
        }
        match self.header.values.insert(key, value) {
            Some(_) => Err(HeaderError::Malformed("a key is there twice")),
            None => Ok(()),
        }
    }

    fn add(&mut self, tensor: &Tensor) -> Result<(), HeaderError> {
        const HUGE: HeaderError = HeaderError::Malformed("a tensor is larger than any file");
        let header = &mut self.header;
        header.parameters = header.parameters.checked_add(tensor.weights).ok_or(HUGE)?;
        match tensor.role {
            Role::Output => header.has_output = true,
            Role::Embedding => header.embedding_bytes = tensor.bytes.unwrap_or_default(),
            Role::Other => {}
        }
        let Some(bytes) = tensor.bytes else {
            (header.tensor_bytes, self.data_end) = (None, None);
            return Ok(());
        };
        *header.by_type.entry(tensor.kind).or_default() += tensor.weights;
        let end = tensor.offset.checked_add(bytes).ok_or(HUGE)?;
        self.data_end = self.data_end.map(|known| known.max(end));
        if let Some(known) = header.tensor_bytes {
            header.tensor_bytes = Some(known.checked_add(bytes).ok_or(HUGE)?);
        }
        Ok(())
    }

    fn end(&mut self) -> Result<Header, HeaderError> {
        let alignment = self.header.uint("general.alignment").unwrap_or(32);
        if !alignment.is_power_of_two() || alignment > 1 << 20 {
            return Err(HeaderError::Malformed("the alignment is no power of two"));
        }
        self.pending = Vec::new();
        let mut header = std::mem::take(&mut self.header);
        header.header_bytes = self.read;
        let start = if header.tensors == 0 { self.read } else { self.read.next_multiple_of(alignment) };
        header.file_bytes = self.data_end.and_then(|end| end.checked_add(start));
        Ok(header)
    }
}

/// One thing that was read.
enum Found {
    Preamble {
        version: u32,
        tensors: u64,
    },
    /// Something to pass over.
    Skip(u64),
    /// A key with its value, and how much to pass over then.
    Entry(String, Value, u64),
    Tensor(Tensor),
}

struct Tensor {
    role: Role,
    kind: u32,
    weights: u64,
    bytes: Option<u64>,
    offset: u64,
}

enum Role {
    Embedding,
    Output,
    Other,
}

/// Reads one thing, and says in `step` what comes after it; nothing has changed when it could not.
fn one(step: &mut Step, cursor: &mut Cursor<'_>) -> Result<Found, Stop> {
    let (found, next) = match *step {
        Step::Preamble => preamble(cursor)?,
        Step::Keys(left) => {
            let (found, strings) = entry(cursor)?;
            let left = left.saturating_sub(1);
            (found, if strings > 0 { Step::Strings(strings, left) } else { Step::Keys(left) })
        }
        Step::Strings(count, keys) => {
            let length = cursor.number(8)?;
            limit("bytes of the header", length, MAX_HEADER)?;
            let next = if count > 1 { Step::Strings(count - 1, keys) } else { Step::Keys(keys) };
            (Found::Skip(length), next)
        }
        Step::Tensors => (Found::Tensor(tensor(cursor)?), Step::Tensors),
        Step::End => (Found::Skip(0), Step::End),
    };
    *step = next;
    Ok(found)
}

fn preamble(cursor: &mut Cursor<'_>) -> Result<(Found, Step), Stop> {
    if cursor.take(4)? != b"GGUF" {
        return Err(HeaderError::NotThis("GGUF").into());
    }
    let mut version = cursor.number(4)? as u32;
    // A version has two bytes at most, so that a file's byte order shows.
    if version & 0xffff == 0 {
        cursor.big_endian = true;
        version = version.swap_bytes();
    }
    if !matches!(version, 2 | 3) {
        return Err(HeaderError::Version(version).into());
    }
    let tensors = cursor.number(8)?;
    let keys = cursor.number(8)?;
    limit("tensors", tensors, MAX_TENSORS)?;
    limit("keys", keys, MAX_KEYS)?;
    Ok((Found::Preamble { version, tensors }, Step::Keys(keys)))
}

/// A key with its value; of an array of strings, how many of them follow.
fn entry(cursor: &mut Cursor<'_>) -> Result<(Found, u64), Stop> {
    let key = cursor.name()?;
    let kind = cursor.number(4)? as u32;
    let mut skip = 0;
    let mut strings = 0;
    let value = match kind {
        TEXT => {
            let length = cursor.number(8)?;
            limit("bytes of the header", length, MAX_HEADER)?;
            if length <= MAX_TEXT {
                Value::Text(cursor.text(length)?)
            } else {
                skip = length;
                Value::Skipped(length)
            }
        }
        ARRAY => {
            let element = cursor.number(4)? as u32;
            let length = cursor.number(8)?;
            limit("elements of an array", length, MAX_ARRAY)?;
            match element {
                TEXT => {
                    strings = length;
                    Value::Skipped(length)
                }
                ARRAY => return Err(HeaderError::Malformed("an array of arrays").into()),
                FLOAT32 | FLOAT64 => {
                    skip = length * width(element)?;
                    Value::Skipped(length)
                }
                _ if length > MAX_LIST => {
                    skip = length * width(element)?;
                    Value::Skipped(length)
                }
                _ => Value::List(cursor.list(element, length)?),
            }
        }
        FLOAT32 => Value::Float(f64::from(f32::from_bits(cursor.number(4)? as u32))),
        FLOAT64 => Value::Float(f64::from_bits(cursor.number(8)?)),
        BOOL => Value::Bool(cursor.number(1)? != 0),
        kind => Value::Int(cursor.int(kind)?),
    };
    Ok((Found::Entry(key, value, skip), strings))
}

fn tensor(cursor: &mut Cursor<'_>) -> Result<Tensor, Stop> {
    const HUGE: HeaderError = HeaderError::Malformed("a tensor is larger than any file");
    let name = cursor.name()?;
    let dims = cursor.number(4)? as u32;
    limit("dimensions of a tensor", dims.into(), MAX_DIMS.into())?;
    let mut weights: u64 = 1;
    let mut row = 1;
    for dim in 0..dims {
        let length = cursor.number(8)?;
        if dim == 0 {
            row = length;
        }
        weights = weights.checked_mul(length).filter(|weights| *weights <= i64::MAX as u64).ok_or(HUGE)?;
    }
    let kind = cursor.number(4)? as u32;
    let offset = cursor.number(8)?;
    let bytes = match TensorType::of(kind) {
        Some(kind) if !row.is_multiple_of(kind.block) => {
            return Err(HeaderError::Malformed("a tensor's rows are no whole blocks").into());
        }
        Some(kind) => Some((weights / kind.block).checked_mul(kind.bytes).ok_or(HUGE)?),
        None => None,
    };
    let role = match name.as_str() {
        "token_embd.weight" => Role::Embedding,
        "output.weight" => Role::Output,
        _ => Role::Other,
    };
    Ok(Tensor { role, kind, weights, bytes, offset })
}

fn limit(what: &'static str, found: u64, most: u64) -> Result<(), HeaderError> {
    if found > most { Err(HeaderError::Limit(what, most)) } else { Ok(()) }
}

const FLOAT32: u32 = 6;
const BOOL: u32 = 7;
const TEXT: u32 = 8;
const ARRAY: u32 = 9;
const FLOAT64: u32 = 12;

/// Bytes of a value of a fixed length. Source: `enum gguf_metadata_value_type` of the specification.
fn width(kind: u32) -> Result<u64, HeaderError> {
    match kind {
        0 | 1 | BOOL => Ok(1),
        2 | 3 => Ok(2),
        4 | 5 | FLOAT32 => Ok(4),
        10 | 11 | FLOAT64 => Ok(8),
        _ => Err(HeaderError::Malformed("a value of an unknown type")),
    }
}

/// Reads from the pending bytes.
struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
    big_endian: bool,
}

impl<'a> Cursor<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], Stop> {
        let rest = &self.bytes[self.at..];
        match rest.get(..count) {
            Some(taken) => {
                self.at += count;
                Ok(taken)
            }
            None => Err(Stop::Short((count - rest.len()) as u64)),
        }
    }

    /// An unsigned number of 1 to 8 bytes.
    fn number(&mut self, count: usize) -> Result<u64, Stop> {
        let big_endian = self.big_endian;
        let add = |number: u64, byte: &u8| number << 8 | u64::from(*byte);
        let bytes = self.take(count)?.iter();
        Ok(if big_endian { bytes.fold(0, add) } else { bytes.rev().fold(0, add) })
    }

    fn int(&mut self, kind: u32) -> Result<i64, Stop> {
        let bytes = width(kind)?;
        let number = self.number(bytes as usize)?;
        let signed = matches!(kind, 1 | 3 | 5 | 11);
        let unused = 64 - 8 * bytes as u32;
        Ok(if signed { (number << unused).cast_signed() >> unused } else { i64::try_from(number).unwrap_or(i64::MAX) })
    }

    fn list(&mut self, kind: u32, length: u64) -> Result<Vec<i64>, Stop> {
        let bytes = length * width(kind)?;
        let have = (self.bytes.len() - self.at) as u64;
        if have < bytes {
            return Err(Stop::Short(bytes - have));
        }
        (0..length).map(|_| self.int(kind)).collect()
    }

    fn text(&mut self, length: u64) -> Result<String, Stop> {
        let bytes = self.take(length as usize)?;
        Ok(String::from_utf8_lossy(bytes).into_owned())
    }

    fn name(&mut self) -> Result<String, Stop> {
        let length = self.number(8)?;
        limit("bytes of a name", length, MAX_NAME)?;
        self.text(length)
    }
}
