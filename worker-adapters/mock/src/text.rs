//! Deterministic text and the tokenizer.

use std::sync::LazyLock;

/// Id of the token every prompt begins with.
pub(crate) const BOS: u32 = 2;
/// Id of the token a model ends with.
pub(crate) const EOS: u32 = 1;

/// One thing a model can say, with what it looks like on the wire.
#[derive(Debug)]
pub struct Piece {
    /// The text.
    pub text: &'static str,
    /// The text as a JSON string, quotes included.
    pub json: Box<str>,
    /// The token's id.
    pub id: u32,
    /// An event of `POST /completion` up to the number of predicted tokens.
    pub(crate) event_head: Box<[u8]>,
}

/// Power of two, so that picking one is a mask. About one in sixteen has characters of several bytes.
const TEXTS: [&str; 128] = [
    " the", " a", " slow", " quick", " river", " of", " light", " runs", " over", " old", " stone", " and", " finds",
    " its", " way", " to", " sea", " while", " we", " wait", " for", " one", " more", " word", " from", " machine",
    " that", " counts", " tokens", " in", " dark", " room", " no", " one", " asks", " why", " queue", " is", " long",
    " or", " short", " it", " moves", " anyway", " then", " stops", " again", " with", " some", " grace", ",", ".",
    " first", " second", " third", " last", " never", " always", " here", " there", " below", " above", " between",
    " under", " near", " far", " north", " south", " east", " west", " morning", " evening", " night", " noon",
    " winter", " summer", " spring", " autumn", " rain", " snow", " wind", " cloud", " field", " tree", " leaf",
    " root", " bird", " wing", " song", " voice", " hand", " eye", " door", " window", " wall", " roof", " road",
    " bridge", " boat", " sail", " iron", " glass", " paper", " ink", " page", " line", " mark", " sign", " left",
    " right", " open", " closed", " full", " empty", " warm", " cold", " new", " same", " other", " each", " 🦙",
    " 🌍", "东", "京", " café", " ½", "🎈", " naïve",
];

static PIECES: LazyLock<Vec<Piece>> = LazyLock::new(|| TEXTS.iter().map(|text| Piece::new(text)).collect());

impl Piece {
    fn new(text: &'static str) -> Self {
        let json = serde_json::Value::from(text).to_string();
        let id = token_id(text.trim());
        let event_head = format!(
            "data: {{\"index\":0,\"content\":{json},\"tokens\":[{id}],\"stop\":false,\"id_slot\":-1,\"tokens_predicted\":"
        );
        Self { text, json: json.into(), id, event_head: event_head.into_bytes().into() }
    }

    /// Tokens it costs when characters of several bytes are spelled in byte tokens.
    pub(crate) fn byte_tokens(&self) -> u32 {
        self.text.chars().map(|c| c.len_utf8()).max().and_then(|longest| u32::try_from(longest).ok()).unwrap_or(1)
    }
}

/// Renders the table now, so that the first request does not pay for it.
pub(crate) fn prepare() {
    LazyLock::force(&PIECES);
}

/// What a model says to one prompt with one seed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Voice {
    key: u64,
}

impl Voice {
    pub(crate) fn new(prompt: &str, seed: u32) -> Self {
        Self { key: mix(hash(prompt.as_bytes()) ^ mix(u64::from(seed))) }
    }

    /// Another voice, apart from this one by `cause`.
    pub(crate) fn shifted(self, cause: u64) -> Self {
        Self { key: mix(self.key ^ mix(cause.wrapping_add(1))) }
    }

    /// Piece number `index`.
    pub(crate) fn piece(self, index: u32) -> &'static Piece {
        let pieces = &*PIECES;
        let number = mix(self.key.wrapping_add(u64::from(index).wrapping_mul(0x9e37_79b9_7f4a_7c15)));
        &pieces[(number % pieces.len() as u64) as usize]
    }

    /// A number between `low` and `high`, both included.
    pub(crate) fn between(self, low: u32, high: u32) -> u32 {
        let span = u64::from(high.saturating_sub(low)) + 1;
        low.saturating_add(u32::try_from(mix(!self.key) % span).unwrap_or(0))
    }
}

/// The prompt's tokens: one per word, after a first one that stands for its beginning.
#[must_use]
pub fn tokenize(text: &str) -> Vec<u32> {
    std::iter::once(BOS).chain(words(text).map(|(id, _)| id)).collect()
}

/// Ids and words of a text.
pub(crate) fn words(text: &str) -> impl Iterator<Item = (u32, &str)> {
    text.split_whitespace().map(|word| (token_id(word), word))
}

fn token_id(word: &str) -> u32 {
    // The first ids are the special tokens.
    3 + u32::try_from(hash(word.as_bytes()) % 262_000).unwrap_or(0)
}

/// FNV-1a: stable over time and machines, which the standard library's hasher does not promise.
pub(crate) fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// The finisher of SplitMix64.
pub(crate) const fn mix(mut value: u64) -> u64 {
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::{Voice, tokenize};

    fn says(prompt: &str, seed: u32, count: u32) -> String {
        let voice = Voice::new(prompt, seed);
        (0..count).map(|index| voice.piece(index).text).collect()
    }

    /// The text is part of what tests pin down, so it must not drift: not by seed, prompt, platform or version.
    #[test]
    fn the_text_depends_on_prompt_and_seed_alone() {
        assert_eq!(says("once", 1, 200), says("once", 1, 200));
        assert_ne!(says("once", 1, 200), says("once", 2, 200));
        assert_ne!(says("once", 1, 200), says("twice", 1, 200));
        assert!(!says("once", 1, 200).is_ascii(), "characters of several bytes occur");
    }

    #[test]
    fn tokens_are_words_and_a_beginning() {
        assert_eq!(tokenize(""), [2]);
        assert_eq!(tokenize("a b\n a").len(), 4);
        assert_eq!(tokenize("a b a")[1], tokenize("a")[1]);
    }
}
