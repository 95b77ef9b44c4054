//! Decoder of `Transfer-Encoding: chunked` (RFC 9112, section 7.1): incremental, in place, without a buffer of its own.

use super::StreamError;

/// A chunk's extensions, and the trailers, are read past, but not without end.
const MAX_NOISE: u32 = 16 * 1024;

/// Where the decoder stands between two calls. Feed it with [`step`](ChunkedDecoder::step) until the input is used up.
#[derive(Clone, Debug, Default)]
pub struct ChunkedDecoder {
    state: State,
    noise: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// In a chunk's size; `digits` of it have been read.
    Size {
        value: u64,
        digits: u8,
    },
    Extension {
        value: u64,
    },
    SizeLf {
        value: u64,
    },
    Data {
        left: u64,
    },
    DataCr,
    DataLf,
    /// At the beginning of a trailer line, or of the empty line that ends the body.
    Trailer,
    TrailerLine,
    EndLf,
    Done,
}

impl Default for State {
    fn default() -> Self {
        Self::Size { value: 0, digits: 0 }
    }
}

/// What [`ChunkedDecoder::step`] found at the beginning of its input.
#[derive(Debug, PartialEq, Eq)]
pub struct Step<'a> {
    /// Payload, possibly a part of a chunk, possibly empty.
    pub payload: &'a [u8],
    /// Input that was not looked at yet.
    pub rest: &'a [u8],
}

impl ChunkedDecoder {
    /// Whether the last chunk and the empty line after it have been seen.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Decodes up to and including the next piece of payload. Does nothing once [`is_done`](Self::is_done).
    ///
    /// # Errors
    /// When the bytes are not a chunked body.
    pub fn step<'a>(&mut self, input: &'a [u8]) -> Result<Step<'a>, StreamError> {
        let mut at = 0;
        while at < input.len() && self.state != State::Done {
            if let State::Data { left } = self.state {
                let rest = &input[at..];
                let taken = usize::try_from(left).unwrap_or(usize::MAX).min(rest.len());
                let left = left - taken as u64;
                self.state = if left == 0 { State::DataCr } else { State::Data { left } };
                let (payload, rest) = rest.split_at(taken);
                return Ok(Step { payload, rest });
            }
            self.state = self.framing(input[at])?;
            at += 1;
        }
        Ok(Step { payload: &[], rest: &input[at..] })
    }

    /// Takes one byte of anything that is not payload.
    fn framing(&mut self, byte: u8) -> Result<State, StreamError> {
        Ok(match (self.state, byte) {
            (State::Size { digits: 1.., value }, b'\r') => State::SizeLf { value },
            (State::Size { digits: 1.., value }, b';' | b' ' | b'\t') => State::Extension { value },
            (State::Size { value, digits }, byte) => next_digit(value, digits, byte)?,
            (State::Extension { value }, b'\r') => State::SizeLf { value },
            (State::Extension { .. } | State::TrailerLine, byte) => {
                self.noise += 1;
                if self.noise > MAX_NOISE {
                    return Err(StreamError::TooLarge { part: "chunk framing", limit: MAX_NOISE as usize });
                }
                if self.state == State::TrailerLine && byte == b'\n' { State::Trailer } else { self.state }
            }
            (State::SizeLf { value: 0 }, b'\n') => State::Trailer,
            (State::SizeLf { value }, b'\n') => {
                self.noise = 0;
                State::Data { left: value }
            }
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => State::Size { value: 0, digits: 0 },
            (State::Trailer, b'\r') => State::EndLf,
            (State::Trailer, _) => State::TrailerLine,
            (State::EndLf, b'\n') => State::Done,
            (State::SizeLf { .. } | State::DataCr | State::DataLf | State::EndLf, _) => {
                return Err(StreamError::Malformed("a chunk is not followed by a line end"));
            }
            (State::Data { .. } | State::Done, _) => self.state,
        })
    }
}

fn next_digit(value: u64, digits: u8, byte: u8) -> Result<State, StreamError> {
    let digit = char::from(byte).to_digit(16).ok_or(StreamError::Malformed("a chunk's size is not a number"))?;
    // 15 hexadecimal digits are more than any body, and cannot overflow.
    if digits == 15 {
        return Err(StreamError::Malformed("a chunk's size is not a number"));
    }
    Ok(State::Size { value: value * 16 + u64::from(digit), digits: digits + 1 })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Payload, whether the end was seen, and how many bytes follow it.
    fn decode(pieces: &[&[u8]]) -> Result<(Vec<u8>, bool, usize), StreamError> {
        let (mut decoder, mut payload, mut after) = (ChunkedDecoder::default(), Vec::new(), 0);
        for piece in pieces {
            let mut rest = *piece;
            while !rest.is_empty() && !decoder.is_done() {
                let step = decoder.step(rest)?;
                payload.extend_from_slice(step.payload);
                rest = step.rest;
            }
            after += rest.len();
        }
        Ok((payload, decoder.is_done(), after))
    }

    #[test]
    fn bodies_and_their_ends() {
        for (body, payload, done, after) in [
            (&b"5\r\nhello\r\n0\r\n\r\n"[..], &b"hello"[..], true, 0),
            (b"5;name=\"v\"\r\nhello\r\n1 \r\n!\r\n0\r\nTrailer: x\r\n\r\nnext", b"hello!", true, 4),
            (b"A\r\n0123456789\r\n0\r\n", b"0123456789", false, 0),
            (b"a\r\n01234", b"01234", false, 0),
        ] {
            assert_eq!(decode(&[body]).unwrap(), (payload.to_vec(), done, after));
        }
        for bad in [&b"\r\n"[..], b"x\r\n", b"1\r\nab\r\n", b"1\n", b"0\r\n\r-", b"1000000000000000\r\n", b"-1\r\n"] {
            assert!(decode(&[bad]).is_err(), "{}", bad.escape_ascii());
        }
        let noise = |count: usize| vec![b'x'; count];
        for endless in [&b"1;"[..], b"0\r\n"] {
            let endless = [endless, &noise(MAX_NOISE as usize + 2)].concat();
            assert!(matches!(decode(&[&endless]), Err(StreamError::TooLarge { .. })));
        }
        let chatty = [b"1;".to_vec(), noise(1000), b"\r\nx\r\n".to_vec()].concat().repeat(100);
        assert_eq!(decode(&[&chatty]).unwrap().0.len(), 100);
    }

    proptest! {
        /// Whatever the bytes, decoding goes on, ends or fails; no payload is made up.
        #[test]
        fn no_input_panics(
            bytes in prop::collection::vec(prop_oneof![Just(b'\r'), Just(b'\n'), Just(b'0'), Just(b'f'), any::<u8>()], 0..200),
            step in 1_usize..20,
        ) {
            let pieces: Vec<&[u8]> = bytes.chunks(step).collect();
            if let Ok((payload, ..)) = decode(&pieces) {
                prop_assert!(payload.len() <= bytes.len());
            }
        }

        /// LO-WAD-10: however a chunked body is cut into reads, the payload is the same.
        #[test]
        fn any_split_gives_the_same_payload(
            chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 0..8),
            step in 1_usize..20,
        ) {
            let mut body = Vec::new();
            for chunk in &chunks {
                body.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                body.extend_from_slice(chunk);
                body.extend_from_slice(b"\r\n");
            }
            body.extend_from_slice(b"0\r\n\r\n");
            let pieces: Vec<&[u8]> = body.chunks(step).collect();
            prop_assert_eq!(decode(&pieces).unwrap(), (chunks.concat(), true, 0));
        }
    }
}
