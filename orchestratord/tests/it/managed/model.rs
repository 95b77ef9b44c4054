//! Models as llama.cpp reads them, with almost nothing in them.

use std::path::Path;

/// Length of [`Model::Bloated`]. It is hashed, which takes a debug build its time.
pub(super) const BLOATED_BYTES: u64 = 48 << 20;

/// What a model's file is to be like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Model {
    /// A whole model that takes next to no memory.
    Tiny,
    /// A whole model that takes more than half of the memory of the reference box's larger GPU.
    Large,
    /// A whole model whose context alone takes more memory than any GPU of the reference box has.
    Huge,
    /// A tiny model by its header, and a large one by its file, which is what the engine takes memory for.
    Bloated,
    /// A whole model of so many layers, whose context takes 16 MiB for each of them, at 1024 tokens. Its engine must be told to
    /// take as much.
    Layers(u32),
    /// A header that breaks off.
    Truncated,
    /// Something else altogether.
    Text,
    /// No file at all.
    Missing,
}

/// Writes a file, or removes it.
pub(super) fn write(path: &Path, model: Model) {
    let whole = |layers, width| gguf(&path.display().to_string(), layers, width);
    let bytes = match model {
        Model::Tiny | Model::Bloated => whole(2, 64),
        Model::Large => whole(64, 65_536),
        Model::Huge => whole(256, 65_536),
        Model::Layers(layers) => whole(layers, 4096),
        Model::Truncated => whole(2, 64)[..200].to_vec(),
        Model::Text => b"<html><body>404 Not Found</body></html>\n".to_vec(),
        Model::Missing => {
            let _absent = std::fs::remove_file(path);
            return;
        }
    };
    std::fs::write(path, bytes).expect("the model is written");
    if model == Model::Bloated {
        // Without blocks on the disk.
        let file = std::fs::File::options().write(true).open(path).expect("the model is there");
        file.set_len(BLOATED_BYTES).expect("the file can have holes");
    }
}

/// A GGUF file of version 3 with the header of a llama.
fn gguf(name: &str, layers: u32, width: u32) -> Vec<u8> {
    let texts = [("general.architecture", "llama"), ("general.name", name)];
    let numbers = [
        ("llama.context_length", 8192),
        ("llama.block_count", layers),
        ("llama.embedding_length", width),
        ("llama.feed_forward_length", 2 * width),
        ("llama.attention.head_count", 4),
        ("llama.attention.head_count_kv", 4),
        ("llama.vocab_size", 256),
    ];
    let mut file = b"GGUF".to_vec();
    file.extend(3_u32.to_le_bytes());
    file.extend(0_u64.to_le_bytes());
    file.extend(u64::try_from(texts.len() + numbers.len()).expect("a few").to_le_bytes());
    for (key, value) in texts {
        push_text(&mut file, key);
        file.extend(8_u32.to_le_bytes());
        push_text(&mut file, value);
    }
    for (key, value) in numbers {
        push_text(&mut file, key);
        file.extend(4_u32.to_le_bytes());
        file.extend(value.to_le_bytes());
    }
    file.resize(file.len() + 4096, 0);
    file
}

fn push_text(file: &mut Vec<u8>, text: &str) {
    file.extend(u64::try_from(text.len()).expect("short").to_le_bytes());
    file.extend(text.as_bytes());
}
