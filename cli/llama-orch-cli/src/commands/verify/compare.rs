//! The comparison: token events byte by byte, in order, and how it ended. Everything else of a stream tells of its day.

use api_types::sse::{EndFrame, FinishReason};
use openapi_client::{Event, Frame};
use serde::Serialize;

/// What a stream put out.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Output {
    /// Index of the first token that is there; not 0 when the stream's beginning was not kept.
    first: usize,
    tokens: Vec<Token>,
    /// How it ended; absent when it broke off.
    pub(super) end: Option<End>,
}

/// One token event.
#[derive(Clone, Debug, PartialEq)]
struct Token {
    /// Its payload as it came.
    raw: String,
    text: String,
}

/// How a stream ended that ended as meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(super) struct End {
    pub(super) tokens_out: i32,
    pub(super) finish_reason: Option<FinishReason>,
}

impl Output {
    /// What of a stream is compared.
    pub(super) fn of(events: &[Event]) -> Self {
        let mut output = Self::default();
        for event in events {
            match &event.frame {
                Frame::Token(token) => {
                    if output.tokens.is_empty() {
                        output.first = usize::try_from(token.i).unwrap_or(0);
                    }
                    output.tokens.push(Token { raw: event.raw.clone(), text: token.t.clone() });
                }
                Frame::End(end) if end.canceled != Some(true) => output.end = Some(End::of(end)),
                _ => {}
            }
        }
        output
    }

    pub(super) fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// Token events up to the last one.
    fn length(&self) -> usize {
        self.first + self.tokens.len()
    }

    fn raw(&self, index: usize) -> Option<&str> {
        self.tokens.get(index.checked_sub(self.first)?).map(|token| token.raw.as_str())
    }

    /// Its text from a token on, at most `limit` characters; payloads where there is no text, such as for embeddings.
    pub(super) fn excerpt(&self, index: usize, limit: usize) -> String {
        let rest = self.tokens.get(index.saturating_sub(self.first)..).unwrap_or_default();
        let text: String = rest.iter().flat_map(|token| token.text.chars()).take(limit + 1).collect();
        match (text.is_empty(), rest.first()) {
            (true, Some(token)) => shortened(token.raw.chars().take(limit + 1).collect(), limit),
            _ => shortened(text, limit),
        }
    }

    /// The last of its text before a token, at most `limit` characters.
    pub(super) fn before(&self, index: usize, limit: usize) -> String {
        let known = &self.tokens[..index.saturating_sub(self.first).min(self.tokens.len())];
        let backwards = known.iter().rev().flat_map(|token| token.text.chars().rev());
        let mut text: Vec<char> = backwards.take(limit).collect();
        text.reverse();
        text.into_iter().collect()
    }
}

impl End {
    fn of(end: &EndFrame) -> Self {
        Self { tokens_out: end.tokens_out, finish_reason: end.finish_reason }
    }
}

fn shortened(mut text: String, limit: usize) -> String {
    if text.chars().count() > limit {
        text.pop();
        text.push('…');
    }
    text
}

/// What the comparison found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Comparison {
    /// Index of the first token event that could be compared.
    pub(super) from: usize,
    /// Token events that are equal, from there on.
    pub(super) equal_tokens: usize,
    /// Whether the original ended as meant, so that its end was compared too.
    pub(super) to_the_end: bool,
    /// Where they part; absent when they do not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) difference: Option<Difference>,
}

/// The first difference.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub(super) enum Difference {
    /// A token event, as payloads; absent where a stream had no more.
    Token { index: usize, then: Option<String>, now: Option<String> },
    /// Equal events, and the engine counted otherwise or stopped for another reason.
    End { then: Option<End>, now: Option<End> },
}

/// Compares what was put out then with what came now.
pub(super) fn compare(then: &Output, now: &Output) -> Comparison {
    let (from, to_the_end) = (then.first, then.end.is_some());
    // Of an original that broke off nothing is known beyond its last token.
    let last = if to_the_end { then.length().max(now.length()) } else { then.length() };
    let parted = (from..last).find(|index| then.raw(*index) != now.raw(*index));
    let owned = |raw: Option<&str>| raw.map(str::to_owned);
    let difference = match parted {
        Some(index) => Some(Difference::Token { index, then: owned(then.raw(index)), now: owned(now.raw(index)) }),
        None if to_the_end && then.end != now.end => Some(Difference::End { then: then.end, now: now.end }),
        None => None,
    };
    Comparison { from, equal_tokens: parted.unwrap_or(last) - from, to_the_end, difference }
}

#[cfg(test)]
mod tests {
    use openapi_client::kept_events;
    use proptest::prelude::{Just, Strategy, any};
    use proptest::{collection, prop_assert, prop_assert_eq, proptest};
    use serde_json::{Value, json};

    use super::{Comparison, Difference, End, Output, compare};

    fn event(name: &str, payload: &Value) -> String {
        format!("event: {name}\ndata: {payload}\n\n")
    }

    fn tokens(first: usize, texts: &[&str]) -> String {
        let token = |(offset, text): (usize, &&str)| event("token", &json!({"i": first + offset, "t": text}));
        texts.iter().enumerate().map(token).collect()
    }

    fn end(tokens_out: usize) -> String {
        event("end", &json!({"tokens_out": tokens_out, "decode_time_ms": 1, "decode_ms": 1, "finish_reason": "stop"}))
    }

    fn output(stream: &str) -> Output {
        Output::of(&kept_events(stream).expect("events"))
    }

    fn compared(then: &str, now: &str) -> Comparison {
        compare(&output(then), &output(now))
    }

    fn token_difference(index: usize, then: Option<&str>, now: Option<&str>) -> Option<Difference> {
        let raw = |text: Option<&str>| text.map(|text| json!({"i": index, "t": text}).to_string());
        Some(Difference::Token { index, then: raw(then), now: raw(now) })
    }

    /// ORCH-3045: what tells of the day is passed over; the rest counts.
    #[test]
    fn the_first_difference_is_found() {
        let whole = tokens(0, &["a", "b"]) + &end(2);
        let metrics = event("metrics", &json!({"queue_depth": 3, "on_time_probability": 0.5}));
        let with_metrics = format!("{metrics}{}{metrics}{}", tokens(0, &["a"]), tokens(1, &["b"]) + &end(2));
        assert_eq!(compared(&whole, &with_metrics).difference, None);

        let ended = |tokens_out| Some(End { tokens_out, finish_reason: Some(super::FinishReason::Stop) });
        for (now, equal_tokens, difference) in [
            (tokens(0, &["a", "x"]) + &end(2), 1, token_difference(1, Some("b"), Some("x"))),
            (tokens(0, &["a"]) + &end(1), 1, token_difference(1, Some("b"), None)),
            (tokens(0, &["a", "b", "c"]) + &end(3), 2, token_difference(2, None, Some("c"))),
            (tokens(0, &["ab"]) + &end(2), 0, token_difference(0, Some("a"), Some("ab"))),
            (tokens(0, &["a", "b"]) + &end(3), 2, Some(Difference::End { then: ended(2), now: ended(3) })),
        ] {
            let expected = Comparison { from: 0, equal_tokens, to_the_end: true, difference };
            assert_eq!(compared(&whole, &now), expected);
        }
    }

    /// Equal texts in other bytes differ: the promise is of bytes.
    #[test]
    fn bytes_count_and_not_their_meaning() {
        let spelled = "event: token\ndata: {\"t\": \"a\", \"i\": 0}\n\n".to_owned() + &end(1);
        assert!(compared(&(tokens(0, &["a"]) + &end(1)), &spelled).difference.is_some());
    }

    /// An original that broke off is a beginning; so much of it as was kept is compared.
    #[test]
    fn as_far_as_it_is_known() {
        let whole = tokens(0, &["a", "b", "c"]) + &end(3);
        let error = event("error", &json!({"code": "WORKER_RESET", "message": "x", "retriable": false}));
        let canceled = event("end", &json!({"tokens_out": 2, "decode_time_ms": 1, "decode_ms": 1, "canceled": true}));
        for ending in [String::new(), error, canceled] {
            let found = compared(&(tokens(0, &["a", "b"]) + &ending), &whole);
            assert_eq!(found, Comparison { from: 0, equal_tokens: 2, to_the_end: false, difference: None });
        }
        let found = compared(&(tokens(1, &["b", "c"]) + &end(3)), &whole);
        assert_eq!(found, Comparison { from: 1, equal_tokens: 2, to_the_end: true, difference: None });
        let found = compared(&(tokens(1, &["b", "c"]) + &end(3)), &(tokens(0, &["a"]) + &end(1)));
        assert_eq!(found.difference, token_difference(1, Some("b"), None));
    }

    #[test]
    fn excerpts_are_short() {
        let texts = output(&tokens(2, &["ab", "é—", "cd"]));
        assert_eq!([texts.excerpt(3, 9), texts.excerpt(3, 3), texts.excerpt(5, 3)], ["é—cd", "é—c…", ""]);
        assert_eq!([texts.before(4, 3), texts.before(2, 3), texts.before(9, 99)], ["bé—", "", "abé—cd"]);
        let vector = output(&event("token", &json!({"t": "", "i": 0, "embedding": [0.5, 0.25]})));
        assert_eq!(vector.excerpt(0, 20), "{\"embedding\":[0.5,0.…");
    }

    proptest! {
        /// A stream equals itself, and a change is found where it was made.
        #[test]
        fn a_change_is_found(
            (texts, place) in collection::vec(any::<String>(), 1..20)
                .prop_flat_map(|texts| { let length = texts.len(); (Just(texts), 0..length) }),
        ) {
            let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
            let stream = tokens(0, &texts) + &end(texts.len());
            prop_assert!(compared(&stream, &stream).difference.is_none());
            let changed = format!("{}!", texts[place]);
            let mut other = texts.clone();
            other[place] = &changed;
            let found = compared(&stream, &(tokens(0, &other) + &end(texts.len())));
            prop_assert_eq!(found.equal_tokens, place);
            prop_assert_eq!(found.difference, token_difference(place, Some(texts[place]), Some(&changed)));
        }
    }
}
