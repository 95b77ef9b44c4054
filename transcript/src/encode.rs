//! Events as bytes. The `token` frame is written by hand because it is the one on the hot path; a test holds it against
//! serde's rendering of the same payload.

use api_types::sse::{Channel, EventName};
use bytes::{BufMut, BytesMut};
use serde::Serialize;

/// Everything in a token frame but the text: ids, indexes and names at their longest.
const TOKEN_FRAME_OVERHEAD: usize = 96;

/// An upper bound of the size of a token frame. A control character takes six bytes (`\u0001`).
pub(crate) fn token_bound(text: &str) -> usize {
    TOKEN_FRAME_OVERHEAD + text.len() * 6
}

/// Appends a `token` frame.
pub(crate) fn token(out: &mut BytesMut, id: u32, index: u32, text: &str, channel: Channel) {
    let mut digits = itoa::Buffer::new();
    out.put_slice(b"id: ");
    out.put_slice(digits.format(id).as_bytes());
    out.put_slice(b"\nevent: token\ndata: {\"t\":\"");
    escape(out, text);
    out.put_slice(b"\",\"i\":");
    out.put_slice(digits.format(index).as_bytes());
    if channel != Channel::Content {
        out.put_slice(b",\"channel\":\"");
        out.put_slice(channel.as_str().as_bytes());
        out.put_slice(b"\"");
    }
    out.put_slice(b"}\n\n");
}

/// Appends any frame.
pub(crate) fn event<T: Serialize>(out: &mut BytesMut, id: u32, name: EventName, payload: &T) {
    let mut digits = itoa::Buffer::new();
    out.put_slice(b"id: ");
    out.put_slice(digits.format(id).as_bytes());
    out.put_slice(b"\nevent: ");
    out.put_slice(name.as_str().as_bytes());
    out.put_slice(b"\ndata: ");
    serde_json::to_writer(out.writer(), payload).expect("payloads are plain data and the buffer grows");
    out.put_slice(b"\n\n");
}

/// Where the first frame with the given id or a later one begins in a run of whole frames; the run's length when there is
/// none. Every frame ends with the only empty line in it, because JSON holds no raw line feed.
pub(crate) fn offset_of(frames: &[u8], id: u32) -> usize {
    let mut start = 0;
    for end in memchr::memmem::find_iter(frames, b"\n\n") {
        if frame_id(&frames[start..]) >= id {
            return start;
        }
        start = end + 2;
    }
    frames.len()
}

/// The id of the frame that these bytes begin with.
pub(crate) fn frame_id(frame: &[u8]) -> u32 {
    let digits = frame[b"id: ".len()..].iter().take_while(|byte| byte.is_ascii_digit());
    digits.fold(0, |id, digit| id * 10 + u32::from(digit - b'0'))
}

/// Appends text as the inside of a JSON string, with the same choices as serde_json.
fn escape(out: &mut BytesMut, text: &str) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let bytes = text.as_bytes();
    let mut clean = 0;
    for (at, &byte) in bytes.iter().enumerate() {
        let short = match byte {
            b'"' => b'"',
            b'\\' => b'\\',
            b'\n' => b'n',
            b'\r' => b'r',
            b'\t' => b't',
            0x08 => b'b',
            0x0c => b'f',
            0x00..=0x1f => b'u',
            _ => continue,
        };
        out.put_slice(&bytes[clean..at]);
        clean = at + 1;
        out.put_slice(&[b'\\', short]);
        if short == b'u' {
            out.put_slice(&[b'0', b'0', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
        }
    }
    out.put_slice(&bytes[clean..]);
}

#[cfg(test)]
mod tests {
    use api_types::sse::TokenFrame;
    use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};

    use super::{BytesMut, Channel, EventName, event, token, token_bound};

    proptest! {
        /// ORCH-3400, OC-CTRL-2022: the hand-written frame is byte for byte what serde writes, and fits its bound.
        #[test]
        fn a_token_frame_equals_serdes(text in any::<String>(), id in any::<u32>(), index in 0..i32::MAX, pick in 0..3_usize) {
            let channel = Channel::ALL[pick];
            let (mut ours, mut theirs) = (BytesMut::new(), BytesMut::new());
            token(&mut ours, id, index.cast_unsigned(), &text, channel);
            let named = (channel != Channel::Content).then_some(channel);
            let frame = TokenFrame { t: text.clone(), i: index, channel: named, embedding: None, score: None };
            event(&mut theirs, id, EventName::Token, &frame);
            prop_assert_eq!(&ours, &theirs);
            prop_assert!(ours.len() <= token_bound(&text));
        }
    }
}
