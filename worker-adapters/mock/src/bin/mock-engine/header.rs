//! The header of a model's GGUF file, as far as the memory depends on it. Source: `docs/gguf.md` of ggml, version 3.
//!
//! It shares nothing with the reader of the catalog, so that an error there is not repeated here.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, ErrorKind, Read, Seek as _};
use std::path::Path;

/// What a header says. Keys of the architecture are without its name.
#[derive(Debug, Default)]
pub(crate) struct Header {
    pub(crate) architecture: String,
    pub(crate) name: String,
    /// Whole numbers, and lists of them.
    numbers: BTreeMap<String, Vec<u64>>,
    /// Bytes of each tensor with its padding.
    pub(crate) tensors: BTreeMap<String, u64>,
    /// Length of the file.
    pub(crate) file_bytes: u64,
}

/// More of anything than a real model has.
const MOST: u64 = 1 << 24;

impl Header {
    /// Reads the header of a file.
    pub(crate) fn read(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let file_bytes = file.metadata()?.len();
        let mut reader = Reader { file: BufReader::new(file) };
        let preamble = reader.bytes::<8>()?;
        if preamble != *b"GGUF\x03\0\0\0" {
            return Err(ErrorKind::InvalidData.into());
        }
        let (tensors, keys) = (reader.count()?, reader.count()?);
        let mut header = Self { file_bytes, ..Self::default() };
        for _ in 0..keys {
            let key = reader.text()?;
            match reader.value()? {
                Value::Numbers(numbers) => _ = header.numbers.insert(key, numbers),
                Value::Text(text) if key == "general.architecture" => header.architecture = text,
                Value::Text(text) if key == "general.name" => header.name = text,
                Value::Text(_) | Value::Other => {}
            }
        }
        let mut places: Vec<(u64, String)> = Vec::new();
        for _ in 0..tensors {
            let name = reader.text()?;
            for _ in 0..reader.u32()? {
                reader.u64()?;
            }
            reader.u32()?;
            places.push((reader.u64()?, name));
        }
        let alignment = header.numbers.get("general.alignment").map_or(32, |of| of[0].max(1));
        let data = file_bytes.saturating_sub(reader.file.stream_position()?.next_multiple_of(alignment));
        places.sort_unstable();
        let ends: Vec<u64> = places.iter().skip(1).map(|(offset, _)| *offset).chain([data]).collect();
        let sized = places.into_iter().zip(ends).map(|((offset, name), end)| (name, end.saturating_sub(offset)));
        header.tensors = sized.collect();
        Ok(header)
    }

    /// A number of the architecture.
    pub(crate) fn number(&self, key: &str) -> Option<u64> {
        self.list(key)?.first().copied()
    }

    /// A number of each layer, or one for all.
    pub(crate) fn list(&self, key: &str) -> Option<&[u64]> {
        self.numbers.get(&format!("{}.{key}", self.architecture)).map(Vec::as_slice)
    }
}

enum Value {
    Numbers(Vec<u64>),
    Text(String),
    Other,
}

struct Reader {
    file: BufReader<File>,
}

impl Reader {
    fn bytes<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.file.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    fn u32(&mut self) -> io::Result<u32> {
        Ok(u32::from_le_bytes(self.bytes()?))
    }

    fn u64(&mut self) -> io::Result<u64> {
        Ok(u64::from_le_bytes(self.bytes()?))
    }

    fn count(&mut self) -> io::Result<u64> {
        self.u64().and_then(|count| if count < MOST { Ok(count) } else { Err(ErrorKind::InvalidData.into()) })
    }

    fn text(&mut self) -> io::Result<String> {
        let length = self.count()?;
        let mut text = Vec::new();
        (&mut self.file).take(length).read_to_end(&mut text)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    fn value(&mut self) -> io::Result<Value> {
        match self.u32()? {
            8 => Ok(Value::Text(self.text()?)),
            9 => {
                let kind = self.u32()?;
                let mut numbers = Some(Vec::new());
                for _ in 0..self.count()? {
                    let element = if kind == 8 { self.text().map(|_| None)? } else { self.number(kind)? };
                    numbers = numbers.zip(element).map(|(mut all, one)| {
                        all.push(one);
                        all
                    });
                }
                Ok(numbers.filter(|all| !all.is_empty()).map_or(Value::Other, Value::Numbers))
            }
            kind => Ok(self.number(kind)?.map_or(Value::Other, |number| Value::Numbers(vec![number]))),
        }
    }

    /// A whole number; `None` for one that is none.
    fn number(&mut self, kind: u32) -> io::Result<Option<u64>> {
        Ok(match kind {
            0 | 1 | 7 => Some(self.bytes::<1>()?[0].into()),
            2 | 3 => Some(u16::from_le_bytes(self.bytes()?).into()),
            4 | 5 => Some(self.u32()?.into()),
            10 | 11 => Some(self.u64()?),
            6 => self.u32().map(|_| None)?,
            12 => self.u64().map(|_| None)?,
            _ => return Err(ErrorKind::InvalidData.into()),
        })
    }
}
