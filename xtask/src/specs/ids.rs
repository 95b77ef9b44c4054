//! Requirement IDs in running text.

/// How IDs begin, and how many digits their number has.
const FAMILIES: [(&str, usize); 8] =
    [("ADAPT", 4), ("AUTH", 4), ("FR", 3), ("HME", 3), ("LO", 2), ("OC", 4), ("ORCH", 4), ("SSE", 4)];

/// Every requirement ID in a text, in order; a range such as `LO-SSE-20..25` stands for all its members.
pub(super) fn find(text: &str) -> Vec<String> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-' || c == '.'));
    words.flat_map(|word| parse(word.trim_end_matches(['.', '-']))).collect()
}

/// Whether citing one ID means another: the same, or one of its clauses.
pub(super) fn covers(cited: &str, id: &str) -> bool {
    id.strip_prefix(cited).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// The IDs that one word stands for; none if it is not an ID.
fn parse(word: &str) -> Vec<String> {
    let (first, last) = word.split_once("..").map_or((word, None), |(first, last)| (first, Some(last)));
    if !is_id(first) {
        return Vec::new();
    }
    match last.and_then(|last| members(first, last)) {
        Some(members) => members,
        None => vec![first.to_owned()],
    }
}

fn members(first: &str, last: &str) -> Option<Vec<String>> {
    let (family, from) = first.rsplit_once('-')?;
    let width = from.len();
    let range = from.parse::<u32>().ok()?..=last.parse().ok()?;
    Some(range.map(|number| format!("{family}-{number:0width$}")).collect())
}

/// `FAMILY-AREA…-NUMBER`, where a clause (`.2`) or one of the suffixes `-G` and `-T` may follow.
fn is_id(word: &str) -> bool {
    let word = word.strip_suffix("-G").or_else(|| word.strip_suffix("-T")).unwrap_or(word);
    let mut segments = word.split('-');
    let family = segments.next().and_then(|first| FAMILIES.iter().find(|(family, _)| *family == first));
    let (Some((_, digits)), Some(number)) = (family, segments.next_back()) else { return false };
    let (number, clause) = number.split_once('.').map_or((number, "0"), |parts| parts);
    segments.all(|area| !area.is_empty() && area.bytes().all(|byte| byte.is_ascii_uppercase()))
        && number.len() == *digits
        && is_number(number)
        && is_number(clause)
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::{covers, find};

    #[test]
    fn a_number_covers_its_clauses() {
        assert!(covers("ORCH-3901", "ORCH-3901") && covers("ORCH-3901", "ORCH-3901.2"));
        assert!(!covers("ORCH-3901.2", "ORCH-3901") && !covers("ORCH-390", "ORCH-3901"));
    }

    #[test]
    fn finds_ids_and_nothing_else() {
        let cases: &[(&str, &[&str])] = &[
            ("LO-SSE-04: one, ORCH-3402.", &["LO-SSE-04", "ORCH-3402"]),
            ("(OC-CTRL-2050.1, SSE-1003.2)", &["OC-CTRL-2050.1", "SSE-1003.2"]),
            ("ORCH-3200-T/ORCH-3000-G", &["ORCH-3200-T", "ORCH-3000-G"]),
            ("OC-ADAPT-OAI-6020", &["OC-ADAPT-OAI-6020"]),
            ("payloads LO-SSE-20..22.", &["LO-SSE-20", "LO-SSE-21", "LO-SSE-22"]),
            ("SHA-256 UTF-8 LO-SSE ORCH-12 AUTH-x FR-12 LO-sse-04 X-Y-0004", &[]),
        ];
        for (text, ids) in cases {
            assert_eq!(find(text), *ids, "{text}");
        }
    }
}
