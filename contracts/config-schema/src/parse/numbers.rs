//! `inf` and `nan`: TOML and YAML can say them, no setting can mean them, and a JSON tree would take them for "unset".

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};

use super::{Notation, Step};

/// A document, as far as numbers go.
#[derive(Deserialize)]
#[serde(untagged)]
enum Numbers {
    One(f64),
    List(Vec<Self>),
    Table(BTreeMap<String, Self>),
    None(IgnoredAny),
}

/// Where a well-formed document says `inf` or `nan`.
pub(super) fn not_finite(notation: Notation, text: &str) -> Vec<Vec<Step>> {
    let mut found = Vec::new();
    if let Some(numbers) = read::<Numbers>(notation, text) {
        numbers.collect(&mut Vec::new(), &mut found);
    }
    found
}

fn read<Document: DeserializeOwned>(notation: Notation, text: &str) -> Option<Document> {
    match notation {
        Notation::Toml => toml::from_str(text).ok(),
        Notation::Yaml => serde_yaml_ng::from_str(text).ok(),
    }
}

impl Numbers {
    fn collect(&self, path: &mut Vec<Step>, found: &mut Vec<Vec<Step>>) {
        let mut within = |step, inner: &Self| {
            path.push(step);
            inner.collect(path, found);
            path.pop();
        };
        match self {
            Self::List(items) => items.iter().enumerate().for_each(|(i, item)| within(Step::Index(i), item)),
            Self::Table(entries) => entries.iter().for_each(|(key, item)| within(Step::Key(key.clone()), item)),
            Self::One(number) if !number.is_finite() => found.push(path.clone()),
            Self::One(_) | Self::None(_) => {}
        }
    }
}
