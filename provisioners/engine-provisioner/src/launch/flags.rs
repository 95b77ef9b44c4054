//! Flags as people write them, in their normal form.

use super::LaunchError;

/// A flag that more is known of than its name.
pub(super) struct Flag {
    /// Its names, the normal one first.
    pub(super) names: &'static [&'static str],
    /// Whether a value follows it.
    pub(super) has_value: bool,
    pub(super) rule: Rule,
}

/// What a pool may do with a flag.
#[derive(Clone, Copy)]
pub(super) enum Rule {
    /// Anything.
    Free,
    /// Nothing.
    Owned(&'static str),
    /// Nothing, for it moves the work to the CPU.
    Cpu(&'static str),
    /// Anything but in a strict pool.
    NotStrict(&'static str),
    /// Give it a value that this takes, perhaps in other words.
    Value(fn(&str) -> Result<String, ValueProblem>),
}

/// What is wrong with a value.
pub(super) enum ValueProblem {
    /// It moves the work to the CPU.
    Cpu(&'static str),
    /// It makes no sense.
    Senseless(&'static str, &'static str),
}

/// A flag as it was given, in its normal form.
pub(super) struct Given {
    name: String,
    values: Vec<String>,
    names: &'static [&'static str],
    rule: Rule,
}

impl Given {
    pub(super) fn replaces(&self, ours: &str) -> bool {
        !ours.is_empty() && (self.name == ours || self.names.contains(&ours))
    }

    fn is_same(&self, other: &Self) -> bool {
        self.name == other.name || self.names.contains(&other.name.as_str())
    }

    pub(super) fn into_words(self) -> Vec<String> {
        std::iter::once(self.name).chain(self.values).collect()
    }
}

/// Reads flags: each with the words that follow it up to the next. Of a flag that is given twice the last one counts, as long as
/// it is one of the table; any other may mean something else each time.
pub(super) fn parse(table: &'static [Flag], words: &[String]) -> Result<Vec<Given>, LaunchError> {
    let mut all: Vec<Given> = Vec::new();
    let mut words = words.iter().peekable();
    while let Some(word) = words.next() {
        let (name, joined) = match word.split_once('=') {
            Some((name, value)) if name.starts_with("--") => (name, Some(value.to_owned())),
            _ => (word.as_str(), None),
        };
        let known = find(table, name);
        let mut values: Vec<String> = joined.into_iter().collect();
        let takes = known.map_or(usize::MAX, |flag| usize::from(flag.has_value));
        // Whatever follows a flag that takes one word is its value, but for a flag that is known.
        let is_value = |next: &&String| if takes == 1 { find(table, next).is_none() } else { !is_flag(table, next) };
        while values.len() < takes && words.peek().is_some_and(is_value) {
            values.extend(words.next().cloned());
        }
        let Some(flag) = known else {
            let name = name.to_owned();
            all.push(Given { name, values, names: &[], rule: Rule::Free });
            continue;
        };
        let given = check(flag, name, values)?;
        all.retain(|before| !given.is_same(before));
        all.push(given);
    }
    Ok(all)
}

/// Whether the flags promise the same bytes for equal requests.
pub(super) fn check_strict(flags: &[Given]) -> Result<(), LaunchError> {
    let against = flags.iter().find_map(|given| match given.rule {
        Rule::NotStrict(advice) => Some((given, advice)),
        _ => None,
    });
    match against {
        Some((given, advice)) => Err(LaunchError::Owned { flag: given.name.clone(), advice }),
        None => Ok(()),
    }
}

/// `--flag` and `--flag_name` are known as `--flag-name` is: Python's engines take both.
fn find(table: &'static [Flag], name: &str) -> Option<&'static Flag> {
    let dashed = name.replace('_', "-");
    let is_it = |known: &&str| *known == name || *known == dashed || (name == "--ngl" && *known == "-ngl");
    table.iter().find(|flag| flag.names.iter().any(is_it))
}

/// Whether a word begins a flag, and is not a negative number.
fn is_flag(table: &'static [Flag], word: &str) -> bool {
    let rest = word.trim_start_matches('-');
    find(table, word).is_some()
        || (word.starts_with("--") && !rest.is_empty())
        || (word.starts_with('-') && rest.starts_with(|c: char| c.is_ascii_alphabetic()))
}

fn check(flag: &'static Flag, written: &str, mut values: Vec<String>) -> Result<Given, LaunchError> {
    let name = flag.names[0].to_owned();
    let shown = |values: &[String]| {
        std::iter::once(written).chain(values.iter().map(String::as_str)).collect::<Vec<_>>().join(" ")
    };
    match flag.rule {
        Rule::Free | Rule::NotStrict(_) => {}
        // A value may be a secret.
        Rule::Owned(advice) => return Err(LaunchError::Owned { flag: written.to_owned(), advice }),
        Rule::Cpu(advice) => return Err(LaunchError::Cpu { flag: written.to_owned(), advice }),
        Rule::Value(take) if !values.is_empty() => {
            values = match take(values[0].trim()) {
                Ok(value) => vec![value],
                Err(ValueProblem::Cpu(advice)) => return Err(LaunchError::Cpu { flag: shown(&values), advice }),
                Err(ValueProblem::Senseless(problem, advice)) => {
                    return Err(LaunchError::Value { flag: shown(&values), problem, advice });
                }
            }
        }
        Rule::Value(_) => {}
    }
    if flag.has_value == values.is_empty() {
        let problem = if flag.has_value { "has no value" } else { "takes no value" };
        return Err(LaunchError::Value { flag: written.to_owned(), problem, advice: "correct the pool's `flags`" });
    }
    Ok(Given { name, values, names: flag.names, rule: flag.rule })
}
