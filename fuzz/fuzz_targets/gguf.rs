//! Any bytes, in any pieces: no panic, the same answer however they are cut, and memory within the stated limit.
#![no_main]

use catalog_core::files::gguf::{Header, MAX_KEPT, Reader};
use catalog_core::files::{HeaderError, ModelInfo, Progress, fit};
use libfuzzer_sys::fuzz_target;

fn read(bytes: &[u8], piece: usize) -> Result<Option<Header>, HeaderError> {
    let mut reader = Reader::new();
    for piece in bytes.chunks(piece) {
        if let Progress::Done(header) = reader.feed(piece)? {
            return Ok(Some(header));
        }
    }
    Ok(None)
}

fuzz_target!(|input: &[u8]| {
    let Some((piece, bytes)) = input.split_first() else { return };
    let mut pieces = None;
    let used = allocation_counter::measure(|| pieces = Some(read(bytes, usize::from(*piece).max(1))));
    assert!(used.bytes_max <= (2 * MAX_KEPT + 4 * bytes.len() + 4096) as u64, "{} bytes", used.bytes_max);
    let whole = read(bytes, bytes.len().max(1));
    assert_eq!(format!("{:?}", pieces.as_ref()), format!("{:?}", Some(&whole)));
    let Ok(Some(header)) = whole else { return };
    if let Ok(ModelInfo { shape: Some(shape), .. }) = ModelInfo::of_gguf(&[header.clone(), header], Some(1 << 40)) {
        let total = fit::need(&shape, 8192, 4).total();
        assert!(fit::ctx_max(&shape, 4, total).is_none_or(|ctx| fit::need(&shape, ctx, 4).total() <= total));
        let _ = fit::need(&shape, u32::MAX, u32::MAX);
    }
});
