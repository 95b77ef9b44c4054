use proptest::prelude::*;

use super::*;

/// Name, data and id of each.
type Events = Vec<(String, String, String)>;

fn decode<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Result<Events, SseError> {
    let mut events = Events::new();
    let mut decoder = SseDecoder::new(64 * 1024);
    for piece in pieces {
        decoder.feed(piece, |event| {
            events.push((event.name.to_owned(), event.data.to_owned(), event.id.to_owned()));
            Ok::<_, SseError>(())
        })?;
    }
    Ok(events)
}

/// The standard's algorithm, word for word, on the whole text; but an id is its event's alone.
fn reference(text: &str) -> Events {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text).replace("\r\n", "\n").replace('\r', "\n");
    let (mut events, mut name, mut data, mut id) = (Events::new(), String::new(), String::new(), String::new());
    let mut lines: Vec<&str> = text.split('\n').collect();
    lines.pop();
    for line in lines {
        if line.is_empty() {
            if let Some(data) = data.strip_suffix('\n') {
                events.push((name, data.to_owned(), id));
            }
            (name, data, id) = <_>::default();
            continue;
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "data" => data = data + value + "\n",
            "event" => value.clone_into(&mut name),
            "id" if !value.contains('\0') => value.clone_into(&mut id),
            _ => {}
        }
    }
    events
}

/// LO-WAD-10: comments, both spellings of `data`, several data lines, names, all line ends, a byte order mark.
#[test]
fn what_engines_send() {
    let named = |id: &str, name: &str, data: &str| (name.to_owned(), data.to_owned(), id.to_owned());
    let event = |data: &str| named("", "", data);
    for (text, events) in [
        ("data: {\"a\":1}\n\ndata:{\"b\":2}\n\n", vec![event("{\"a\":1}"), event("{\"b\":2}")]),
        ("\u{feff}data: x\r\n\r\n: keep-alive\r\rdata:  y\rdata: z\r\r", vec![event("x"), event(" y\nz")]),
        ("event: error\ndata: a\n\ndata: b\n\n", vec![named("", "error", "a"), event("b")]),
        ("event: lost\n\ndata\n\ndatum: no\n\ndata: unfinished\n", vec![event("")]),
        ("data: [DONE]\n\n", vec![event("[DONE]")]),
        ("data: a\n: between\nid: 7\nretry: 1\n\ndata: b\n\n", vec![named("7", "", "a"), event("b")]),
        ("id: 1\n\nid: 2\ndata: a\nid:3\nid: 4\0\nidle: 5\n\n", vec![named("3", "", "a")]),
        ("id: 2\nid\ndata: a\n\n", vec![event("a")]),
    ] {
        assert_eq!(decode([text.as_bytes()]).unwrap(), events, "{text:?}");
        assert_eq!(reference(text), events, "{text:?}");
        assert_eq!(decode(text.as_bytes().chunks(1)).unwrap(), events, "{text:?}");
    }
}

/// LO-SSE-03: heartbeats of our own server are invisible; so is a field of the future and an event without data.
#[test]
fn what_our_server_sends() {
    let text = b": keep-alive\n\nid: 0\nevent: started\ndata: {}\n\nevent: ghost\n\nid:7\r\nevent:token\r\nfuture: x\r\ndata: a\r\ndata: b\r\n\r\n";
    let event = |id: &str, name: &str, data: &str| (name.to_owned(), data.to_owned(), id.to_owned());
    assert_eq!(decode([&text[..]]).unwrap(), [event("0", "started", "{}"), event("7", "token", "a\nb")]);
}

#[test]
fn limits_and_utf8() {
    let endless = vec![b'x'; 64 * 1024 + 1];
    assert!(matches!(decode([&endless[..]]), Err(SseError::TooLarge { .. })));
    assert!(matches!(decode(endless.chunks(1000)), Err(SseError::TooLarge { .. })));
    let many_lines = b"data: 0123456789\n".repeat(8000);
    assert!(matches!(decode([&many_lines[..]]), Err(SseError::TooLarge { .. })));
    assert!(matches!(decode([&b"data: \xff\n\n"[..]]), Err(SseError::NotUtf8(_))));
    assert!(matches!(decode([&b"id: \xff\ndata\n\n"[..]]), Err(SseError::NotUtf8(_))));
}

/// LO-WAD-10: a line of 100 MB is refused after one, and costs no more memory than that, however it comes.
#[test]
fn an_endless_line_costs_a_bounded_amount_of_memory() {
    for (piece, counted) in [(&[b'x'; 8192][..], DEFAULT_MAX_EVENT), (b"data: 012345678\n", DEFAULT_MAX_EVENT * 2)] {
        let mut taken = 0;
        let memory = allocation_counter::measure(|| {
            let mut decoder = SseDecoder::default();
            while decoder.feed(piece, |_| Ok::<_, SseError>(())).is_ok() {
                taken += piece.len();
                assert!(taken < 100_000_000, "it is never refused");
            }
        });
        assert!(taken <= counted && memory.bytes_max <= 4 * DEFAULT_MAX_EVENT as u64, "{taken}, {memory:?}");
    }
}

#[test]
fn an_event_that_lies_whole_in_the_input_is_not_copied() {
    let input = b"data: first\n\ndata: second\n\n";
    let mut decoder = SseDecoder::default();
    let feed = |decoder: &mut SseDecoder, seen: &mut Vec<bool>| {
        decoder
            .feed(input, |event| {
                seen.push(input.as_ptr_range().contains(&event.data.as_ptr()));
                Ok::<_, SseError>(())
            })
            .unwrap();
    };
    let mut seen = Vec::new();
    feed(&mut decoder, &mut seen);
    feed(&mut decoder, &mut seen);
    // The very first line is looked at in the buffer, because a byte order mark may be cut.
    assert_eq!(seen, [false, true, true, true]);
}

/// ORCH-3611: buffers are reused; decoding costs no allocation once they have their size.
#[test]
fn the_steady_state_allocates_nothing() {
    let event =
        "id: 41\nevent: token\ndata: {\"content\":\" capital\",\"tokens\":[5279],\"stop\":false}\n\n".repeat(50);
    let mut decoder = SseDecoder::default();
    let mut count = 0;
    let mut feed_all = |step: usize| {
        for piece in event.as_bytes().chunks(step) {
            let counting = decoder.feed(piece, |_| {
                count += 1;
                Ok::<_, SseError>(())
            });
            counting.unwrap();
        }
    };
    feed_all(7);
    for step in [1, 7, 64, 4096] {
        assert_eq!(allocation_counter::measure(|| feed_all(step)).count_total, 0, "pieces of {step} bytes");
    }
    assert_eq!(count, 250);
}

fn stream_text() -> impl Strategy<Value = String> {
    let line = prop_oneof![
        "data: ?[a-zé🦙: ]{0,12}",
        "event: ?[a-z]{0,5}",
        "id: ?[0-9\0]{0,5}",
        ":[a-z ]{0,5}",
        "[a-z:]{0,6}",
        Just(String::new()),
        Just(String::new()),
    ];
    let end = prop_oneof![Just("\n"), Just("\r"), Just("\r\n")];
    (any::<bool>(), prop::collection::vec((line, end), 0..30)).prop_map(|(mark, lines)| {
        let start = if mark { "\u{feff}" } else { "" };
        lines.into_iter().fold(start.to_owned(), |text, (line, end)| text + &line + end)
    })
}

proptest! {
    /// LO-WAD-10, ORCH-3611, SSE-1001: any cutting of any stream gives the same events in the same order, also inside a character.
    #[test]
    fn any_split_gives_the_same_events(text in stream_text(), cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8)) {
        let whole = decode([text.as_bytes()]).unwrap();
        prop_assert_eq!(&whole, &reference(&text));
        let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(text.len() + 1)).collect();
        at.extend([0, text.len()]);
        at.sort_unstable();
        let pieces = at.windows(2).map(|pair| &text.as_bytes()[pair[0]..pair[1]]);
        prop_assert_eq!(&decode(pieces).unwrap(), &whole);
        prop_assert_eq!(&decode(text.as_bytes().chunks(1)).unwrap(), &whole);
    }

    /// Whatever the bytes, decoding ends in events or a typed error.
    #[test]
    fn no_input_panics(bytes in prop::collection::vec(any::<u8>(), 0..200), step in 1_usize..9) {
        let _ = decode(bytes.chunks(step));
    }

    /// Whatever comes, what is kept of it stays within the limit: a line, and a name, an id and the data of an event.
    #[test]
    fn no_input_is_kept_beyond_the_limit(
        lines in prop::collection::vec(("(data|event|id|x|):?", 0_usize..60, any::<bool>()), 0..80),
        step in 1_usize..40,
    ) {
        let limit = 40;
        let mut text = String::new();
        for (field, length, ends) in lines {
            text = text + &field + &"y".repeat(length) + if ends { "\n\n" } else { "\n" };
        }
        let mut decoder = SseDecoder::new(limit);
        for piece in text.as_bytes().chunks(step) {
            let fed = decoder.feed(piece, |event| {
                assert!(event.data.len() <= 2 * limit);
                Ok::<_, SseError>(())
            });
            prop_assert!(decoder.line.len() <= limit && decoder.event.name.len() <= limit && decoder.event.id.len() <= limit);
            // Line feeds between data lines come on top.
            prop_assert!(decoder.event.data.len() <= limit + 1, "{}", decoder.event.data.len());
            if fed.is_err() {
                break;
            }
        }
    }
}
