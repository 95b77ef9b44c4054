//! A GPU as the configuration names it.

use std::borrow::Cow;
use std::fmt;

use schemars::JsonSchema;
use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A GPU: by its index in the order of the PCI bus, or by its UUID, which stays when cards are added or moved. A UUID may also
/// name a MIG instance.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DeviceRef {
    /// Index, as `nvidia-smi` counts.
    Index(u32),
    /// `GPU-…` or `MIG-…`.
    Uuid(String),
}

const EXPECTED: &str = "an index such as 0, or a UUID: `GPU-…` or `MIG-…`";

impl DeviceRef {
    /// Reads what [`Display`](fmt::Display) writes.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if let Ok(index) = text.parse() {
            return Some(Self::Index(index));
        }
        let rest = text.strip_prefix("GPU-").or_else(|| text.strip_prefix("MIG-"))?;
        let fits = !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'/');
        fits.then(|| Self::Uuid(text.to_owned()))
    }
}

impl fmt::Display for DeviceRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Index(index) => write!(f, "{index}"),
            Self::Uuid(uuid) => f.write_str(uuid),
        }
    }
}

impl Serialize for DeviceRef {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Index(index) => serializer.serialize_u32(*index),
            Self::Uuid(uuid) => serializer.serialize_str(uuid),
        }
    }
}

impl<'de> Deserialize<'de> for DeviceRef {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(IndexOrUuid)
    }
}

struct IndexOrUuid;

impl Visitor<'_> for IndexOrUuid {
    type Value = DeviceRef;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(EXPECTED)
    }

    fn visit_u64<E: Error>(self, index: u64) -> Result<DeviceRef, E> {
        u32::try_from(index).map(DeviceRef::Index).map_err(|_| E::custom(format!("expected {EXPECTED}")))
    }

    fn visit_i64<E: Error>(self, index: i64) -> Result<DeviceRef, E> {
        u32::try_from(index).map(DeviceRef::Index).map_err(|_| E::custom(format!("expected {EXPECTED}")))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<DeviceRef, E> {
        DeviceRef::parse(text).ok_or_else(|| E::custom(format!("expected {EXPECTED}")))
    }
}

impl JsonSchema for DeviceRef {
    fn schema_name() -> Cow<'static, str> {
        "DeviceRef".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "anyOf": [
                { "type": "integer", "format": "uint32", "minimum": 0, "maximum": u32::MAX },
                { "type": "string", "pattern": "^(GPU|MIG)-[0-9A-Za-z/-]+$" }
            ]
        })
    }

    fn inline_schema() -> bool {
        true
    }
}
