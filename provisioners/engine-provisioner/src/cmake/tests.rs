use super::*;
use crate::gpus::Gpu;

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(ToOwned::to_owned).collect()
}

fn gpus(capabilities: &[(u32, u32)]) -> Gpus {
    let gpu = |capability: &(u32, u32)| Gpu { index: 0, uuid: "GPU-0".to_owned(), compute_capability: *capability };
    Gpus::new(capabilities.iter().map(gpu).collect(), None).unwrap()
}

fn cuda(root: Option<&str>) -> Cuda {
    Cuda { nvcc: PathBuf::from("/opt/cuda/bin/nvcc"), root: root.map(PathBuf::from), version: (12, 4) }
}

/// LO-ENG-03, LO-ENG-04, ORCH-3269: every build has CUDA and the server; former names of CUDA's definitions become the present ones.
#[test]
fn definitions_become_normal() {
    for (given, expected) in [
        ("", "-DGGML_CUDA=ON"),
        ("-DLLAMA_CUBLAS=ON", "-DGGML_CUDA=ON"),
        ("-DLLAMA_CUDA=1", "-DGGML_CUDA=ON"),
        ("-D LLAMA_CUBLAS:BOOL=on", "-DGGML_CUDA=ON"),
        ("-DLLAMA_CUDA_F16=ON", "-DGGML_CUDA_F16=ON"),
        ("-DLLAMA_CUBLAS_F16=ON", "-DGGML_CUDA_F16=ON"),
        ("-DGGML_CUDA_FA_ALL_QUANTS=ON", "-DGGML_CUDA_FA_ALL_QUANTS=ON"),
        ("-DCMAKE_BUILD_TYPE=Debug", "-DCMAKE_BUILD_TYPE=Debug"),
        ("--log-level=VERBOSE", "--log-level=VERBOSE"),
    ] {
        let args = Definitions::with(&words(given)).unwrap().args();
        for always in ["-DGGML_CUDA=ON", "-DLLAMA_BUILD_SERVER=ON", "-DLLAMA_CURL=OFF", expected] {
            assert!(args.iter().any(|arg| arg == always), "{given}: {args:?}");
        }
        assert!(!args.iter().any(|arg| arg.contains("CUBLAS") || arg.contains("LLAMA_CUDA")), "{args:?}");
    }
}

/// ORCH-1102: an engine is never built without CUDA, nor elsewhere than where it is looked for.
#[test]
fn what_does_not_do_is_refused() {
    for flags in [
        "-DGGML_CUDA=OFF",
        "-DLLAMA_CUBLAS=0",
        "-DLLAMA_CUDA=NO",
        "-DGGML_CUDA:BOOL=false",
        "-DLLAMA_BUILD_SERVER=OFF",
        "-B/tmp",
        "-S .",
        "-GNinja",
        "-DGGML_CUDA",
        "-C file.cmake",
    ] {
        let error = Definitions::with(&words(flags)).unwrap_err();
        assert!(error.fix().is_some(), "{flags}: {error}");
    }
}

/// LO-ENG-05, ORCH-3431: CMake is told the GPUs, the compiler, its root where that is not on the path, and the host's compiler
/// where it needs another one; what the pool says itself stays.
#[test]
fn cuda_is_told() {
    let mut definitions = Definitions::with(&[]).unwrap();
    definitions.for_cuda(
        &cuda(Some("/opt/cuda")),
        &gpus(&[(8, 9), (8, 6), (8, 9)]),
        Some(Path::new("/usr/bin/g++-13")),
    );
    let args = definitions.args();
    for expected in [
        "-DCMAKE_CUDA_ARCHITECTURES=86;89",
        "-DCMAKE_CUDA_COMPILER=/opt/cuda/bin/nvcc",
        "-DCUDAToolkit_ROOT=/opt/cuda",
        "-DCMAKE_CUDA_HOST_COMPILER=/usr/bin/g++-13",
    ] {
        assert!(args.iter().any(|arg| arg == expected), "{args:?}");
    }
    definitions.identify("b6891", Some("1a2b3c4d"));
    assert!(definitions.args().contains(&"-DLLAMA_BUILD_NUMBER=6891".to_owned()));
    assert_eq!(definitions.telling(), "CMAKE_CUDA_ARCHITECTURES=86;89,GGML_CUDA=ON");
    let mut own = Definitions::with(&words("-DCMAKE_CUDA_ARCHITECTURES=native -DGGML_CUDA_F16=ON")).unwrap();
    own.for_cuda(&cuda(None), &gpus(&[(8, 6)]), None);
    assert_eq!(own.telling(), "CMAKE_CUDA_ARCHITECTURES=native,GGML_CUDA=ON,GGML_CUDA_F16=ON");
    assert!(!own.args().iter().any(|arg| arg.contains("CUDAToolkit_ROOT")));
}

/// LO-ENG-04: a cache of CMake that says otherwise is removed, and one that says the same is kept.
#[test]
fn stale_caches_are_invalidated() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("CMakeCache.txt");
    let definitions = Definitions::with(&[]).unwrap();
    let good = "# comment\n//text\nCMAKE_HOME_DIRECTORY:INTERNAL=/src\nGGML_CUDA:BOOL=ON\nOTHER:STRING=x\n";
    for (cache, stays) in [
        (good.to_owned(), true),
        (good.replace("GGML_CUDA:BOOL=ON", "GGML_CUDA:BOOL=OFF"), false),
        (good.replace("/src", "/elsewhere"), false),
        (format!("{good}LLAMA_CUBLAS:BOOL=ON\n"), false),
    ] {
        fs::write(&place, &cache).unwrap();
        fs::create_dir_all(folder.path().join("CMakeFiles")).unwrap();
        definitions.invalidate(Path::new("/src"), folder.path()).unwrap();
        assert_eq!(place.exists(), stays, "{cache}");
        assert_eq!(folder.path().join("CMakeFiles").exists(), stays, "{cache}");
    }
}

/// ORCH-3433, ORCH-3437, LO-ENG-15: what is known of builds that fail: the kind, the cause and a remedy.
#[test]
fn failures_are_told_apart() {
    for (line, fault) in [
        ("cc1plus: fatal error: error writing to /tmp/x.s: No space left on device", PoolFault::DiskFull),
        ("#error -- unsupported GNU version! gcc versions later than 13 are not supported!", PoolFault::NoCuda),
        ("nvcc fatal   : Unsupported gpu architecture 'compute_120'", PoolFault::NoCuda),
        ("CMake Error at ggml/src/ggml-cuda/CMakeLists.txt:258 (message): CUDA Toolkit not found", PoolFault::NoCuda),
        ("g++: fatal error: Killed signal terminated program cc1plus", PoolFault::HostMemoryExhausted),
        ("CMake 3.28 or higher is required.  You are running version 3.25.1", PoolFault::MissingTool),
        ("ninja: error: unknown target 'llama-server'", PoolFault::Unsupported),
    ] {
        let lines = vec!["[1/2] x".to_owned(), line.to_owned(), "ninja: build stopped".to_owned()];
        let found = diagnose(&lines).unwrap_or_else(|| panic!("{line}"));
        assert_eq!(found.fault, fault, "{line}");
        assert!(!found.fix.is_empty());
    }
    assert_eq!(diagnose(&["main.cpp:1:1: error: expected ';'".to_owned()]), None);
    let lines =
        ["ok", "a.cpp:1: warning: no error", "a.cpp:2:1: error: x", "1 error generated", ""].map(ToOwned::to_owned);
    assert_eq!(last_errors(&lines), "a.cpp:2:1: error: x | 1 error generated");
    assert_eq!(last_errors(&["one".to_owned(), "two".to_owned()]), "one | two");
    let cmake = [
        "fatal: not a git repository",
        "CMake Error at CMakeLists.txt:267 (message):",
        "  CUDA Toolkit not found",
        "",
        "-- Configuring incomplete, errors occurred!",
    ];
    assert_eq!(
        last_errors(&cmake.map(ToOwned::to_owned)),
        "CMake Error at CMakeLists.txt:267 (message): | CUDA Toolkit not found"
    );
}

#[test]
fn progress_is_read_from_make_and_ninja() {
    for (line, expected) in [
        ("[ 42%] Building CXX object", Some(0.42)),
        ("[100%] Built target llama-server", Some(1.0)),
        ("[123/456] Linking", Some(123.0 / 456.0)),
        ("[0/0] x", None),
        ("-- Configuring done", None),
        ("[warning] x", None),
    ] {
        assert_eq!(share(line), expected, "{line}");
    }
}
