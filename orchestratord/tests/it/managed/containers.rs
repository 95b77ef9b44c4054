//! Engines in real containers, under podman.

use std::path::PathBuf;

use container_runtime::test_support::Podman;
use serde_json::{Value, json};

use super::bench::{Bench, ask, health, signal, until, until_ready, until_state};
use super::model::{self, Model};
use crate::harness::{Daemon, eventually, eventually_async, task, with};

/// A host with one pool `boxed`, whose engine runs in a container.
struct Host {
    bench: Bench,
    podman: Podman,
    model: PathBuf,
}

impl Host {
    fn new(podman: Podman) -> Self {
        let program = mock::process::binary().expect("mock-engine is built");
        let image = podman.build("mock-engine", &program);
        let digest = podman.run(&["image", "inspect", "--format", "{{.Digest}}", &image.reference()]);
        let mut bench = Bench::new(Vec::new());
        let folder = bench.folder("boxed");
        std::fs::create_dir(&folder).expect("a folder");
        let model = folder.join("model.gguf");
        model::write(&model, Model::Tiny);
        bench.more = format!(
            "[[pools]]\nid = \"boxed\"\nengine = \"llamacpp\"\nmodel = \"file:{}\"\nctx = 1024\ndevices = [0]\n\
             [pools.supervision]\nrestart_backoff_ms = 100\n[pools.provisioning]\nmode = \"container\"\n\
             env = {{ FAKE_NVML = {:?} }}\n[pools.provisioning.container]\nimage = \"{}\"\ndigest = \"{}\"\nnetwork = \"host\"\n",
            model.display(),
            bench.gpus.state_path(),
            image.image,
            digest.trim(),
        );
        Self { bench, podman, model }
    }

    async fn start(&self) -> Daemon {
        let own = self.podman.env().map(|(name, path)| (name, path.display().to_string()));
        let gpus = self.bench.gpus.env().map(|(name, value)| (name, value.into_string().expect("UTF-8")));
        let path = ("PATH", std::env::var("PATH").unwrap_or_default());
        let all: Vec<_> = own.into_iter().chain(gpus).chain([path]).collect();
        let all: Vec<_> = all.iter().map(|(name, value)| (*name, value.as_str())).collect();
        self.bench.start_with(&all).await
    }

    /// Names of the containers that there are, running or not.
    fn containers(&self) -> Vec<String> {
        let names = self.podman.run(&["ps", "--all", "--format", "{{.Names}}"]);
        names.lines().map(str::to_owned).collect()
    }

    fn task(&self, max_tokens: u32) -> Value {
        let task =
            with(task("Say something.", max_tokens), "model_ref", json!(format!("file:{}", self.model.display())));
        with(task, "ctx", json!(512))
    }
}

/// LO-POOL-05, ORCH-3801, ORCH-3802: a pool whose engine is an image comes to serve, its container is adopted by the next life of a
/// daemon that was killed, is exchanged when it dies, and goes with its pool.
#[tokio::test]
async fn a_container_lives_as_its_pool_does() {
    let Some(podman) = Podman::start() else { return };
    let host = Host::new(podman);
    let mut daemon = host.start().await;
    let first = until_ready(&daemon, "boxed").await;
    assert_eq!(
        daemon.run(&host.task(8)).await.rest().await.last().map(|event| event.name.clone()),
        Some("end".to_owned())
    );
    let names = host.containers();
    assert_eq!(names.len(), 1, "{names:?}");
    // What a container says comes a moment later.
    eventually_async("its words are kept", async || {
        let log = daemon.get("/v1/pools/boxed/logs").await.text().await.expect("text");
        log.contains("server is listening").then_some(())
    })
    .await;

    daemon.kill();
    assert_eq!(host.containers(), names, "it outlives the daemon");
    daemon.start_again().await;
    let adopted = until_ready(&daemon, "boxed").await;
    assert_eq!(adopted["pid"], first["pid"], "the model that was loaded is not loaded again");
    daemon.run(&host.task(8)).await.until("end").await;

    signal(adopted["pid"].as_i64().expect("a pid"), "-KILL");
    let again =
        until(&daemon, "boxed", "started again", |health| health["ready"] == true && health["restarts"] == 1).await;
    assert_ne!(again["pid"], first["pid"]);
    assert_eq!(host.containers().len(), 1, "what died was removed");

    ask(&daemon, "boxed", "stop", json!({})).await;
    until_state(&daemon, "boxed", "stopped").await;
    assert_eq!(host.containers(), [""; 0]);

    // One that was started for another model is no use to the next life.
    ask(&daemon, "boxed", "start", json!({})).await;
    until_ready(&daemon, "boxed").await;
    daemon.signal("-TERM");
    assert!(daemon.ended().await.success());
    eventually("no container is left", || host.containers().is_empty().then_some(())).await;
}

/// ORCH-3802, LO-ENG-15: an image that is not there is a failure that says which and what to do.
#[tokio::test]
async fn an_image_that_is_missing_is_named() {
    let Some(podman) = Podman::start() else { return };
    let mut host = Host::new(podman);
    let other = format!("sha256:{}", "0".repeat(64));
    let begin = host.bench.more.find("digest = ").expect("it has one");
    let end = host.bench.more[begin..].find('\n').expect("a line") + begin;
    host.bench.more.replace_range(begin..end, &format!("digest = \"{other}\""));
    let daemon = host.start().await;
    let failed = until(&daemon, "boxed", "without an image", |health| health["fault"].is_string()).await;
    assert!(failed["last_error"].as_str().is_some_and(|error| error.contains("mock-engine")), "{failed}");
    assert_eq!(health(&daemon, "boxed").await["ready"], false);
    assert_eq!(host.containers(), [""; 0]);
}
