//! Where CUDA is, which GPUs its compiler knows, and which host compilers it takes.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::cache::{Stamp, read_json, write_json};
use crate::error::EngineError;
use crate::gpus::Gpus;
use crate::host::{Host, is_program};
use crate::process::Run;
use crate::tools::Tool;

/// Longest that a compiler may take to tell its version.
const LONGEST: Duration = Duration::from_secs(30);

/// A CUDA version, major and minor.
pub(crate) type Version = (u32, u32);

/// A CUDA toolkit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cuda {
    pub(crate) nvcc: PathBuf,
    /// Where it lies; not needed for a compiler that is on the path.
    pub(crate) root: Option<PathBuf>,
    pub(crate) version: Version,
}

/// What was found the last time, so that the compiler need not be asked again.
#[derive(Debug, Serialize, Deserialize)]
struct Remembered {
    nvcc: PathBuf,
    stamp: Stamp,
    version: Version,
}

impl Cuda {
    /// The first toolkit that answers: where the environment says, on the path, where distributions and NVIDIA put it.
    /// What it said is remembered in `memory` for as long as its compiler is the same file.
    pub(crate) async fn find(host: &Host, memory: &Path) -> Result<Self, EngineError> {
        let places = places(host);
        for (nvcc, root) in places.iter().filter(|(nvcc, _)| is_program(nvcc)) {
            let stamp = Stamp::of(nvcc);
            let known: Option<Remembered> = read_json(memory);
            let known = known.filter(|known| known.nvcc == *nvcc && Some(known.stamp) == stamp);
            let version = match known {
                Some(known) => Some(known.version),
                None => ask(host, nvcc).await,
            };
            let Some(version) = version else { continue };
            if let Some(stamp) = stamp {
                // Without it the compiler is asked once more, so no failure matters.
                let _ = write_json(memory, &Remembered { nvcc: nvcc.clone(), stamp, version });
            }
            return Ok(Self { nvcc: nvcc.clone(), root: root.clone(), version });
        }
        let absolute = places.into_iter().map(|(nvcc, _)| nvcc).filter(|nvcc| nvcc.is_absolute());
        Err(EngineError::MissingTools {
            tools: vec![Tool::Nvcc],
            needed_for: "building an engine for NVIDIA GPUs".to_owned(),
            looked_at: absolute.collect(),
            fix: Tool::Nvcc.fix(&host.distro),
        })
    }

    /// Whether it can build for these GPUs, and whether their driver runs what it builds.
    pub(crate) fn check(&self, gpus: &Gpus, host: &Host) -> Result<String, EngineError> {
        let (major, minor) = self.version;
        for (a, b) in gpus.capabilities() {
            let row = CAPABILITIES.iter().find(|row| row.capability == (a, b));
            let from = row.map_or(NEWER, |row| row.from);
            let fix = |version: Version| {
                format!(
                    "install CUDA {}.{} or newer, up to what `nvidia-smi` shows: {}",
                    version.0,
                    version.1,
                    Tool::Nvcc.fix(&host.distro)
                )
            };
            if self.version < from && (row.is_some() || (a, b) > NEWEST) {
                let what = format!(
                    "CUDA {major}.{minor} cannot build for GPUs of compute capability {a}.{b}, which takes CUDA {}.{}",
                    from.0, from.1
                );
                return Err(EngineError::NoCuda { what, fix: fix(from) });
            }
            if let Some(end) = row.and_then(|row| row.before)
                && self.version >= end
            {
                let what = format!("CUDA {major}.{minor} cannot build any more for GPUs of compute capability {a}.{b}");
                let fix = format!("install a CUDA toolkit older than {}.{}, and name it in CUDA_HOME", end.0, end.1);
                return Err(EngineError::NoCuda { what, fix });
            }
        }
        match gpus.driver_cuda() {
            // Within a major version a driver runs what newer toolkits build.
            Some((driver, _)) if driver < major => Err(EngineError::NoCuda {
                what: format!("the NVIDIA driver serves CUDA {driver}, and the toolkit is CUDA {major}.{minor}"),
                fix: format!("update the driver: {}", Tool::Driver.fix(&host.distro)),
            }),
            _ => Ok(format!("CUDA {major}.{minor} for {gpus}")),
        }
    }

    /// The newest major version of GCC that it takes.
    pub(crate) fn newest_gcc(&self) -> u32 {
        HOST_COMPILERS.iter().rev().find(|(from, _)| *from <= self.version).map_or(9, |(_, gcc)| *gcc)
    }
}

/// A compute capability, and the versions of CUDA that know it.
struct Capability {
    capability: (u32, u32),
    from: Version,
    before: Option<Version>,
}

const fn capability(major: u32, minor: u32, from: Version, before: Option<Version>) -> Capability {
    Capability { capability: (major, minor), from, before }
}

/// Source: the CUDA toolkit's release notes, and `nvcc --list-gpu-arch` of its versions.
const CAPABILITIES: &[Capability] = &[
    capability(5, 0, (6, 5), Some((13, 0))),
    capability(5, 2, (6, 5), Some((13, 0))),
    capability(6, 0, (8, 0), Some((13, 0))),
    capability(6, 1, (8, 0), Some((13, 0))),
    capability(7, 0, (9, 0), Some((13, 0))),
    capability(7, 2, (9, 2), Some((13, 0))),
    capability(7, 5, (10, 0), None),
    capability(8, 0, (11, 0), None),
    capability(8, 6, (11, 1), None),
    capability(8, 7, (11, 4), None),
    capability(8, 9, (11, 8), None),
    capability(9, 0, (11, 8), None),
    capability(10, 0, (12, 8), None),
    capability(10, 3, (12, 9), None),
    capability(11, 0, (13, 0), None),
    capability(12, 0, (12, 8), None),
    capability(12, 1, (12, 9), None),
];

/// The newest capability of the table.
const NEWEST: (u32, u32) = (12, 1);
/// What a newer one takes at least.
const NEWER: Version = (13, 0);

/// From which CUDA version on which major version of GCC is taken. Source: `crt/host_config.h` of those versions.
const HOST_COMPILERS: &[(Version, u32)] =
    &[((11, 0), 9), ((11, 1), 10), ((11, 5), 11), ((12, 0), 12), ((12, 4), 13), ((12, 8), 14), ((13, 0), 15)];

/// Where a compiler may be, and the root of its toolkit where CMake has to be told.
fn places(host: &Host) -> Vec<(PathBuf, Option<PathBuf>)> {
    let in_root = |root: PathBuf| (root.join("bin/nvcc"), Some(root));
    let named = ["CUDA_HOME", "CUDA_PATH"].iter().filter_map(|name| host.environment.get(*name));
    let mut all: Vec<_> = named.filter(|root| !root.is_empty()).map(|root| in_root(PathBuf::from(root))).collect();
    match host.find("nvcc") {
        Some(nvcc) => all.push((nvcc, None)),
        None => all.push((PathBuf::from("nvcc"), None)),
    }
    all.extend(host.cuda_places.iter().flat_map(|place| matching(place)).map(in_root));
    let mut seen = std::collections::BTreeSet::new();
    all.retain(|(nvcc, _)| seen.insert(nvcc.clone()));
    all
}

/// The folders that a place stands for; of several versions the newest first.
fn matching(place: &Path) -> Vec<PathBuf> {
    let name = place.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let (Some(beginning), Some(parent)) = (name.strip_suffix('*'), place.parent()) else {
        return vec![place.to_owned()];
    };
    let entries = fs::read_dir(parent).into_iter().flatten().flatten();
    let mut found: Vec<_> = entries
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let version = name.strip_prefix(beginning)?.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
            Some((version.collect::<Vec<_>>(), entry.path()))
        })
        .collect();
    found.sort();
    found.into_iter().rev().map(|(_, path)| path).collect()
}

async fn ask(host: &Host, nvcc: &Path) -> Option<Version> {
    let run = Run::new(nvcc, host.child_environment()).args(["--version"]).at_most(LONGEST);
    let ended = run.finish(&CancellationToken::new(), |_| ()).await.ok()?;
    let version = ended.lines.iter().find_map(|line| version_of(line));
    if version.is_none() || !ended.status.success() {
        tracing::warn!(nvcc = %nvcc.display(), "CUDA compiler does not tell its version and is passed over");
        return None;
    }
    version
}

/// `Cuda compilation tools, release 12.4, V12.4.131`.
fn version_of(line: &str) -> Option<Version> {
    let (_, rest) = line.split_once("release ")?;
    let (major, minor) = rest.split([',', ' ']).next()?.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpus::Gpu;

    fn gpus(capabilities: &[(u32, u32)], driver: Option<Version>) -> Gpus {
        let gpu = |(index, capability): (usize, &(u32, u32))| Gpu {
            index: u32::try_from(index).unwrap(),
            uuid: format!("GPU-{index}"),
            compute_capability: *capability,
        };
        Gpus::new(capabilities.iter().enumerate().map(gpu).collect(), driver).unwrap()
    }

    fn cuda(version: Version) -> Cuda {
        Cuda { nvcc: PathBuf::from("/nvcc"), root: None, version }
    }

    /// ORCH-3433, LO-ENG-06: a toolkit that cannot build for the pool's GPUs, or whose programs their driver does not run, is
    /// told before anything is built.
    #[test]
    fn toolkits_gpus_and_drivers_must_fit() {
        let host = Host::of_process();
        for (version, capabilities, driver, fits) in [
            ((12, 4), vec![(8, 6), (8, 9)], Some((12, 2)), true),
            ((11, 5), vec![(8, 6)], Some((12, 2)), true),
            ((11, 5), vec![(8, 6), (8, 9)], Some((12, 2)), false),
            ((12, 4), vec![(12, 0)], Some((12, 8)), false),
            ((12, 8), vec![(12, 0)], Some((12, 8)), true),
            ((13, 0), vec![(6, 1)], Some((13, 0)), false),
            ((13, 0), vec![(8, 6)], Some((12, 8)), false),
            ((12, 4), vec![(8, 6)], None, true),
            ((12, 9), vec![(13, 1)], None, false),
        ] {
            let result = cuda(version).check(&gpus(&capabilities, driver), &host);
            assert_eq!(result.is_ok(), fits, "{version:?} {capabilities:?} {driver:?}: {result:?}");
            assert!(
                result.err().is_none_or(|error| error.fault() == api_types::PoolFault::NoCuda && error.fix().is_some())
            );
        }
    }

    /// ORCH-3431: the newest GCC that each CUDA takes.
    #[test]
    fn host_compilers() {
        let newest: Vec<_> =
            [(10, 2), (11, 8), (12, 2), (12, 6), (12, 9), (13, 1)].map(|it| cuda(it).newest_gcc()).into();
        assert_eq!(newest, [9, 11, 12, 13, 14, 15]);
    }

    /// ORCH-3269, LO-ENG-05: what the environment names comes first, then the path, then the usual places, the newest of several
    /// versions; CMake is told the root of what is not on the path. A compiler that was asked once is remembered until it
    /// changes.
    #[tokio::test]
    async fn discovery() {
        let folder = tempfile::tempdir().unwrap();
        let put = |place: &str, release: &str| {
            use std::os::unix::fs::PermissionsExt as _;
            let path = folder.path().join(place);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            let asked = folder.path().join("asked");
            fs::write(
                &path,
                format!(
                    "#!/bin/sh\necho x >> {}\necho Cuda compilation tools, release {release}, V{release}.1\n",
                    asked.display()
                ),
            )
            .unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        };
        let at = |place: &str| folder.path().join(place);
        let mut host = Host::of_process();
        host.environment.clear();
        host.path = vec![PathBuf::from("/usr/bin"), PathBuf::from("/bin")];
        host.path.retain(|path| !path.join("nvcc").exists());
        host.cuda_places = vec![at("opt/cuda"), at("local/cuda-*")];
        let memory = at("cuda.json");
        let error = Cuda::find(&host, &memory).await.unwrap_err();
        assert_eq!(error.fault(), api_types::PoolFault::NoCuda);
        assert!(error.to_string().contains("opt/cuda/bin/nvcc"), "{error}");

        put("local/cuda-12.4/bin/nvcc", "12.4");
        put("local/cuda-12.10/bin/nvcc", "12.10");
        let found = Cuda::find(&host, &memory).await.unwrap();
        assert_eq!((found.version, found.root), ((12, 10), Some(at("local/cuda-12.10"))));
        let again = Cuda::find(&host, &memory).await.unwrap();
        assert_eq!(again.version, (12, 10));
        assert_eq!(fs::read_to_string(at("asked")).unwrap().lines().count(), 1, "it was asked again");

        put("bin/nvcc", "11.8");
        host.path.insert(0, at("bin"));
        let found = Cuda::find(&host, &memory).await.unwrap();
        assert_eq!((found.version, found.root), ((11, 8), None));
        put("bin/nvcc", "12.125");
        assert_eq!(Cuda::find(&host, &memory).await.unwrap().version, (12, 125), "it has changed");

        put("mine/bin/nvcc", "13.0");
        host.environment.insert("CUDA_HOME".to_owned(), at("mine").display().to_string());
        let found = Cuda::find(&host, &memory).await.unwrap();
        assert_eq!((found.version, found.root), ((13, 0), Some(at("mine"))));
    }
}
