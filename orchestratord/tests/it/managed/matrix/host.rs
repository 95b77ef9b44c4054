//! What happens to the host: its GPUs, its disk, and the daemon itself.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use fake_nvml::{Driver, State};
use serde_json::{Value, json};

use super::table::{self, Line};
use crate::harness::{Daemon, eventually, start_engine, task};
use crate::managed::bench::{Bench, ManagedPool, ask, health, signal, until_ready, until_state};
use crate::managed::history::{History, Mark};

/// The first two GPUs of the reference box, and a pool on each.
struct Two {
    bench: Bench,
    daemon: Daemon,
    history: History,
    lines: Vec<Line>,
}

impl Two {
    async fn start() -> Self {
        let mut gpus = State::reference_box();
        gpus.devices[0].ecc_uncorrected = Some(0);
        let pool = |id: &str, devices: &str| {
            let pool = ManagedPool::new(id).env("MOCK_ENGINE_VRAM_MB", 64);
            ManagedPool { devices: devices.to_owned(), ..pool }
        };
        let bench = Bench::with_gpus(&gpus, vec![pool("first", "[0]"), pool("second", "[1]")]);
        let daemon = bench.start().await;
        let history = History::open(&daemon).await;
        let two = Self { bench, daemon, history, lines: Vec::new() };
        for pool in ["first", "second"] {
            two.serves(pool).await;
        }
        two
    }

    async fn serves(&self, pool: &str) {
        until_ready(&self.daemon, pool).await;
        let mut stream = self.daemon.run(&self.bench.task(pool, 2)).await;
        assert_eq!(stream.until("end").await.data["tokens_out"], 2, "{pool}");
    }

    async fn pid(&self, pool: &str) -> Value {
        health(&self.daemon, pool).await["pid"].clone()
    }

    /// A pool was seen like this; it comes back by itself, with another process.
    async fn falls(
        &mut self,
        what: &'static str,
        pool: &str,
        seen: (Mark, &str, &str),
        says: &[&str],
        cure: fn(&mut State),
    ) {
        let (mark, state, fault) = seen;
        let told = self.history.until_state(mark, pool, state, fault).await;
        let error = told["last_error"].as_str().expect("an error");
        let fix = told["fix"].as_str().expect("a fix");
        for part in says {
            assert!(error.contains(part), "{what}: no `{part}` in `{error}`");
        }
        self.bench.gpus.update(cure);
        self.serves(pool).await;
        self.lines.push(Line {
            provoked: what,
            state: state.to_owned(),
            fault: fault.to_owned(),
            error: error.trim_end_matches(fix).trim_end_matches("; ").to_owned(),
            returns: "yes".to_owned(),
            left: 0,
        });
    }
}

/// ORCH-3053, OC-POOL-3010, HME-011: what a GPU reports ends the engines on it and no others, and they come back with it.
#[tokio::test]
async fn gpus_fail() {
    let mut two = Two::start().await;
    let nothing: fn(&mut State) = |_| {};

    let (pid, mark) = (two.pid("first").await, two.history.now());
    two.bench.gpus.update(|state| state.report_xid(1, 79));
    two.falls("Xid 79 on its GPU", "second", (mark, "backing_off", "device_error"), &["Xid 79"], nothing).await;
    assert_eq!(two.pid("first").await, pid, "it is another GPU's matter");

    // An error of a program is that program's; the next thing that happens to the GPU shows that it was passed over.
    let (pid, mark) = (two.pid("second").await, two.history.now());
    two.bench.gpus.update(|state| state.report_xid(0, 13));
    two.bench.gpus.update(|state| state.devices[0].ecc_uncorrected = Some(2));
    let says = ["2 memory errors", "nvidia-smi"];
    two.falls("ECC errors on its GPU", "first", (mark, "backing_off", "device_error"), &says, nothing).await;
    assert_eq!(health(&two.daemon, "first").await["restarts"], 1, "Xid 13 has not restarted it");
    assert_eq!(two.pid("second").await, pid, "it is another GPU's matter");

    let (pid, mark) = (two.pid("first").await, two.history.now());
    two.bench.gpus.update(|state| state.devices[1].failed = true);
    let back: fn(&mut State) = |state| state.devices[1].failed = false;
    two.falls("its GPU falls off the bus", "second", (mark, "failed", "driver_lost"), &["does not answer"], back).await;
    assert_eq!(two.pid("first").await, pid, "it is another GPU's matter");

    let mark = two.history.now();
    two.bench.gpus.update(|state| state.driver = Driver::Lost);
    two.history.until_state(mark, "second", "failed", "driver_lost").await;
    let back: fn(&mut State) = |state| state.driver = Driver::Ok;
    let seen = (mark, "failed", "driver_lost");
    two.falls("NVML gone, and back", "first", seen, &["driver was lost", "nvidia-smi"], back).await;
    two.serves("second").await;

    table::print(&two.lines);
    two.daemon.signal("-TERM");
    assert_eq!(two.daemon.ended().await.code(), Some(0));
    two.bench.nothing_left().await;
}

/// LO-POOL-05: no engine outlives a daemon that is killed, what it has started is found where its guard was killed, too, and the next
/// daemon serves.
#[tokio::test]
async fn the_daemon_is_killed() {
    let bench = Bench::new(vec![ManagedPool::new("only").env("MOCK_ENGINE_VRAM_MB", 64)]);
    let mut daemon = bench.start().await;
    let mut lines = Vec::new();
    let mut line = |provoked, returns: &str| {
        let error = String::new();
        let state = "ready".to_owned();
        lines.push(Line { provoked, state, fault: String::new(), error, returns: returns.to_owned(), left: 0 });
    };

    let first = until_ready(&daemon, "only").await;
    daemon.kill();
    bench.nothing_left().await;
    daemon.start_again().await;
    let second = until_ready(&daemon, "only").await;
    assert_ne!(first["pid"], second["pid"]);
    line("daemon SIGKILL", "with the daemon");

    // With its guard gone, too, the kernel ends the engine; what the engine has started is found by the next daemon.
    let mut helper = started_by_engine(&second);
    let guard = guard_of(&second);
    signal(guard, "-STOP");
    daemon.kill();
    signal(guard, "-KILL");
    bench.nothing_left().await;
    assert!(helper.try_wait().expect("it can be waited for").is_none(), "nobody is there to end it");
    daemon.start_again().await;
    let third = until_ready(&daemon, "only").await;
    eventually("what is left is reaped", || helper.try_wait().expect("it can be waited for")).await;
    assert!(daemon.log().contains("an engine of an earlier life of pool only was found"), "it says so");
    assert_eq!(bench.left_of("only").len(), 2, "one guard and one engine");
    assert_ne!(second["pid"], third["pid"]);
    line("daemon and guard SIGKILL", "with the daemon");

    let mut stream = daemon.run(&bench.task("only", 2)).await;
    stream.until("end").await;
    table::print(&lines);
    daemon.signal("-TERM");
    assert_eq!(daemon.ended().await.code(), Some(0));
    bench.nothing_left().await;
}

/// A process as the engine would start it: with all that it has in its environment.
fn started_by_engine(health: &Value) -> Child {
    let environment = std::fs::read(format!("/proc/{}/environ", health["pid"])).expect("the engine runs");
    let variables = environment.split(|byte| *byte == 0).filter_map(|variable| {
        let text = std::str::from_utf8(variable).ok()?;
        text.split_once('=')
    });
    let mut helper = Command::new("sleep");
    helper.arg("600").env_clear().envs(variables).stdin(Stdio::null());
    helper.spawn().expect("sleep runs")
}

/// The parent of the engine.
fn guard_of(health: &Value) -> i64 {
    let pid = health["pid"].as_i64().expect("the engine runs");
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("the engine runs");
    let (_, rest) = stat.rsplit_once(") ").expect("a name in parentheses");
    rest.split(' ').nth(1).expect("a parent").parse().expect("a number")
}

/// LO-POOL-06, LO-POOL-02: without a GPU a managed pool fails at once and says what is missing; no engine is ever started, not even on
/// the CPU, and pools of other people's engines serve all the same.
#[tokio::test]
async fn there_is_no_gpu() {
    let engine = start_engine(&[]);
    let mut bench = Bench::new(vec![ManagedPool::new("only")]);
    bench.more = crate::harness::pool("gpu0", &[engine.url()], "");
    let mut daemon = bench.start_with(&[("LLAMA_ORCH_NVML", "/nonexistent/libnvidia-ml.so.1")]).await;
    let failed = until_state(&daemon, "only", "failed").await;
    assert_eq!(failed["fault"], "no_driver", "{failed:#}");
    let (error, fix) = (failed["last_error"].as_str().expect("an error"), failed["fix"].as_str().expect("a fix"));
    assert!(error.contains("no NVIDIA GPU can be used"), "{error}");
    assert!(fix.contains("driver"), "{fix}");
    daemon.ready().await;
    daemon.run(&task("Say something.", 2)).await.until("end").await;
    let (status, refusal) = daemon.refusal(&bench.task("only", 2)).await;
    assert_eq!((status, &refusal["code"]), (503, &json!("POOL_UNREADY")), "{refusal}");
    let devices = daemon.json("/v1/devices").await;
    assert_eq!(devices["devices"], json!([]));
    assert!(devices["error"].is_string() && devices["fix"].is_string(), "{devices}");
    table::print(&[Line {
        provoked: "no GPU at all",
        state: "failed".to_owned(),
        fault: "no_driver".to_owned(),
        error: error.trim_end_matches(fix).trim_end_matches("; ").to_owned(),
        returns: "with a GPU".to_owned(),
        left: bench.left_of("only").len(),
    }]);
    let said = daemon.get("/v1/pools/only/logs").await.text().await.expect("text");
    assert!(!said.contains(" starts "), "no engine was started: {said}");
    daemon.signal("-TERM");
    assert_eq!(daemon.ended().await.code(), Some(0));
}

/// LO-POOL-02: a disk that fills up while an engine is built is named, and the build is tried again.
#[tokio::test]
async fn the_disk_is_full_during_a_build() {
    let tools = tempfile::tempdir().expect("a temporary directory");
    let script = |name: &str, text: &str| {
        let path = tools.path().join(name);
        std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).expect("a program");
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).expect("it can be run");
    };
    script("nvcc", "echo 'Cuda compilation tools, release 12.6, V12.6.20'");
    script("cmake", "echo 'error: /tmp/ccXq.s: No space left on device' >&2; exit 1");
    for name in ["ninja", "make", "g++", "gcc", "c++", "cc"] {
        script(name, "echo 'gcc (GCC) 13.2.0'");
    }
    let bench = Bench::new(Vec::new());
    let archive = archive(tools.path());
    let model = tools.path().join("model.gguf");
    crate::managed::model::write(&model, crate::managed::model::Model::Tiny);
    let pool = format!(
        "[[pools]]\nid = \"built\"\nengine = \"llamacpp\"\nmodel = \"file:{}\"\nctx = 1024\ndevices = [0]\n\
         [pools.provisioning]\nmode = \"source\"\n[pools.provisioning.source]\nrepo = \"file://{archive}\"\nref = \"b1\"\n",
        model.display()
    );
    let path = format!("{}:/usr/bin:/bin", tools.path().display());
    let environment = bench.gpus.env().map(|(name, value)| (name, value.into_string().expect("UTF-8")));
    let mut environment: Vec<_> = environment.iter().map(|(name, value)| (*name, &**value)).collect();
    environment.push(("PATH", &path));
    let daemon = Daemon::start_with(&format!("{}{pool}", bench.config()), &environment).await;
    let failed = until_state(&daemon, "built", "backing_off").await;
    assert_eq!(failed["fault"], "disk_full", "{failed:#}");
    let (error, fix) = (failed["last_error"].as_str().expect("an error"), failed["fix"].as_str().expect("a fix"));
    assert!(fix.contains("make room"), "{fix}");
    table::print(&[Line {
        provoked: "disk full during a build",
        state: "backing_off".to_owned(),
        fault: "disk_full".to_owned(),
        error: error.trim_end_matches(fix).trim_end_matches("; ").to_owned(),
        returns: "tried again".to_owned(),
        left: 0,
    }]);
    ask(&daemon, "built", "stop", json!({})).await;
    until_state(&daemon, "built", "stopped").await;
}

/// Sources that no compiler will ever see.
fn archive(folder: &Path) -> String {
    let tree = folder.join("llama.cpp");
    std::fs::create_dir(&tree).expect("a folder");
    std::fs::write(tree.join("CMakeLists.txt"), "project(llama)\n").expect("a file");
    let archive = folder.join("llama.cpp.tar");
    let mut tar = Command::new("tar");
    let packed = tar.arg("-C").arg(folder).arg("-cf").arg(&archive).arg("llama.cpp").status();
    assert!(packed.expect("tar runs").success());
    archive.display().to_string()
}
