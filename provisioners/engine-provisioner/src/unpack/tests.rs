use std::io::Write;

use tempfile::TempDir;

use super::*;

/// What is put into an archive.
enum Put {
    File(&'static str, &'static [u8], u32),
    Folder(&'static str),
    Link(&'static str, &'static str),
    Hard(&'static str, &'static str),
    Other(&'static str),
}

fn tar_of(entries: &[Put]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for entry in entries {
        let mut header = tar::Header::new_gnu();
        let (name, target, content): (&str, &str, &[u8]) = match entry {
            Put::File(name, content, mode) => {
                header.set_mode(*mode);
                (name, "", content)
            }
            Put::Folder(name) => {
                header.set_entry_type(EntryType::Directory);
                (name, "", b"")
            }
            Put::Link(name, target) => {
                header.set_entry_type(EntryType::Symlink);
                (name, target, b"")
            }
            Put::Hard(name, target) => {
                header.set_entry_type(EntryType::Link);
                (name, target, b"")
            }
            Put::Other(name) => {
                header.set_entry_type(EntryType::Fifo);
                (name, "", b"")
            }
        };
        // Written by hand, since the crate refuses to write what must not be read.
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.as_mut_bytes()[157..157 + target.len()].copy_from_slice(target.as_bytes());
        header.set_size(content.len() as u64);
        header.set_cksum();
        archive.append(&header, content).unwrap();
    }
    archive.into_inner().unwrap()
}

struct Place {
    folder: TempDir,
    cancel: CancellationToken,
}

impl Place {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), cancel: CancellationToken::new() }
    }

    fn out(&self) -> PathBuf {
        self.folder.path().join("deep/out")
    }

    fn unpack(&self, name: &str, bytes: &[u8], limits: Limits) -> Result<(), UnpackError> {
        let archive = self.folder.path().join(name);
        fs::write(&archive, bytes).unwrap();
        let _ = fs::remove_dir_all(self.out());
        let kind = kind_by_content(&archive).unwrap().expect("its content tells");
        assert_eq!(Kind::by_name(name), Some(kind));
        unpack(&archive, kind, &self.out(), limits, &self.cancel)
    }

    fn tar(&self, entries: &[Put]) -> Result<(), UnpackError> {
        self.unpack("a.tar", &tar_of(entries), Limits::ENGINE)
    }
}

/// LO-ENG-12: every kind of archive gives the same files; programs stay programs, and nothing gets more rights than that.
#[test]
fn every_kind_of_archive() {
    use std::os::unix::fs::PermissionsExt as _;
    let tar = tar_of(&[
        Put::Folder("top"),
        Put::File("top/bin/llama-server", b"program", 0o4777),
        Put::File("top/readme", b"text", 0o666),
        Put::Link("top/lib/libx.so", "libx.so.1"),
        Put::File("top/lib/libx.so.1", b"library", 0o644),
        Put::Hard("top/bin/other", "top/bin/llama-server"),
    ]);
    let place = Place::new();
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gz.write_all(&tar).unwrap();
    let zst = ruzstd::encoding::compress_to_vec(tar.as_slice(), ruzstd::encoding::CompressionLevel::Fastest);
    let mut xz = lzma_rust2::XzWriter::new(Vec::new(), lzma_rust2::XzOptions::with_preset(0)).unwrap();
    xz.write_all(&tar).unwrap();
    for (name, bytes) in [
        ("a.tar", tar.clone()),
        ("a.tar.gz", gz.finish().unwrap()),
        ("a.tar.xz", xz.finish().unwrap()),
        // Of several frames, as parallel compressors write them.
        (
            "a.tar.zst",
            [zst, vec![0x28, 0xb5, 0x2f, 0xfd, 0x24, 0x00, 0x01, 0x00, 0x00, 0x99, 0xe9, 0xd8, 0x51]].concat(),
        ),
    ] {
        place.unpack(name, &bytes, Limits::ENGINE).unwrap_or_else(|error| panic!("{name}: {error}"));
        let read = |path: &str| fs::read_to_string(place.out().join(path)).unwrap();
        let mode = |path: &str| fs::metadata(place.out().join(path)).unwrap().permissions().mode() & 0o7777;
        assert_eq!(
            (read("top/readme"), read("top/lib/libx.so"), read("top/bin/other")),
            ("text".into(), "library".into(), "program".into())
        );
        assert_eq!((mode("top/bin/llama-server") & 0o7722, mode("top/readme") & 0o7133), (0o700, 0), "{name}");
    }
}

/// A zip archive's files, folders and links.
#[test]
fn zip_archives() {
    let place = Place::new();
    let options = zip::write::SimpleFileOptions::default;
    let mut archive = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    archive.start_file("top/llama-server", options().unix_permissions(0o755)).unwrap();
    archive.write_all(b"program").unwrap();
    archive.add_symlink("top/link", "llama-server", options()).unwrap();
    archive.add_directory("top/empty", options()).unwrap();
    let bytes = archive.finish().unwrap().into_inner();
    place.unpack("a.zip", &bytes, Limits::ENGINE).unwrap();
    assert_eq!(fs::read(place.out().join("top/link")).unwrap(), b"program");
    assert!(crate::host::is_program(&place.out().join("top/llama-server")) && place.out().join("top/empty").is_dir());
    for name in ["../evil", "/evil", "a/../../evil", "a\\..\\evil"] {
        let mut archive = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
        archive.start_file(name, options()).unwrap();
        let bytes = archive.finish().unwrap().into_inner();
        let result = place.unpack("b.zip", &bytes, Limits::ENGINE);
        assert!(matches!(result, Err(UnpackError::Outside(_))), "{name}: {result:?}");
    }
}

/// Nothing is written outside, nor through links, and no link leads outside.
#[test]
fn nothing_leads_outside() {
    let place = Place::new();
    let secret = place.folder.path().join("secret");
    fs::write(&secret, "untouched").unwrap();
    let outside: &[&[Put]] = &[
        &[Put::File("../secret", b"x", 0o644)],
        &[Put::File("/tmp/llama-orch-evil", b"x", 0o644)],
        &[Put::File("a/../../../secret", b"x", 0o644)],
        &[Put::Link("link", "/etc/passwd")],
        &[Put::Link("link", "../secret")],
        &[Put::Link("a/link", "../../secret")],
        &[Put::Hard("hard", "../../secret")],
        &[Put::Hard("hard", "/etc/passwd")],
        // Up again from what is itself a link to higher up.
        &[Put::Link("a/b/up", "../.."), Put::Link("a/evil", "b/up/../../secret")],
    ];
    for entries in outside {
        let result = place.tar(entries);
        assert!(matches!(result, Err(UnpackError::Outside(_))), "{result:?}");
    }
    let wrong: &[&[Put]] = &[
        &[Put::Link("d", "elsewhere"), Put::File("d/x", b"x", 0o644)],
        &[Put::Link("d", "elsewhere"), Put::Link("d/x", "y")],
        &[Put::File("x", b"1", 0o644), Put::File("x", b"2", 0o644)],
        &[Put::Hard("hard", "nothing")],
        &[Put::Other("fifo")],
    ];
    for entries in wrong {
        let result = place.tar(entries);
        assert!(matches!(result, Err(UnpackError::Entry { .. })), "{result:?}");
    }
    place.tar(&[Put::Link("a/b/link", "../../top"), Put::File("top", b"x", 0o644)]).unwrap();
    assert_eq!(fs::read(place.out().join("a/b/link")).unwrap(), b"x");
    assert_eq!(fs::read_to_string(&secret).unwrap(), "untouched");
}

/// What unpacks to too much is stopped on the way, whatever it says of its size.
#[test]
fn bombs_are_stopped() {
    let place = Place::new();
    let few = Limits { entries: 2, ..Limits::ENGINE };
    let three = tar_of(&[Put::Folder("a"), Put::Folder("b"), Put::Folder("c")]);
    assert!(matches!(place.unpack("a.tar", &three, few), Err(UnpackError::TooLarge(_))));
    let small = Limits { bytes: 6, ..Limits::ENGINE };
    let seven = tar_of(&[Put::File("a", b"1234567", 0o644)]);
    assert!(matches!(place.unpack("a.tar", &seven, small), Err(UnpackError::TooLarge(_))));
    let mut header = tar::Header::new_gnu();
    header.set_path("zeros").unwrap();
    header.set_size(24 << 20);
    header.set_cksum();
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    gz.write_all(header.as_bytes()).unwrap();
    for _ in 0..24 {
        gz.write_all(&vec![0; 1 << 20]).unwrap();
    }
    let bomb = gz.finish().unwrap();
    assert!(matches!(place.unpack("a.tar.gz", &bomb, Limits::ENGINE), Err(UnpackError::TooLarge(_))));
    place.cancel.cancel();
    assert!(matches!(place.unpack("a.tar", &seven, Limits::ENGINE), Err(UnpackError::Canceled)));
}
