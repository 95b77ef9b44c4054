//! Writes every sample into a folder.

use std::path::PathBuf;

fn main() -> std::io::Result<()> {
    let folder: PathBuf = std::env::args_os().nth(1).expect("a folder").into();
    for sample in sample_gguf::Sample::all() {
        sample.write(&folder.join(format!("{}.gguf", sample.name)))?;
        println!("{} {}", sample.name, sample.file_bytes());
    }
    Ok(())
}
