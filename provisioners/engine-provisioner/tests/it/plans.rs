//! Plans and the choice of a provisioner.

use api_types::PoolFault;
use config_schema::Pool;
use engine_provisioner::provider_for;

use crate::support::{Place, pool, source_pool};

fn plan(place: &Place, pool: &Pool) -> String {
    let plan = place.provisioner(pool).plan();
    assert_eq!(plan.pool_id, "p");
    let steps = plan.steps.iter().map(|step| format!("{}: {}\n", step.kind, step.detail));
    steps.collect::<String>().replace(&place.at("").display().to_string(), "/")
}

/// LO-ENG-01, LO-ENG-02, ORCH-3201, ORCH-3205, OC-CONFIG-6020: every mode has a plan that can be read, that is the same each time, and for
/// which nothing is done.
#[test]
fn plans_can_be_read() {
    let place = Place::without_cuda();
    let sum = format!("sha256:{}", "0".repeat(64));
    for (pool, expected) in [
        (
            pool("vllm", "mode = \"external\"\n[provisioning.external]\nurl = \"http://127.0.0.1:1\""),
            "attach: vllm at http://127.0.0.1:1, which somebody else runs\n".to_owned(),
        ),
        (
            source_pool("https://example.org/llama.cpp", "b6891", "submodules = true\n[provisioning.source.build]\ngenerator = \"Ninja\""),
            "check: git, cmake, a compiler and CUDA for the GPUs 0\n\
             clone: https://example.org/llama.cpp at b6891, with its submodules\n\
             configure: Ninja: -DCMAKE_BUILD_TYPE=Release -DGGML_CUDA=ON -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_SERVER=ON \
             -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_UI=OFF -DLLAMA_CURL=OFF -DLLAMA_OPENSSL=OFF -DLLAMA_USE_PREBUILT_UI=OFF\n\
             build: llama-server below /cache/llamacpp\n\
             version: llama-server\n\
             register: in the catalog of engines\n"
                .to_owned(),
        ),
        (
            pool("llamacpp", &format!("mode = \"binary\"\nflags = [\"-ngl\", \"20\"]\n[provisioning.binary]\nurl = \"https://example.org/x.tar.gz\"\nchecksum = \"{sum}\"")),
            format!(
                "check: whether ready-made programs may be used\n\
                 download: https://example.org/x.tar.gz\n\
                 verify: {sum}\n\
                 unpack: below /cache/llamacpp\n\
                 version: llama-server with --n-gpu-layers 20\n\
                 register: in the catalog of engines\n"
            ),
        ),
        (
            pool("llamacpp", "mode = \"package\"\n[provisioning.package]\nname = \"llama.cpp\""),
            "check: whether llama-server is on the path\n\
             install: llama.cpp with pacman, on an Arch-like host, as root, where it is missing\n\
             version: llama-server\n\
             register: in the catalog of engines\n"
                .to_owned(),
        ),
        (
            pool("vllm", "mode = \"container\"\n[provisioning.container]\nimage = \"vllm/vllm-openai\"\ntag = \"v0.11.0\""),
            "check: podman, else docker, NVIDIA's toolkit for containers, and the GPUs 0\n\
             pull: docker.io/vllm/vllm-openai:v0.11.0, by its tag, which can change\n\
             register: in the catalog of engines\n"
                .to_owned(),
        ),
    ] {
        assert_eq!(plan(&place, &pool), expected);
        assert_eq!(plan(&place, &pool), expected);
    }
    assert!(!place.at("cache").exists(), "nothing was done");
}

/// LO-ENG-01, LO-ENG-15: what nobody here prepares, and flags that do not do, are refused before anything is planned, with a remedy.
#[test]
fn what_cannot_be_prepared_is_refused() {
    let place = Place::without_cuda();
    let mut openai = source_pool("https://example.org/x", "main", "");
    openai.engine = api_types::Engine::Openai;
    let mut vllm = openai.clone();
    vllm.engine = api_types::Engine::Vllm;
    let mut without_table = openai.clone();
    without_table.provisioning.source = None;
    let mut cpu = source_pool("https://example.org/x", "main", "");
    cpu.provisioning.flags = vec!["--n-gpu-layers".to_owned(), "0".to_owned()];
    let mut hidden = source_pool("https://example.org/x", "main", "");
    hidden.provisioning.env.insert("CUDA_VISIBLE_DEVICES".to_owned(), String::new());
    let no_cuda = source_pool(
        "https://example.org/x",
        "main",
        "[provisioning.source.build]\ncmake_flags = [\"-DGGML_CUDA=OFF\"]",
    );
    for pool in [openai, vllm, without_table, cpu, hidden, no_cuda] {
        let Err(error) = provider_for(&pool, &place.setup) else { panic!("{pool:?}") };
        assert_eq!(error.fault(), PoolFault::Unsupported, "{error}");
        assert!(error.fix().is_some(), "{error}");
    }
}
