//! Archives, unpacked without trusting them. All calls block.
//!
//! Nothing is written outside the folder, whatever an archive says: absolute paths and `..` are refused, links are made last, so
//! that nothing is written through one, and only such as lead to somewhere inside. What an archive unpacks to is limited.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::path::{Component, Path, PathBuf};

use ruzstd::decoding::StreamingDecoder;
use tar::EntryType;
use tokio_util::sync::CancellationToken;

/// What an archive may unpack to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) entries: usize,
    pub(crate) bytes: u64,
    /// Most bytes for each byte of the archive, beyond the first `RATIO_FREE`.
    pub(crate) ratio: u64,
}

impl Limits {
    /// Sources of engines and programs with their libraries stay far below.
    pub(crate) const ENGINE: Self = Self { entries: 300_000, bytes: 32 << 30, ratio: 200 };
}

/// Bytes that any archive may unpack to.
const RATIO_FREE: u64 = 16 << 20;
/// Memory that decoding may take, in KiB.
const DECODER_KIB: u32 = 256 << 10;
/// Longest target of a link.
const LONGEST_LINK: u64 = 4096;

/// Why an archive is not unpacked.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// It is of no kind that is known.
    #[error("it is no archive of a known kind; .tar.gz, .tgz, .tar.xz, .tar.zst, .tar and .zip are known")]
    Kind,
    /// It wants to write somewhere else.
    #[error("its entry {0:?} leads out of the folder that it is unpacked to")]
    Outside(String),
    /// It holds something that is no file, folder or link, or something twice.
    #[error("its entry {name:?} is {problem}")]
    Entry {
        /// The entry.
        name: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// It unpacks to too much.
    #[error("it unpacks to more than {0}")]
    TooLarge(String),
    /// It is damaged, or cannot be written out.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// Somebody stopped it.
    #[error("it was canceled")]
    Canceled,
}

/// A kind of archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Tar,
    TarGz,
    TarXz,
    TarZst,
    Zip,
}

/// Archives by their ending.
const ENDINGS: &[(&str, Kind)] = &[
    (".tar.gz", Kind::TarGz),
    (".tgz", Kind::TarGz),
    (".tar.xz", Kind::TarXz),
    (".txz", Kind::TarXz),
    (".tar.zst", Kind::TarZst),
    (".tzst", Kind::TarZst),
    (".tar", Kind::Tar),
    (".zip", Kind::Zip),
];

impl Kind {
    /// The kind of what lies behind a URL or path, by its ending.
    pub(crate) fn by_name(name: &str) -> Option<Self> {
        let name = name.split(['?', '#']).next().unwrap_or_default().to_ascii_lowercase();
        ENDINGS.iter().find(|(ending, _)| name.ends_with(ending)).map(|(_, kind)| *kind)
    }
}

/// Unpacks an archive into a folder, which is created and must not exist before.
pub(crate) fn unpack(
    archive: &Path,
    kind: Kind,
    folder: &Path,
    limits: Limits,
    cancel: &CancellationToken,
) -> Result<(), UnpackError> {
    let file = File::open(archive)?;
    let bytes = limits.bytes.min(RATIO_FREE.saturating_add(file.metadata()?.len().saturating_mul(limits.ratio)));
    fs::create_dir_all(folder.parent().unwrap_or(Path::new("/")))?;
    fs::create_dir(folder)?;
    let out = Out { folder, left: bytes, limits: Limits { bytes, ..limits }, entries: 0, links: Vec::new(), cancel };
    let reader = BufReader::with_capacity(1 << 16, file);
    match kind {
        Kind::Tar => out.tar(reader),
        Kind::TarGz => out.tar(flate2::read::MultiGzDecoder::new(reader)),
        Kind::TarXz => out.tar(lzma_rust2::XzReader::new_mem_limit(reader, true, DECODER_KIB)),
        Kind::TarZst => out.tar(Frames { source: Some(reader), decoder: None }),
        Kind::Zip => out.zip(reader),
    }
}

/// Several zstd frames, one after the other, which a file may consist of.
struct Frames<R: Read> {
    source: Option<R>,
    decoder: Option<StreamingDecoder<R, ruzstd::decoding::FrameDecoder>>,
}

impl Read for Frames<BufReader<File>> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if let Some(decoder) = &mut self.decoder {
                match decoder.read(buffer)? {
                    0 => self.source = self.decoder.take().map(StreamingDecoder::into_inner),
                    length => return Ok(length),
                }
            }
            let Some(mut source) = self.source.take() else { return Ok(0) };
            if io::BufRead::fill_buf(&mut source)?.is_empty() {
                return Ok(0);
            }
            let decoder = StreamingDecoder::new_with_max_window_size(source, u64::from(DECODER_KIB) << 10);
            self.decoder = Some(decoder.map_err(|error| io::Error::other(error.to_string()))?);
        }
    }
}

/// Where an archive goes.
struct Out<'a> {
    folder: &'a Path,
    left: u64,
    limits: Limits,
    entries: usize,
    /// Links that are still to be made, and whether they are names of the same file.
    links: Vec<(PathBuf, PathBuf, bool)>,
    cancel: &'a CancellationToken,
}

impl Out<'_> {
    fn tar(mut self, reader: impl Read) -> Result<(), UnpackError> {
        // Whatever is not read may be as large as it likes.
        let mut archive = tar::Archive::new(reader);
        for entry in archive.entries()? {
            let mut entry = entry?;
            let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            let path = self.place(&name)?;
            match entry.header().entry_type() {
                EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                    let mode = entry.header().mode().unwrap_or(0o644);
                    self.file(&name, &path, mode, &mut entry)?;
                }
                EntryType::Directory => fs::create_dir_all(self.folder.join(path))?,
                kind @ (EntryType::Symlink | EntryType::Link) => {
                    let target = entry.link_name_bytes().unwrap_or_default();
                    let target = PathBuf::from(String::from_utf8_lossy(&target).into_owned());
                    self.link(&name, path, target, kind == EntryType::Link)?;
                }
                // What describes others and has been taken account of.
                EntryType::XGlobalHeader | EntryType::XHeader | EntryType::GNULongName | EntryType::GNULongLink => {}
                _ => return Err(UnpackError::Entry { name, problem: "no file, folder or link" }),
            }
        }
        self.make_links()
    }

    fn zip(mut self, reader: impl Read + Seek) -> Result<(), UnpackError> {
        let damaged = |error: zip::result::ZipError| UnpackError::Io(io::Error::other(error.to_string()));
        let mut archive = zip::ZipArchive::new(reader).map_err(damaged)?;
        for index in 0..archive.len() {
            let mut entry = archive.by_index(index).map_err(damaged)?;
            let name = entry.name().map_err(damaged)?.into_owned();
            let path = self.place(&name)?;
            if entry.is_dir() {
                fs::create_dir_all(self.folder.join(path))?;
            } else if entry.is_symlink() {
                let mut target = String::new();
                (&mut entry).take(LONGEST_LINK).read_to_string(&mut target)?;
                self.link(&name, path, PathBuf::from(target), false)?;
            } else {
                let mode = entry.unix_mode().unwrap_or(0o644);
                self.file(&name, &path, mode, &mut entry)?;
            }
        }
        self.make_links()
    }

    /// Where an entry goes, below the folder.
    fn place(&mut self, name: &str) -> Result<PathBuf, UnpackError> {
        if self.cancel.is_cancelled() {
            return Err(UnpackError::Canceled);
        }
        self.entries += 1;
        if self.entries > self.limits.entries {
            return Err(UnpackError::TooLarge(format!("{} entries", self.limits.entries)));
        }
        let outside = || UnpackError::Outside(name.to_owned());
        if name.contains(['\\', '\0']) {
            return Err(outside());
        }
        let mut path = PathBuf::new();
        for part in Path::new(name).components() {
            match part {
                Component::Normal(part) => path.push(part),
                Component::CurDir => {}
                Component::RootDir | Component::ParentDir | Component::Prefix(_) => return Err(outside()),
            }
        }
        Ok(path)
    }

    fn file(&mut self, name: &str, path: &Path, mode: u32, content: &mut impl Read) -> Result<(), UnpackError> {
        let place = self.folder.join(path);
        fs::create_dir_all(place.parent().unwrap_or(self.folder))?;
        // Neither set-uid nor writable by others, and always ours to read, write and remove.
        let mode = 0o644 | (mode & 0o111);
        let opened = OpenOptions::new().write(true).create_new(true).mode(mode).open(&place);
        let mut file = opened.map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => UnpackError::Entry { name: name.to_owned(), problem: "there twice" },
            _ => UnpackError::Io(error),
        })?;
        let mut chunk = vec![0; 1 << 16];
        loop {
            let length = content.read(&mut chunk)?;
            if length == 0 {
                return Ok(());
            }
            self.left = self
                .left
                .checked_sub(length as u64)
                .ok_or_else(|| UnpackError::TooLarge(format!("{} bytes", self.limits.bytes)))?;
            if self.cancel.is_cancelled() {
                return Err(UnpackError::Canceled);
            }
            io::Write::write_all(&mut file, &chunk[..length])?;
        }
    }

    /// Remembers a link that leads to somewhere inside.
    fn link(&mut self, name: &str, path: PathBuf, target: PathBuf, is_hard: bool) -> Result<(), UnpackError> {
        let mut at: Vec<_> = match is_hard {
            true => Vec::new(),
            false => path.parent().unwrap_or(Path::new("")).components().collect(),
        };
        let mut goes_down = false;
        for part in target.components() {
            let inside = match part {
                Component::Normal(_) => {
                    goes_down = true;
                    true
                }
                Component::CurDir => true,
                // Up again from a name that may be a link could be up from anywhere.
                Component::ParentDir => !goes_down && at.pop().is_some(),
                Component::RootDir | Component::Prefix(_) => false,
            };
            if !inside {
                return Err(UnpackError::Outside(format!("{name} -> {}", target.display())));
            }
        }
        self.links.push((path, target, is_hard));
        Ok(())
    }

    fn make_links(self) -> Result<(), UnpackError> {
        let (hard, soft): (Vec<_>, Vec<_>) = self.links.into_iter().partition(|(.., is_hard)| *is_hard);
        // Names of files come first, while no link can lead them elsewhere.
        for (path, target, is_hard) in hard.into_iter().chain(soft) {
            let place = self.folder.join(&path);
            let parent = place.parent().unwrap_or(self.folder);
            let problem = |problem| UnpackError::Entry { name: path.display().to_string(), problem };
            if passes_link(self.folder, &path) {
                return Err(problem("below a link"));
            }
            fs::create_dir_all(parent)?;
            let made = match is_hard {
                true => fs::hard_link(self.folder.join(target), &place),
                false => symlink(target, &place),
            };
            made.map_err(|error| match error.kind() {
                io::ErrorKind::AlreadyExists => problem("there twice"),
                io::ErrorKind::NotFound => problem("a link to nothing"),
                _ => UnpackError::Io(error),
            })?;
        }
        Ok(())
    }
}

/// Whether one of the folders above a place is a link.
fn passes_link(folder: &Path, path: &Path) -> bool {
    let above = path.ancestors().skip(1).take_while(|part| !part.as_os_str().is_empty());
    above.into_iter().any(|part| fs::symlink_metadata(folder.join(part)).is_ok_and(|found| found.is_symlink()))
}

/// The kind of an archive by its first bytes, for one whose name says nothing.
pub(crate) fn kind_by_content(path: &Path) -> io::Result<Option<Kind>> {
    let mut file = File::open(path)?;
    let mut head = [0; 6];
    let length = file.read(&mut head)?;
    let known: &[(&[u8], Kind)] = &[
        (&[0x1f, 0x8b], Kind::TarGz),
        (&[0xfd, b'7', b'z', b'X', b'Z', 0], Kind::TarXz),
        (&[0x28, 0xb5, 0x2f, 0xfd], Kind::TarZst),
        (b"PK\x03\x04", Kind::Zip),
    ];
    if let Some((_, kind)) = known.iter().find(|(magic, _)| head[..length].starts_with(magic)) {
        return Ok(Some(*kind));
    }
    let mut magic = [0; 5];
    file.seek(SeekFrom::Start(257))?;
    Ok((file.read(&mut magic)? == 5 && magic == *b"ustar").then_some(Kind::Tar))
}

#[cfg(test)]
mod tests;
