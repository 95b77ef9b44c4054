use std::net::Ipv4Addr;

use config_schema::ProvisioningMode;
use proptest::prelude::*;

use super::*;
use crate::prepared::ImageRef;

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(ToOwned::to_owned).collect()
}

fn engine(engine: Engine, version: &str, args: &str) -> PreparedEngine {
    PreparedEngine {
        engine,
        engine_version: version.to_owned(),
        build_ref: None,
        engine_digest: None,
        provisioning_mode: ProvisioningMode::Source,
        artifact: EngineArtifact::Program("/engine".into()),
        args: normalized(engine, &words(args)).unwrap(),
        env: BTreeMap::new(),
        ports: Vec::new(),
        workdir: "/".into(),
        device_mask: "0".to_owned(),
        build_flags: Vec::new(),
        engine_catalog_id: None,
    }
}

fn in_container(mut engine: PreparedEngine) -> PreparedEngine {
    let digest = catalog_core::Digest::of(b"image");
    engine.artifact = EngineArtifact::Image(ImageRef { image: "x/y".to_owned(), tag: None, digest });
    engine
}

fn launch() -> Launch {
    Launch {
        model: "/models/m".to_owned(),
        served_name: "hf:org/m".to_owned(),
        listen: Listen::Tcp((Ipv4Addr::LOCALHOST, 9000).into()),
        grpc_port: None,
        metrics_port: None,
        ctx: NonZeroU32::new(4096),
        slots: NonZeroU32::MIN,
        gpus: NonZeroUsize::MIN,
        tensor_split: None,
        strict: false,
        slot_files: None,
    }
}

fn line_of(engine: &PreparedEngine, launch: &Launch) -> String {
    command_line(engine, launch).unwrap().join(" ")
}

/// LO-ENG-08, ORCH-3050, OC-TEST-7001: what llama-server gets: the model's path, host and port, the context of all slots, every
/// layer on the GPU; a strict pool has no continuous batching; an older server no flag that it does not know.
#[test]
fn llamacpp() {
    let llama = engine(Engine::Llamacpp, "b6891-1a2b3c4d+GGML_CUDA=ON", "--flash-attn on");
    assert_eq!(
        line_of(&llama, &Launch { strict: true, ..launch() }),
        "--model /models/m --alias hf:org/m --host 127.0.0.1 --port 9000 --ctx-size 4096 --parallel 1 --n-gpu-layers 999 \
         --metrics --slots --no-webui --jinja --no-cont-batching --flash-attn on"
    );
    let two = Launch {
        slots: NonZeroU32::new(4).unwrap(),
        gpus: NonZeroUsize::new(2).unwrap(),
        tensor_split: Some(vec![2.0, 1.0]),
        ..launch()
    };
    let older = engine(Engine::Llamacpp, "b4000", "-ngl 20 -c 1024 --tensor-split 3,1");
    assert_eq!(
        line_of(&older, &two),
        "--model /models/m --alias hf:org/m --host 127.0.0.1 --port 9000 --parallel 4 --metrics --slots --n-gpu-layers 20 \
         --ctx-size 1024 --tensor-split 3,1"
    );
    assert!(line_of(&engine(Engine::Llamacpp, "x", ""), &two).contains("--ctx-size 16384 --parallel 4"));
    assert!(line_of(&engine(Engine::Llamacpp, "x", ""), &two).contains("--tensor-split 2,1"));
    assert!(!line_of(&engine(Engine::Llamacpp, "x", ""), &Launch { ctx: None, ..launch() }).contains("ctx"));
}

/// LO-SWP-07: an engine whose slots are saved is told where, if it knows how; a pool does not choose that.
#[test]
fn slots_are_saved_where_we_say() {
    let launch = Launch { slot_files: Some("/data/run/kv/gpu0".to_owned()), ..launch() };
    for (version, told) in [("b6891", true), ("master-1a2b3c4", true), ("b2700", true), ("b2500", false)] {
        let line = line_of(&engine(Engine::Llamacpp, version, ""), &launch);
        assert_eq!(line.contains("--slot-save-path /data/run/kv/gpu0"), told, "{version}: {line}");
    }
    let refused = normalized(Engine::Llamacpp, &words("--slot-save-path /tmp")).unwrap_err();
    assert!(matches!(refused, LaunchError::Owned { .. }), "{refused}");
}

/// What vLLM, TGI and Triton get, as programs and as containers.
#[test]
fn the_others() {
    let vllm = engine(Engine::Vllm, "0.11.0", "--max-model-len=16384");
    assert_eq!(
        line_of(&vllm, &launch()),
        "serve /models/m --served-model-name hf:org/m --host 127.0.0.1 --port 9000 --tensor-parallel-size 1 --max-num-seqs 1 \
         --seed 0 --max-model-len 16384"
    );
    let strict = Launch { strict: true, ..launch() };
    let image = in_container(vllm);
    assert!(line_of(&image, &strict).starts_with("--model /models/m --served-model-name"));
    assert!(line_of(&image, &strict).contains("--seed 0 --no-enable-prefix-caching"));
    let newer = in_container(engine(Engine::Vllm, "v0.13.1", ""));
    assert!(line_of(&newer, &launch()).starts_with("/models/m --served-model-name"));
    assert_eq!(
        line_of(&engine(Engine::Tgi, "3.3.6", "--cuda-memory-fraction 0.9"), &launch()),
        "--model-id /models/m --hostname 127.0.0.1 --port 9000 --num-shard 1 --max-concurrent-requests 1 --max-total-tokens 4096 \
         --cuda-memory-fraction 0.9"
    );
    let triton = in_container(engine(Engine::Triton, "24.08-py3", ""));
    let grpc = Launch { grpc_port: Some(9001), ..launch() };
    assert_eq!(
        line_of(&triton, &grpc),
        "tritonserver --model-repository /models/m --http-address 127.0.0.1 --http-port 9000 --grpc-address 127.0.0.1 \
         --grpc-port 9001 --metrics-address 127.0.0.1 --allow-metrics false"
    );
    assert_eq!(
        line_of(&engine(Engine::Mock, "0.1.0", "--load-ms 50"), &launch()),
        "--listen 127.0.0.1:9000 --model hf:org/m --slots 1 --ctx 4096 --load-ms 50"
    );
}

/// LO-ENG-07, ORCH-3269: other names of a flag become its own, the last of several wins, and what is not known stays as it is.
#[test]
fn flags_become_normal() {
    for (given, normal) in [
        ("--ngl 20", "--n-gpu-layers 20"),
        ("-ngl 20", "--n-gpu-layers 20"),
        ("--gpu-layers 20", "--n-gpu-layers 20"),
        ("--gpu_layers=20", "--n-gpu-layers 20"),
        ("--n-gpu-layers -1", "--n-gpu-layers 999"),
        ("-ngl all", "--n-gpu-layers 999"),
        ("-ngl 20 --flash-attn on --ngl 30", "--flash-attn on --n-gpu-layers 30"),
        ("-c 1 -nocb", "--ctx-size 1 --no-cont-batching"),
        ("--lora a.gguf --lora b.gguf --temp -1", "--lora a.gguf --lora b.gguf --temp -1"),
        ("--n-cpu-moe 4 -ot blk\\.1=CPU", "--n-cpu-moe 4 --override-tensor blk\\.1=CPU"),
        ("--device CUDA0,CUDA1", "--device CUDA0,CUDA1"),
    ] {
        assert_eq!(normalized(Engine::Llamacpp, &words(given)).unwrap(), words(normal), "{given}");
    }
}

/// LO-ENG-07, ORCH-3271, ORCH-1102: no flag and no variable moves the work to the CPU.
#[test]
fn nothing_leads_to_the_cpu() {
    for flags in [
        "--ngl 0",
        "-ngl=0 -ngl 0",
        "--n-gpu-layers=0",
        "--n_gpu_layers 0",
        "-ngl auto",
        "--device none",
        "-dev CPU",
        "--device CUDA0,none",
        "--cpu-moe",
        "-cmoe",
        "-ot .*=CPU",
        "--override-tensor blk=CUDA0,.+=CPU",
    ] {
        let result = normalized(Engine::Llamacpp, &words(flags));
        let refused = matches!(result, Err(LaunchError::Cpu { .. }));
        // Of `-ngl=0` llama.cpp knows nothing and says so.
        assert!(refused, "{flags}: {result:?}");
    }
    assert!(matches!(normalized(Engine::Vllm, &words("--device cpu")), Err(LaunchError::Cpu { .. })));
    for (engine, name) in [
        (Engine::Llamacpp, "CUDA_VISIBLE_DEVICES"),
        (Engine::Llamacpp, "LLAMA_ARG_N_GPU_LAYERS"),
        (Engine::Llamacpp, "GGML_CUDA_ENABLE_UNIFIED_MEMORY"),
        (Engine::Vllm, "VLLM_TARGET_DEVICE"),
        (Engine::Triton, "NVIDIA_VISIBLE_DEVICES"),
    ] {
        let environment = BTreeMap::from([(name.to_owned(), String::new())]);
        assert!(check_environment(engine, &environment).is_err(), "{name}");
    }
    let environment = BTreeMap::from([("OMP_NUM_THREADS".to_owned(), "4".to_owned())]);
    assert_eq!(check_environment(Engine::Llamacpp, &environment), Ok(()));
}

/// LO-ENG-15: what is ours to set is refused with advice, and without its value, which may be a secret.
#[test]
fn what_is_ours_is_refused() {
    for (engine, flags) in [
        (Engine::Llamacpp, "-m hunter2"),
        (Engine::Llamacpp, "--host hunter2"),
        (Engine::Llamacpp, "--port hunter2"),
        (Engine::Llamacpp, "--api-key hunter2"),
        (Engine::Llamacpp, "--api-key=hunter2"),
        (Engine::Llamacpp, "--ssl-key-file hunter2"),
        (Engine::Llamacpp, "-np 4"),
        (Engine::Llamacpp, "-hf hunter2"),
        (Engine::Vllm, "--model hunter2"),
        (Engine::Vllm, "--max_num_seqs 4"),
        (Engine::Vllm, "--api-key hunter2"),
        (Engine::Tgi, "-p 80"),
        (Engine::Triton, "--http-port=80"),
        (Engine::Mock, "--listen 0.0.0.0:80"),
    ] {
        let error = normalized(engine, &words(flags)).unwrap_err();
        assert!(matches!(error, LaunchError::Owned { .. }), "{flags}: {error:?}");
        assert!(!error.to_string().contains("hunter2") && !error.advice().is_empty(), "{error}");
    }
    for flags in ["--n-gpu-layers", "--n-gpu-layers many", "--no-webui=1"] {
        let error = normalized(Engine::Llamacpp, &words(flags)).unwrap_err();
        assert!(matches!(error, LaunchError::Value { .. }), "{flags}: {error:?}");
    }
    assert!(matches!(normalized(Engine::Openai, &[]), Err(LaunchError::NotStarted { .. })));
}

/// ORCH-3050: a strict pool refuses what would make equal requests differ.
#[test]
fn strict_pools_refuse_batching() {
    let strict = Launch { strict: true, ..launch() };
    for (kind, flags) in [(Engine::Llamacpp, "-cb"), (Engine::Vllm, "--enable-prefix-caching")] {
        let engine = engine(kind, "", flags);
        assert!(command_line(&engine, &launch()).is_ok(), "{flags}");
        assert!(matches!(command_line(&engine, &strict), Err(LaunchError::Owned { .. })), "{flags}");
    }
}

fn some_flags() -> impl Strategy<Value = Vec<String>> {
    let number = || (-3i64..200).prop_map(|number| number.to_string());
    let one = prop_oneof![
        (prop_oneof!["-ngl", "--ngl", "--gpu-layers", "--n-gpu-layers", "--n_gpu_layers"], number(), any::<bool>())
            .prop_map(|(name, layers, joined)| match joined && name.starts_with("--") {
                true => vec![format!("{name}={layers}")],
                false => vec![name, layers],
            }),
        (prop_oneof!["-c", "--ctx-size", "--temp", "--n-cpu-moe", "-ot", "-dev"], "[a-zA-Z0-9.*=]{1,6}")
            .prop_map(|(name, value)| vec![name, value]),
        prop_oneof!["-nocb", "--flash-attn", "--no-mmap", "--cpu-moe", "-cmoe"].prop_map(|name| vec![name]),
        "[a-z-]{0,4}".prop_map(|word| vec![word]),
    ];
    prop::collection::vec(one, 0..6).prop_map(|all| all.concat())
}

proptest! {
    /// LO-ENG-07, ORCH-3271: flags in their normal form stay as they are, keep the model on the GPU, and name no flag of the table
    /// twice; so does the whole command line.
    #[test]
    fn normal_flags_stay_normal_and_on_the_gpu(flags in some_flags()) {
        let Ok(normal) = normalized(Engine::Llamacpp, &flags) else { return Ok(()) };
        prop_assert_eq!(normalized(Engine::Llamacpp, &normal), Ok(normal.clone()));
        let engine = engine(Engine::Llamacpp, "b6891", &normal.join(" "));
        let line = command_line(&engine, &launch()).unwrap();
        let layers: Vec<_> = line.windows(2).filter(|pair| pair[0] == "--n-gpu-layers").collect();
        prop_assert_eq!(layers.len(), 1, "{:?}", line);
        prop_assert!(layers[0][1].parse::<u32>().is_ok_and(|layers| layers > 0), "{:?}", line);
        for other in ["-ngl", "--ngl", "--gpu-layers", "--cpu-moe", "-cmoe", "-c", "-dev", "-ot"] {
            prop_assert!(!line.iter().any(|word| word == other), "{:?}", line);
        }
        for flag in llamacpp::TABLE.flags {
            prop_assert!(line.iter().filter(|word| *word == flag.names[0]).count() <= 1, "{:?}", line);
        }
    }
}

/// LO-ENG-08: a server that can listen on a Unix socket is told the socket and no port; an older one, and a container, cannot.
#[test]
fn a_socket_takes_the_place_of_the_port() {
    let new = engine(Engine::Llamacpp, "b6891", "");
    assert!(serves_sockets(&new));
    assert!(!serves_sockets(&engine(Engine::Llamacpp, "b4304", "")));
    assert!(!serves_sockets(&in_container(new.clone())));
    assert!(!serves_sockets(&engine(Engine::Vllm, "v0.11.0", "")));
    let line = line_of(&new, &Launch { listen: Listen::Socket("/run/gpu0.sock".into()), ..launch() });
    assert!(line.contains("--host /run/gpu0.sock") && !line.contains("--port"), "{line}");
}
