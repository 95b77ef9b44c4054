//! What works on this machine without a server: `doctor`, and `up` and `down` with the real daemon, a simulated engine and
//! simulated GPUs.

mod host;

use serde_json::Value;

use host::Host;

/// LO-ENG-15, ORCH-1102: without a GPU the doctor names what is missing, with the command that mends it, and nothing is started.
#[tokio::test]
async fn a_machine_without_a_gpu_is_told_what_it_lacks() {
    let host = Host::new("");
    let none = host.path("no-such-library.so");
    let env = [("LLAMA_ORCH_NVML", none.as_str())];
    let ended = host.run_with(&["doctor"], &env).await;
    assert_eq!((ended.code, ended.err.as_str()), (10, ""));
    for part in [
        "✗ driver",
        "pool gpu0: llamacpp by binary",
        "✗ devices",
        "[no_driver]",
        "fix: ",
        "install ",
        "1 of 1 pool cannot start",
    ] {
        assert!(ended.out.contains(part), "{part}\n{}", ended.out);
    }
    let report: Value = serde_json::from_str(&host.run_with(&["doctor", "--json"], &env).await.out).expect("JSON");
    let driver = report["checks"].as_array().and_then(|all| all.iter().find(|check| check["name"] == "driver"));
    assert_eq!((&report["ok"], driver.map(|check| &check["fault"])), (&false.into(), Some(&"no_driver".into())));

    let up = host.run_with(&["up"], &env).await;
    assert_eq!((up.code, up.out.as_str()), (10, ""));
    assert!(up.err.contains("no NVIDIA GPU can be used") && up.err.contains("nothing was started"), "{}", up.err);
    assert!(!host.exists("data"), "nothing is written");
}

/// LO-ENG-15: on a machine that has everything, everything passes; a model that is not there and an engine that does not answer are
/// found before any start.
#[tokio::test]
async fn each_trouble_is_told_with_the_pool_that_it_keeps_down() {
    let external = |id: &str, engine: &str| {
        format!(
            "[[pools]]\nid = \"{id}\"\nengine = \"{engine}\"\nmodel = \"m\"\n[pools.provisioning]\nmode = \"external\"\n\
             [pools.provisioning.external]\nurl = \"http://127.0.0.1:1\"\n"
        )
    };
    let good = Host::new("").run(&["doctor"]).await;
    assert_eq!((good.code, good.out.contains('✗')), (0, false), "{}", good.out);
    assert!(
        good.out.contains("✓ gpu") && good.out.contains("RTX") && good.out.contains("nothing is in the way"),
        "{}",
        good.out
    );

    let host = Host::new(&(external("far", "llamacpp") + &external("foreign", "vllm")));
    std::fs::remove_file(host.path("model.gguf")).expect("it was there");
    let ended = host.run(&["doctor"]).await;
    assert_eq!(ended.code, 10);
    for part in [
        "model.gguf does not exist",
        "[model_unavailable]",
        "nothing answers at http://127.0.0.1:1",
        "no adapter for vllm",
        "3 of 3 pools cannot start",
    ] {
        assert!(ended.out.contains(part), "{part}\n{}", ended.out);
    }
}

/// Without a configuration the machine is looked at all the same, and a first one is shown; `up` says how to have it written.
#[tokio::test]
async fn without_a_configuration_a_first_one_is_shown() {
    let host = Host::new("");
    std::fs::remove_file(host.path("llama-orch.toml")).expect("it was there");
    let ended = host.run(&["doctor"]).await;
    assert!(
        ended.code == 0 && ended.out.contains("[[pools]]") && ended.out.contains("no configuration file"),
        "{ended:?}"
    );
    let up = host.run(&["up"]).await;
    assert!(up.code == 2 && up.err.contains("--model"), "{up:?}");
    // What is written can be read, and what it needs is looked for before anything is started.
    let model = format!("file:{}", host.path("none.gguf"));
    let up = host.run(&["up", "--model", &model]).await;
    assert_eq!(up.code, 10, "{up:?}");
    assert!(up.err.contains("wrote llama-orch.toml") && up.err.contains("none.gguf does not exist"), "{}", up.err);
    let written = std::fs::read_to_string(host.path("llama-orch.toml")).expect("it was written");
    assert!(written.contains(&model) && written.contains("RTX"), "{written}");
}

/// The acceptance of `up`: from nothing to a first answer with visible progress, a second time without redoing work, and back to
/// nothing. Between them what operators do with pools, each with its outcome and its code (ORCH-3505, ORCH-3038.1).
#[tokio::test]
async fn from_nothing_to_a_first_answer_and_back() {
    let host = Host::new("");
    let up = host.run(&["up", "--max-tokens", "5"]).await;
    if !Host::has_daemon() {
        assert!(up.code == 2 && up.err.contains("orchestratord is not to be found"), "{up:?}");
        return;
    }
    assert_eq!(up.code, 0, "{}", up.err);
    assert!(!up.out.trim().is_empty(), "it answers");
    for part in ["checks passed", "started orchestratord", "gpu0: ready", "5 tokens in", "llama-orch down"] {
        assert!(up.err.contains(part), "{part}\n{}", up.err);
    }
    let host = host.with_server();
    let first = host.pool().await;
    let again = host.run(&["up", "--max-tokens", "5"]).await;
    assert_eq!(again.code, 0, "{}", again.err);
    assert!(again.err.contains("runs already") && !again.err.contains("preparing"), "{}", again.err);
    assert_eq!(host.pool().await["health"]["pid"], first["health"]["pid"], "the engine is the same");

    let devices = host.run(&["devices"]).await.out;
    assert!(devices.contains("RTX") && devices.contains("gpu0"), "{devices}");
    let engines = host.run(&["engines", "list"]).await.out;
    assert!(engines.contains("llamacpp") && engines.contains("gpu0"), "{engines}");
    assert!(host.run(&["engines", "plan", "gpu0"]).await.out.contains("download"));
    let log = host.run(&["logs", "gpu0", "-n", "1"]).await;
    assert_eq!((log.code, log.out.lines().count()), (0, 1), "{log:?}");

    let other = format!("file:{}", host.path("other.gguf"));
    let broken = format!("file:{}", host.path("broken.gguf"));
    for (command, code, says) in [
        (&["drain", "gpu0"][..], 0, "gpu0 is drained"),
        (&["drain", "gpu0", "--deadline", "0"], 0, "gpu0 is drained"),
        (&["start", "gpu0"], 0, "gpu0 is ready"),
        (&["reload", "gpu0", &other], 0, "other.gguf"),
        (&["reload", "gpu0", &broken], 9, "broken.gguf could not be loaded"),
        (&["stop", "gpu0"], 0, "gpu0 is stopped"),
        (&["drain", "gpu0"], 4, "CONFLICT"),
    ] {
        let ended = host.run(&[&["pools"], command].concat()).await;
        assert_eq!(ended.code, code, "{command:?} {ended:?}");
        assert!(ended.out.contains(says) || ended.err.contains(says), "{command:?} {ended:?}");
    }
    // What was stopped is up again.
    let third = host.run(&["up", "--max-tokens", "5"]).await;
    assert_eq!(third.code, 0, "{}", third.err);

    let down = host.run(&["down"]).await;
    assert!(down.code == 0 && down.out.contains("has ended"), "{down:?}");
    let down = host.run(&["down"]).await;
    assert!(down.code == 0 && down.out.contains("nothing runs"), "{down:?}");
    assert!(host.engines().is_empty(), "no engine is left: {:?}", host.engines());
}

/// A pool that fails ends `up` with why and what to do, and a daemon that serves nothing is not left behind.
#[tokio::test]
async fn a_pool_that_fails_ends_up() {
    if !Host::has_daemon() {
        return;
    }
    let host = Host::new("");
    let host = host.with_faults(r#"{"faults": [{"fault": {"in_load": {"stderr": "error while loading shared libraries: libcudart.so.12", "end": {"exit": 127}}}}]}"#);
    let up = host.run(&["up"]).await;
    assert_eq!((up.code, up.out.as_str()), (8, ""), "{}", up.err);
    for part in ["pool gpu0 failed", "next: ", "orchestratord was stopped again"] {
        assert!(up.err.contains(part), "{part}\n{}", up.err);
    }
    assert!(host.run(&["down"]).await.out.contains("nothing runs"));
    assert!(host.engines().is_empty(), "{:?}", host.engines());
}
