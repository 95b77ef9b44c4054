//! Lives of real containers under podman.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use container_runtime::test_support::Podman;

use container_runtime::{
    Backend, Call, ContainerError, Detector, Executor, Limits, LogOptions, LogSource, Mount, Preference, RunAs,
    RunError, Runtime, Spawned, Status, Stopped, SystemExecutor,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::real::{INSTANCE, PATIENCE, Real, output, real, spec};

/// A port that nobody listens on.
fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|socket| socket.local_addr()).expect("a port").port()
}

/// Waits for a line in a container's log.
async fn said(container: &container_runtime::ContainerHandle, wanted: &str) {
    let mut log = container.logs(LogOptions { follow: true, ..LogOptions::default() }).expect("a client");
    let found = async {
        while let Some(line) = log.next().await {
            if line.text.contains(wanted) {
                return true;
            }
        }
        false
    };
    assert!(timeout(PATIENCE, found).await.expect("it speaks"), "{wanted:?} is never said");
}

/// LO-CTR-01, LO-CTR-06, ORCH-3801: a container is started, answers, is inspected, stops when it is asked to, and is removed.
#[tokio::test]
async fn from_start_to_removal() {
    let Some(Real { runtime, image, podman }) = real().await else { return };
    let port = free_port();
    let container = runtime.run(&spec(&image, "life", &["serve", &port.to_string()])).await.expect("it starts");
    assert_eq!((container.name(), container.pool()), ("llama-orch-life-1", Some("life")));
    said(&container, "serving").await;
    let mut stream = TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).await.expect("it listens");
    stream.write_all(b"GET /health HTTP/1.1\r\n\r\n").await.expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("it answers");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let state = container.inspect().await.expect("it is there");
    assert_eq!((state.status, state.running, state.exit_code), (Status::Running, true, None));
    assert!(state.pid.is_some() && state.started_at.is_some() && state.finished_at.is_none(), "{state:?}");
    let Stopped { forced, state } = container.stop(PATIENCE).await.expect("it stops");
    // Its init passes SIGTERM on.
    assert_eq!((forced, state.running, state.exit_code), (false, false, Some(143)));
    assert!(state.finished_at.is_some());
    container.remove().await.expect("it is removed");
    container.remove().await.expect("removing it again is no error");
    assert!(matches!(container.inspect().await, Err(ContainerError::Gone { .. })));
    assert_eq!(podman.run(&["ps", "--all", "--quiet"]), "");
}

/// LO-CTR-06: what does not end by itself is killed when its time is over.
#[tokio::test]
async fn a_deaf_container_is_killed() {
    let Some(Real { runtime, image, podman: _podman }) = real().await else { return };
    let mut deaf = spec(&image, "deaf", &["wait"]);
    deaf.init = false;
    let container = runtime.run(&deaf).await.expect("it starts");
    said(&container, "waiting").await;
    let Stopped { forced, state } = container.stop(Duration::from_millis(300)).await.expect("it is stopped");
    assert_eq!((forced, state.running, state.exit_code), (true, false, Some(137)));
    let again = container.stop(PATIENCE).await.expect("it is stopped already");
    assert_eq!((again.forced, again.state.exit_code), (false, Some(137)));
}

/// LO-CTR-01: the exit code of a container that ends by itself is told, to whoever waits.
#[tokio::test]
async fn exit_codes() {
    let Some(Real { runtime, image, podman: _podman }) = real().await else { return };
    let container = runtime.run(&spec(&image, "short", &["exit", "7"])).await.expect("it starts");
    let state = timeout(PATIENCE, container.wait()).await.expect("it ends").expect("it is there");
    assert_eq!((state.status, state.exit_code, state.perhaps_out_of_memory()), (Status::Exited, Some(7), false));
    let waiting = runtime.run(&spec(&image, "long", &["wait"])).await.expect("it starts");
    let (ended, stopped) = tokio::join!(timeout(PATIENCE, waiting.wait()), waiting.stop(PATIENCE));
    assert_eq!(ended.expect("it ends").expect("it is there"), stopped.expect("it stops").state);
}

/// LO-CTR-01: a container that takes more memory than it may is killed, which is told apart from other ends.
#[tokio::test]
async fn out_of_memory() {
    let Some(Real { runtime, image, podman: _podman }) = real().await else { return };
    let mut hungry = spec(&image, "hungry", &["eat"]);
    hungry.memory_bytes = Some(64 << 20);
    let container = runtime.run(&hungry).await.expect("it starts");
    let state = timeout(PATIENCE, container.wait()).await.expect("it ends").expect("it is there");
    assert_eq!((state.exit_code, state.memory_limit_bytes), (Some(137), Some(64 << 20)));
    assert!(state.perhaps_out_of_memory());
}

/// LO-CTR-07: the log comes with its sources, from both ends, bounded and redacted, while the container runs and after.
#[tokio::test]
async fn logs() {
    let Some(Real { runtime, image, podman: _podman }) = real().await else { return };
    let container = runtime.run(&spec(&image, "counts", &["count", "3000"])).await.expect("it starts");
    let lines = output(&container).await;
    assert_eq!(lines.len(), 3000);
    assert!(lines.iter().enumerate().all(|(number, line)| *line == format!("line {number}")));
    let mut tail =
        container.logs(LogOptions { tail: Some(2), line_limit: 8, ..LogOptions::default() }).expect("a client");
    let first = tail.next().await.expect("a line");
    assert_eq!((&*first.text, first.cut, first.source), ("line 299", true, LogSource::Stdout));
    assert!(tail.next().await.is_some() && tail.next().await.is_none());

    let waits = runtime.run(&spec(&image, "waits", &["wait"])).await.expect("it starts");
    let mut log = waits.logs(LogOptions { follow: true, ..LogOptions::default() }).expect("a client");
    let mut heard = Vec::new();
    for _ in 0..2 {
        let line = timeout(PATIENCE, log.next()).await.expect("it speaks").expect("it runs");
        heard.push((line.source == LogSource::Stderr, line.text));
    }
    heard.sort();
    assert_eq!(heard, [(false, "waiting".to_owned()), (true, "with token=[redacted]".to_owned())]);
}

/// LO-CTR-07, LO-CTR-08: a variable reaches the engine, stands in no command line, and is masked in the log.
#[tokio::test]
async fn variables() {
    let Some(Real { runtime, image, podman }) = real().await else { return };
    for (name, value) in [("SECRET", "correct horse battery"), ("LD_LIBRARY_PATH", "/somewhere"), ("EMPTY", "")] {
        let mut told = spec(&image, &name.to_lowercase(), &["env", name]);
        told.env.insert(name.to_owned(), value.into());
        let container = runtime.run(&told).await.expect("it starts");
        let unmasked = runtime.find(INSTANCE).await.expect("podman answers").pop().expect("it is there");
        let expected = if value.is_empty() { format!("{name} is ") } else { format!("{name} is [redacted]") };
        assert_eq!(output(&container).await, [expected]);
        assert_eq!(output(&unmasked).await, [format!("{name} is {value}")]);
        let command = podman.run(&["inspect", container.name(), "--format={{json .Config.CreateCommand}}"]);
        assert!(!command.contains("correct"), "{command}");
        container.remove().await.expect("it is removed");
    }
}

/// LO-CTR-10, ORCH-3508: a container has no capabilities, gains none, and cannot write what it was given to read.
#[tokio::test]
async fn hardening() {
    let Some(Real { runtime, image, podman }) = real().await else { return };
    let status = output(&runtime.run(&spec(&image, "status", &["status"])).await.expect("it starts")).await.join("\n");
    for line in ["CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"] {
        assert!(status.contains(line), "{line} is not in {status}");
    }
    let folder = podman.path("given");
    std::fs::create_dir(&folder).expect("a folder of ours");
    for (pool, mount, root, path, expected) in [
        ("reads", Mount::read_only(&folder, "/given"), false, "/given/file", "Err(ReadOnlyFilesystem)"),
        ("writes", Mount::read_write(&folder, "/given"), true, "/given/file", "Ok(())"),
        ("root", Mount::read_write(&folder, "/given"), true, "/file", "Err(ReadOnlyFilesystem)"),
        ("scratch", Mount::read_write(&folder, "/given"), true, "/tmp/file", "Ok(())"),
    ] {
        let mut tries = spec(&image, pool, &["write", path]);
        tries.mounts = vec![mount];
        tries.read_only_root = root;
        tries.run_as = RunAs::Caller;
        assert_eq!(output(&runtime.run(&tries).await.expect("it starts")).await, [expected], "{pool}");
    }
    assert_eq!(std::fs::read_to_string(folder.join("file")).expect("it was written"), "written");
}

/// LO-CTR-01: starts that fail say why, and leave nothing, neither of their own nor of others.
#[tokio::test]
async fn failed_starts() {
    let Some(Real { runtime, image, podman }) = real().await else { return };
    let first = runtime.run(&spec(&image, "taken", &["wait"])).await.expect("it starts");
    let again = runtime.run(&spec(&image, "taken", &["wait"])).await;
    assert!(matches!(again, Err(RunError::NameTaken { .. })), "{again:?}");

    let mut lost = spec(&image, "lost", &[]);
    lost.init = false;
    lost.entrypoint = Some(vec!["/nowhere".to_owned()]);
    let lost = runtime.run(&lost).await;
    assert!(matches!(lost, Err(RunError::NoProgram { .. })), "{lost:?}");

    let mut needy = spec(&image, "needy", &["wait"]);
    needy.mounts = vec![Mount::read_only("/no/such/folder", "/models")];
    let needy = runtime.run(&needy).await;
    assert!(matches!(needy, Err(RunError::MountMissing { .. })), "{needy:?}");

    let mut unknown = image.clone();
    unknown.reference = "localhost/unknown:1".to_owned();
    let unknown = runtime.run(&spec(&unknown, "unknown", &["wait"])).await;
    assert!(matches!(unknown, Err(RunError::ImageMissing { .. })), "{unknown:?}");

    assert!(first.inspect().await.expect("it is there").running);
    assert_eq!(podman.run(&["ps", "--all", "--format={{.Names}}"]), "llama-orch-taken-1");
}

/// What a second process of ours finds.
async fn found(runtime: &Runtime, instance: &str) -> Vec<container_runtime::ContainerHandle> {
    runtime.find(instance).await.expect("podman answers")
}

/// LO-CTR-01: a container outlives who started it, and is found again by its owner and by nobody else, with
/// what is needed to adopt it.
#[tokio::test]
async fn adoption() {
    let Some(Real { runtime, image, podman }) = real().await else { return };
    let mut wanted = spec(&image, "kept", &["wait"]);
    wanted.labels.insert("port".to_owned(), "8080".to_owned());
    drop(runtime.run(&wanted).await.expect("it starts"));
    let mut other = spec(&image, "others", &["wait"]);
    other.instance = "somebody-else".to_owned();
    drop(runtime.run(&other).await.expect("it starts"));
    drop(runtime);

    let later = podman.runtime().await;
    let adopted = found(&later, INSTANCE).await.pop().expect("it is found");
    assert_eq!(found(&later, INSTANCE).await.len(), 1);
    assert_eq!(
        (adopted.name(), adopted.pool(), adopted.label("port")),
        ("llama-orch-kept-1", Some("kept"), Some("8080"))
    );
    assert_eq!(adopted.spec_digest(), Some(&*wanted.digest()));
    said(&adopted, "waiting").await;
    adopted.stop(PATIENCE).await.expect("it stops");
    adopted.remove().await.expect("it is removed");
    assert_eq!(found(&later, INSTANCE).await.len(), 0);
    assert_eq!(found(&later, "somebody-else").await.len(), 1);
}

/// Waits until podman has neither containers nor processes.
async fn nothing_is_left(podman: &Podman) {
    let empty = async {
        while !(podman.run(&["ps", "--all", "--quiet"]).is_empty() && podman.processes().is_empty()) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let is_empty = timeout(PATIENCE, empty).await.is_ok();
    assert!(is_empty, "{} {:?}", podman.run(&["ps", "--all"]), podman.processes());
}

/// LO-CTR-01: a start that nobody waits for any more leaves nothing, whenever that is.
#[tokio::test]
async fn a_dropped_start_leaves_nothing() {
    let Some(Real { runtime, image, podman }) = real().await else { return };
    for generation in 0..8 {
        let mut wanted = spec(&image, "dropped", &["wait"]);
        wanted.generation = generation;
        if let Ok(started) = timeout(Duration::from_millis(15 * generation), runtime.run(&wanted)).await {
            started.expect("it starts").remove().await.expect("it is removed");
        }
    }
    nothing_is_left(&podman).await;
}

/// Starts `podman run` and kills it after a while.
#[derive(Debug)]
struct Killer {
    inner: SystemExecutor,
    after: Duration,
}

impl Executor for Killer {
    fn spawn(&self, call: &Call) -> std::io::Result<Spawned> {
        if call.args[0] != "run" {
            return self.inner.spawn(call);
        }
        // A shell that tells its number and becomes the client.
        let words = [call.program.clone()].into_iter().chain(call.args.iter().cloned());
        let args = ["-c".to_owned(), "echo $$ >&2; exec \"$0\" \"$@\"".to_owned()].into_iter().chain(words).collect();
        let mut client = self.inner.spawn(&Call { program: "sh".to_owned(), args, env: call.env.clone() })?;
        let (after, exit) = (self.after, client.exit);
        let mut stderr = client.stderr;
        client.exit = Box::pin(async move {
            let mut pid = String::new();
            while !pid.ends_with('\n') {
                pid.push(char::from(stderr.read_u8().await?));
            }
            tokio::time::sleep(after).await;
            let _ = std::process::Command::new("kill").args(["-KILL", pid.trim()]).stderr(Stdio::null()).status();
            exit.await
        });
        client.stderr = Box::new(tokio::io::empty());
        Ok(client)
    }
}

/// LO-CTR-01: a start whose client is killed at any moment leaves nothing: no container, no process.
#[tokio::test]
async fn a_killed_client_leaves_nothing() {
    let Some(Real { runtime, image, podman }) = real().await else { return };
    for generation in 0..16 {
        let mut wanted = spec(&image, "killed", &["wait"]);
        wanted.generation = generation;
        let executor = Killer { inner: podman.executor(), after: Duration::from_millis(7 * generation) };
        let killed = Detector::with_executor(Arc::new(executor)).detect(Preference::Only(Backend::Podman)).await;
        match killed.expect("podman works").run(&wanted).await {
            Ok(container) => container.remove().await.expect("it is removed"),
            Err(error) => assert!(matches!(error, RunError::Client { .. }), "{error:?}"),
        }
    }
    nothing_is_left(&podman).await;
    let after = runtime.run(&spec(&image, "after", &["exit", "0"])).await.expect("podman still works");
    assert_eq!(timeout(PATIENCE, after.wait()).await.expect("it ends").expect("it is there").exit_code, Some(0));
}

/// LO-CTR-01: podman's monitor may be killed; the end of the container is noticed all the same.
#[tokio::test]
async fn a_container_without_its_monitor() {
    let Some(Real { image, podman, .. }) = real().await else { return };
    let runtime = podman.runtime_with(Limits { notice: Duration::from_millis(200), ..Limits::default() }).await;
    let container = runtime.run(&spec(&image, "orphan", &["wait"])).await.expect("it starts");
    said(&container, "waiting").await;
    let monitor = podman.run(&["inspect", container.name(), "--format={{.State.ConmonPid}}"]);
    let kill = |pid: &str| std::process::Command::new("kill").args(["-KILL", pid]).status().expect("kill is there");
    assert!(kill(&monitor).success());
    let pid = container.inspect().await.expect("it is there").pid.expect("it runs").to_string();
    let (state, killed) = tokio::join!(timeout(PATIENCE, container.wait()), async { kill(&pid) });
    assert!(killed.success());
    let state = state.expect("the end is noticed").expect("it is there");
    assert_eq!((state.running, state.exit_code), (false, None), "{state:?}");
    container.remove().await.expect("it is removed");
}
