//! Any bytes as a header, in any pieces, as a `config.json` and as an index: no panic, and memory within the stated limits.
#![no_main]

use catalog_core::files::safetensors::{Config, Header, Reader, index_total};
use catalog_core::files::{HeaderError, ModelInfo, Progress, fit};
use libfuzzer_sys::fuzz_target;

fn read(bytes: &[u8], piece: usize) -> Result<Option<Header>, HeaderError> {
    let mut reader = Reader::default();
    for piece in bytes.chunks(piece) {
        if let Progress::Done(header) = reader.feed(piece)? {
            return Ok(Some(header));
        }
    }
    Ok(None)
}

/// Runs something that may take so many times the length of its input, and says what it found.
fn within<T>(times: usize, bytes: &[u8], work: impl FnOnce(&[u8]) -> T) -> T {
    let mut found = None;
    let used = allocation_counter::measure(|| found = Some(work(bytes)));
    assert!(used.bytes_max <= (times * bytes.len() + 16384) as u64, "{} bytes", used.bytes_max);
    found.expect("it was run")
}

fuzz_target!(|input: &[u8]| {
    let Some((piece, bytes)) = input.split_first() else { return };
    let pieces = within(4, bytes, |bytes| read(bytes, usize::from(*piece).max(1)));
    // What follows a header is passed over, whether it comes with the header or after it.
    let whole = within(4, bytes, |bytes| read(bytes, bytes.len().max(1)));
    assert_eq!(pieces.is_ok(), whole.is_ok());
    let config = within(64, bytes, Config::parse).ok();
    let total = within(8, bytes, index_total).unwrap_or_default();
    let parts: Vec<_> = whole.ok().flatten().into_iter().collect();
    let framed = [&(bytes.len() as u64).to_le_bytes(), bytes].concat();
    let _ = within(4, &framed, |bytes| read(bytes, bytes.len()));
    if let Ok(ModelInfo { shape: Some(shape), .. }) = ModelInfo::of_safetensors(&parts, config.as_ref(), total, false) {
        let total = fit::need(&shape, 8192, 4).total();
        assert!(fit::ctx_max(&shape, 4, total).is_none_or(|ctx| fit::need(&shape, ctx, 4).total() <= total));
        let _ = fit::need(&shape, u32::MAX, u32::MAX);
    }
});
