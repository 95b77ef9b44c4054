//! Mode `source`: fetched with git or as an archive, built with CMake.

use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};

use api_types::{DoctorOutcome, PoolFault};
use config_schema::Outbound;
use engine_provisioner::{EngineError, EngineProgress, StepKind};
use tokio_util::sync::CancellationToken;

use crate::support::{Kept, Place, denied, digest, file_url, gpus, source_pool};

const ALL: &[StepKind] =
    &[StepKind::Check, StepKind::Clone, StepKind::Configure, StepKind::Build, StepKind::Version, StepKind::Register];

/// LO-ENG-03, LO-ENG-10, LO-ENG-11, ORCH-3432, ORCH-3441, ORCH-3805: a repository becomes an engine with the identity of its commit and
/// flags, and an entry in the catalog. The second time nothing is fetched, configured or compiled, even when the repository is
/// gone and no network may be used.
#[tokio::test]
async fn a_repository_is_built_once() {
    let mut place = Place::new();
    let repo = place.project("");
    let commit = place.commit(&repo, "one");
    place.git(&repo, &["tag", "b6891"]);
    let pool = source_pool(
        &file_url(&repo),
        "b6891",
        "[provisioning.source.build]\ncmake_flags = [\"-DLLAMA_CUBLAS_F16=ON\"]",
    );
    let (engine, kept) = place.ensure(&pool).await;
    let engine = engine.expect("it builds");
    assert_eq!(kept.steps(), ALL);
    assert_eq!(kept.shares().last(), Some(&1.0), "{:?}", kept.shares());
    let short = &commit[..8];
    assert_eq!(
        engine.engine_version,
        format!("b6891-{short}+CMAKE_CUDA_ARCHITECTURES=86,GGML_CUDA=ON,GGML_CUDA_F16=ON")
    );
    assert_eq!(engine.build_ref.as_deref(), Some("b6891"));
    let program = engine.binary_path().expect("a program").to_owned();
    assert_eq!(engine.engine_digest, Some(digest(&program)));
    assert!(engine.build_flags.contains(&"-DGGML_CUDA=ON".to_owned()), "{:?}", engine.build_flags);
    assert_eq!((engine.device_mask.as_str(), engine.env["CUDA_VISIBLE_DEVICES"].as_str()), ("0", "GPU-0"));
    let entry = place.entries().pop().expect("an entry");
    assert_eq!(Some(&entry.id), engine.engine_catalog_id.as_ref());
    assert!(entry.id.starts_with(&format!("llamacpp-b6891-{short}-")), "{}", entry.id);
    assert_eq!(entry.artifacts[0], program.display().to_string());

    fs::remove_dir_all(&repo).expect("removed");
    place.setup.web = Place::with_outbound(&denied()).setup.web;
    let log = program.parent().and_then(Path::parent).expect("its folder").join("build.log");
    let written = fs::metadata(&log).and_then(|log| log.modified()).expect("a log");
    let (again, kept) = place.ensure(&pool).await;
    assert_eq!(again.expect("it is here"), engine);
    assert_eq!(kept.steps(), [StepKind::Check]);
    assert_eq!(fs::metadata(&log).and_then(|log| log.modified()).expect("a log"), written);

    // Another GPU is another build of the same source; a program that was changed is built anew.
    let (other, kept) = place.ensure_for(&pool, &gpus(&[(8, 9)])).await;
    assert_ne!(other.expect("it builds").engine_catalog_id, engine.engine_catalog_id);
    assert!(!kept.steps().contains(&StepKind::Clone));
    fs::write(&program, "#!/bin/sh\nexit 1\n").expect("written");
    let (again, kept) = place.ensure(&pool).await;
    assert!(kept.steps().contains(&StepKind::Build));
    again.expect("it builds");
    assert_eq!(place.entries().len(), 2);
}

/// LO-ENG-03: a tag, a branch, a commit and the beginning of one name what is built; submodules come when they are asked for.
#[tokio::test]
async fn references_and_submodules() {
    let place = Place::new();
    place.write("module/part.txt", "a part");
    place.commit(&place.at("module"), "module");
    let repo = place
        .project("if (NOT EXISTS ${CMAKE_SOURCE_DIR}/sub/part.txt)\n  message(FATAL_ERROR \"no module\")\nendif()");
    place.commit(&repo, "one");
    place.git(&repo, &["submodule", "--quiet", "add", &file_url(&place.at("module")), "sub"]);
    let commit = place.commit(&repo, "two");
    place.git(&repo, &["tag", "--annotate", "b2", "--message", "two"]);
    let mut versions = Vec::new();
    for reference in ["b2", "main", &commit, &commit[..10]] {
        let pool = source_pool(&file_url(&repo), reference, "submodules = true");
        let (engine, _) = place.ensure(&pool).await;
        let engine = engine.unwrap_or_else(|error| panic!("{reference}: {error}"));
        versions.push(engine.engine_version.split('+').next().expect("a version").to_owned());
    }
    let short = &commit[..8];
    assert_eq!(versions, [format!("b2-{short}"), format!("main-{short}"), short.to_owned(), short.to_owned()]);
    assert_eq!(place.cached("llamacpp").len(), 1, "one source has several names");
    let (error, _) = place.ensure(&source_pool(&file_url(&repo), "b3", "")).await;
    let error = error.expect_err("there is no b3");
    assert_eq!(
        (error.fault(), error.fix().as_deref()),
        (PoolFault::FetchFailed, Some("correct provisioning.source.ref")),
        "{error}"
    );
}

/// LO-ENG-03, LO-ENG-12: an archive is verified, unpacked and built, wherever in it the project lies.
#[tokio::test]
async fn an_archive_is_built() {
    let place = Place::new();
    let repo = place.project("");
    let archive = place.at("llama.cpp-6891.tar.gz");
    let out = std::fs::File::create(&archive).expect("created");
    let mut tar = tar::Builder::new(flate2::write::GzEncoder::new(out, flate2::Compression::fast()));
    tar.append_dir_all("package-1/llama.cpp", &repo).expect("packed");
    tar.into_inner().and_then(flate2::write::GzEncoder::finish).expect("packed");
    let sum = digest(&archive);
    let with_sum = |sum: &str| source_pool(&file_url(&archive), "b6891", &format!("checksum = \"{sum}\""));
    let (error, _) = place.ensure(&with_sum(&format!("sha256:{}", "0".repeat(64)))).await;
    let error = error.expect_err("it is another file");
    assert!(error.fault() == PoolFault::FetchFailed && error.to_string().contains("digest"), "{error}");
    assert!(place.cached("llamacpp").is_empty());
    for pool in [with_sum(sum.as_str()), source_pool(&file_url(&archive), "b6891", "")] {
        let (engine, kept) = place.ensure(&pool).await;
        assert_eq!(
            engine.expect("it builds").engine_version,
            format!("b6891-{}+CMAKE_CUDA_ARCHITECTURES=86,GGML_CUDA=ON", &sum.hex()[..8])
        );
        assert_eq!(
            kept.steps().contains(&StepKind::Download),
            pool.provisioning.source.as_ref().is_some_and(|it| it.checksum.is_some())
        );
        let (_, kept) = place.ensure(&pool).await;
        assert_eq!(kept.steps(), [StepKind::Check]);
    }
    assert!(archive.exists(), "the operator's file stays");
}

/// ORCH-3202, ORCH-3203, ORCH-3433, ORCH-3437, LO-ENG-06, LO-ENG-15: without CUDA it fails before anything is fetched, and says which
/// tools are missing and with which command they come. A doctor says the same.
#[tokio::test]
async fn without_cuda_nothing_is_begun() {
    let mut place = Place::without_cuda();
    let fetched = place.at("fetched");
    place.program("bin/git", &format!("touch {}", fetched.display()));
    let real = std::mem::take(&mut place.setup.host.path);
    let distro = "ID=ubuntu\nPRETTY_NAME=\"Ubuntu 24.04\"";
    place.setup.host.distro = engine_provisioner::Distro::from_os_release(distro);
    place.setup.host.path = vec![place.at("bin")];
    let pool = source_pool("https://github.com/ggml-org/llama.cpp", "b6891", "");
    let (error, kept) = place.ensure(&pool).await;
    let error = error.expect_err("there is nothing");
    assert_eq!(error.fault(), PoolFault::NoCuda);
    let (text, fix) = (error.to_string(), error.fix().expect("a fix"));
    assert!(text.contains("nvcc") && text.contains("cmake") && text.contains("opt/cuda/bin/nvcc"), "{text}");
    assert!(fix.starts_with("sudo apt install nvidia-cuda-toolkit cmake make g++"), "{fix}");
    assert_eq!(kept.steps(), [StepKind::Check]);
    assert!(!fetched.exists() && place.cached("llamacpp").is_empty());

    let checks = place.provisioner(&pool).preflight(None).await;
    let failed: Vec<_> =
        checks.iter().filter(|check| check.outcome == DoctorOutcome::Fail).map(|check| check.name.as_str()).collect();
    assert_eq!(failed, ["cuda", "cmake", "make", "c++"]);
    assert!(checks.iter().all(|check| check.outcome != DoctorOutcome::Fail || check.fix.is_some()), "{checks:?}");

    // A toolkit that cannot build for the pool's GPUs is no better.
    place.setup.host.path.extend(real);
    place.program("bin/nvcc", "echo 'Cuda compilation tools, release 11.5, V11.5.119'");
    let (error, kept) = place.ensure_for(&pool, &gpus(&[(8, 9)])).await;
    assert_eq!(error.expect_err("it is too old").fault(), PoolFault::NoCuda);
    assert_eq!(kept.steps(), [StepKind::Check]);
    assert!(!fetched.exists());
}

/// ORCH-3206: where the policy does not let a repository be fetched from, git is not even started.
#[tokio::test]
async fn the_policy_is_asked_before_git() {
    let inside = Outbound::default();
    for (outbound, repo) in [
        (denied(), "https://github.com/ggml-org/llama.cpp"),
        (denied(), "git@github.com:ggml-org/llama.cpp"),
        (denied(), "ssh://git@github.com/ggml-org/llama.cpp"),
        (inside, "http://192.0.2.1/llama.cpp"),
    ] {
        let place = Place::with_outbound(&outbound);
        place.program("bin/nvcc", "echo 'Cuda compilation tools, release 12.4, V12.4.131'");
        let fetched = place.at("fetched");
        place.program("bin/git", &format!("touch {}", fetched.display()));
        let (error, _) = place.ensure(&source_pool(repo, "b6891", "")).await;
        let error = error.expect_err("it is not allowed");
        assert_eq!(error.fault(), PoolFault::NotAllowed, "{repo}: {error}");
        assert!(!fetched.exists(), "{repo}");
    }
}

/// What a project's build leaves when it fails.
async fn failure(place: &Place, more: &str) -> EngineError {
    let repo = place.project(more);
    place.commit(&repo, "one");
    let (error, _) = place.ensure(&source_pool(&file_url(&repo), "main", "")).await;
    assert!(place.entries().is_empty());
    error.expect_err("it fails")
}

/// ORCH-3433, LO-ENG-15: a build that fails says so in the last lines that tell of an error and where the whole log is; a full disk and a
/// project that turns CUDA off are told apart from other failures.
#[tokio::test]
async fn failures_say_what_failed() {
    let place = Place::new();
    let error = failure(&place, "message(FATAL_ERROR \"the moon is wrong\")").await;
    let EngineError::Build { stage, log, .. } = &error else { panic!("{error}") };
    assert_eq!((*stage, error.fault()), ("configuring", PoolFault::BuildFailed));
    assert!(fs::read_to_string(log).expect("a log").contains("the moon is wrong"));

    let place = Place::new();
    let broken = "add_executable(broken broken.cpp)\nadd_dependencies(llama-server broken)";
    place.write("repo/broken.cpp", "int main() { return moon; }\n");
    let error = failure(&place, broken).await;
    let EngineError::Build { stage, detail, .. } = &error else { panic!("{error}") };
    assert!(*stage == "building" && detail.contains("moon"), "{error}");

    let full =
        "add_custom_target(big COMMAND dd if=/dev/zero of=/dev/full bs=1 count=1)\nadd_dependencies(llama-server big)";
    let error = failure(&Place::new(), full).await;
    assert_eq!(error.fault(), PoolFault::DiskFull, "{error}");
    assert!(error.fix().is_some_and(|fix| fix.contains("make room")));

    let error = failure(&Place::new(), "set(GGML_CUDA OFF CACHE BOOL \"\" FORCE)").await;
    assert_eq!(error.fault(), PoolFault::NoCuda, "{error}");

    let mut place = Place::new();
    place.setup.build_bytes = u64::MAX;
    let error = failure(&place, "").await;
    assert!(matches!(error, EngineError::NoSpace { .. }) && error.fault() == PoolFault::DiskFull, "{error}");
}

/// A build that failed goes on where it stopped: what was compiled is not compiled again.
#[tokio::test]
async fn a_build_goes_on_where_it_stopped() {
    let place = Place::new();
    let flag = place.at("flag");
    let more = format!(
        "add_library(part STATIC part.cpp)\nadd_custom_target(needs COMMAND test -e {})\nadd_dependencies(needs part)\nadd_dependencies(llama-server needs)",
        flag.display()
    );
    place.write("repo/part.cpp", "int part() { return 1; }\n");
    let repo = place.project(&more);
    place.commit(&repo, "one");
    let make = "[provisioning.source.build]\ngenerator = \"Unix Makefiles\"";
    let pool = source_pool(&file_url(&repo), "main", make);
    let (error, kept) = place.ensure(&pool).await;
    error.expect_err("the flag is not there");
    assert!(kept.has_line("part.cpp.o"));
    fs::write(&flag, "").expect("written");
    let (engine, kept) = place.ensure(&pool).await;
    engine.expect("the flag is there");
    assert!(!kept.has_line("part.cpp.o") && kept.has_line("server.cpp.o"));
    assert!(!kept.steps().contains(&StepKind::Clone));
}

/// A cancel ends the whole build, down to the last process of it, and leaves a cache that the next try can use; two who want
/// the same build wait for one.
#[tokio::test]
async fn a_cancel_ends_the_whole_build() {
    let place = Place::new();
    let (pid, flag) = (place.at("pid"), place.at("flag"));
    let script = place.program(
        "slow.sh",
        &format!("test -e {0} && exit 0\necho $$ > {1}\necho it begins\nsleep 1000", flag.display(), pid.display()),
    );
    let repo = place.project(&format!(
        "add_custom_target(slow COMMAND {} USES_TERMINAL)\nadd_dependencies(llama-server slow)",
        script.display()
    ));
    place.commit(&repo, "one");
    let pool = source_pool(&file_url(&repo), "main", "");
    let cancel = CancellationToken::new();
    let stop = cancel.clone();
    let kept = Kept::acting(move |line| {
        if line.contains("it begins") {
            stop.cancel();
        }
    });
    let progress: Arc<dyn EngineProgress> = kept;
    let generator = pool.clone();
    let result = place.provisioner(&generator).ensure(&gpus(&[(8, 6)]), &progress, &cancel).await;
    assert!(matches!(result, Err(EngineError::Canceled)), "{result:?}");
    let pid = fs::read_to_string(&pid).expect("it ran");
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
    assert!(stat.is_empty() || stat.contains(") Z "), "{stat}");

    fs::write(&flag, "").expect("written");
    let compiled = Arc::new(Mutex::new(0));
    let count = |counted: &Arc<Mutex<i32>>| {
        let counted = Arc::clone(counted);
        let kept: Arc<dyn EngineProgress> = Kept::acting(move |line| {
            if line.contains("server.cpp.o") {
                *counted.lock().expect("nobody panicked") += 1;
            }
        });
        kept
    };
    let (first, second) = (place.provisioner(&pool), place.provisioner(&pool));
    let (one, two, cancel, gpus) = (count(&compiled), count(&compiled), CancellationToken::new(), gpus(&[(8, 6)]));
    let (a, b) = tokio::join!(first.ensure(&gpus, &one, &cancel), second.ensure(&gpus, &two, &cancel));
    assert_eq!(a.expect("it builds"), b.expect("it builds"));
    assert_eq!(*compiled.lock().expect("nobody panicked"), 1);
}

/// ORCH-3490: a failure is narrated in a sentence with the fault and what to do.
#[tokio::test]
async fn what_happens_is_narrated() {
    let place = Place::without_cuda();
    let capture = narration_core::capture();
    let (error, _) = place.ensure(&source_pool("https://example.org/x", "main", "")).await;
    error.expect_err("there is no CUDA");
    assert!(capture.actions("check")[0].human().starts_with("looks whether everything is there"));
    let failed = capture.actions("prepare_failed");
    let said = failed[0].human();
    assert!(said.starts_with("cannot prepare llamacpp for pool p") && said.contains("what to do: "), "{said}");
    assert_eq!((failed[0].get("error_kind"), failed[0].get("pool_id")), (Some("no_cuda"), Some("p")));
}
