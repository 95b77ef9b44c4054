//! Which versions of an engine a line of a table is for.

/// Versions from one on, up to and without another.
#[derive(Clone, Copy)]
pub(super) struct Versions {
    from: &'static [u64],
    before: Option<&'static [u64]>,
}

impl Versions {
    pub(super) const ALL: Self = Self { from: &[], before: None };

    pub(super) const fn from(from: &'static [u64]) -> Self {
        Self { from, before: None }
    }

    pub(super) const fn before(before: &'static [u64]) -> Self {
        Self { from: &[], before: Some(before) }
    }

    /// Whether a version is one of them. One that says nothing, such as a commit, counts as the newest.
    pub(super) fn contain(self, version: &str) -> bool {
        match numbers(version) {
            Some(version) => self.from <= version.as_slice() && self.before.is_none_or(|end| version.as_slice() < end),
            None => self.before.is_none(),
        }
    }
}

/// The numbers of a version: 6891 of `b6891-1a2b3c4`, 0, 11 and 0 of `v0.11.0+cu128`.
fn numbers(version: &str) -> Option<Vec<u64>> {
    let text = version.trim_start_matches(['b', 'v']);
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    // A commit may begin with digits.
    if text[end..].starts_with(|c: char| c.is_ascii_alphanumeric()) {
        return None;
    }
    let parts = text[..end].split('.').map(|part| part.parse().ok()).collect::<Option<Vec<u64>>>()?;
    (!parts.is_empty()).then_some(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_their_numbers() {
        for (version, expected) in [
            ("b6891-1a2b3c4+GGML_CUDA=ON", Some(vec![6891])),
            ("v0.11.0", Some(vec![0, 11, 0])),
            ("0.11.0+cu128", Some(vec![0, 11, 0])),
            ("master-1a2b3c4", None),
            ("1a2b3c4d", None),
            ("latest", None),
        ] {
            assert_eq!(numbers(version), expected, "{version}");
        }
        let range = Versions::from(&[0, 9]);
        assert!(range.contain("v0.11.0") && !range.contain("0.8.5") && range.contain("main"));
        assert!(Versions::before(&[4304]).contain("b4303") && !Versions::before(&[4304]).contain("main"));
    }
}
