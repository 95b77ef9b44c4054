//! What operators do with pools, against a server that plays each part.

use serde_json::{Value, json};

use crate::command::{cli, command, ended};
use crate::server::{Reply, TestServer};

/// A server whose pool `gpu0` is in this state, with these further facts about its health, and which accepts every wish.
async fn server(state: &'static str, health: Value) -> TestServer {
    TestServer::start(move |request| match request.route().as_str() {
        "GET /v1/pools" => {
            let mut all = json!({"live": true, "ready": state == "ready", "draining": false, "metrics": {}, "state": state});
            all.as_object_mut().expect("an object").extend(health.as_object().expect("an object").clone());
            Reply::json(
                200,
                json!({"pools": [{"id": "gpu0", "engine": "llamacpp", "model": "old", "provisioning": "source", "compute": "0",
                    "slots_total": 2, "slots_free": 2, "queue_depth": 0, "queue_capacity": 8, "health": all}]}),
            )
        }
        route if route.starts_with("POST /v1/pools/gpu0/") => Reply::json(202, json!({"status": "accepted"})),
        _ => Reply::json(404, json!({"code": "NOT_FOUND", "message": "no such pool", "retriable": false})),
    })
    .await
}

/// LO-CLI-03, ORCH-3038.1: a pool that failed and a reload that was rolled back have codes of their own, and tell why and what to do.
#[tokio::test]
async fn how_a_pool_ends_up_is_the_exit_code() {
    let failed = json!({"last_error": "the GPU is full; end what holds memory there", "fault": "vram_exhausted",
        "fix": "end what holds memory there"});
    let rolled_back = json!({"reload": {"new_model_ref": "new", "old_model_ref": "old", "state": "rolled_back", "error": "it is no GGUF"}});
    for (state, health, arguments, code, says) in [
        (
            "failed",
            failed,
            &["start", "gpu0"][..],
            8,
            &["failed: the GPU is full [vram_exhausted]", "next: end what holds"][..],
        ),
        ("ready", rolled_back, &["reload", "gpu0", "new"], 9, &["serves old again", "it is no GGUF"]),
        ("ready", json!({}), &["start", "gpu0"], 0, &["gpu0 is ready and serves old"]),
        ("stopped", json!({}), &["stop", "gpu0"], 0, &["gpu0 is stopped"]),
        ("preparing", json!({}), &["start", "gpu0", "--no-wait"], 0, &["accepted"]),
        ("ready", json!({}), &["start", "gpu1"], 4, &["NOT_FOUND"]),
    ] {
        let server = server(state, health).await;
        let ended = cli(&server.url, &[&["pools"], arguments].concat()).await;
        assert_eq!(ended.code, code, "{arguments:?} {ended:?}");
        for part in says {
            assert!(ended.out.contains(part) || ended.err.contains(part), "{arguments:?}: {part} {ended:?}");
        }
    }
}

/// The deadline is the server's matter, in its own unit.
#[tokio::test]
async fn wishes_are_sent_as_the_contract_has_them() {
    let server = server("stopped", json!({})).await;
    for (arguments, route, body) in [
        (&["drain", "gpu0", "--deadline", "2m"][..], "drain", json!({"deadline_ms": 120_000})),
        (&["stop", "gpu0", "--deadline", "0"], "stop", json!({"deadline_ms": 0})),
        (&["stop", "gpu0"], "stop", json!({})),
        (&["reload", "gpu0", "hf:org/repo/b.gguf"], "reload", json!({"new_model_ref": "hf:org/repo/b.gguf"})),
    ] {
        let ended = cli(&server.url, &[&["pools"], arguments, &["--no-wait"]].concat()).await;
        let sent = server.seen().pop().expect("it was sent");
        assert_eq!((ended.code, sent.route()), (0, format!("POST /v1/pools/gpu0/{route}")), "{ended:?}");
        assert_eq!(serde_json::from_str::<Value>(&sent.body).expect("JSON"), body);
    }
}

/// A pool on its way is shown with what it does and how far it is; Ctrl-C leaves it alone.
#[tokio::test]
async fn waiting_can_be_left() {
    let server = server("preparing", json!({"activity": "build llama.cpp", "progress": 0.42})).await;
    let mut child = command(&server.url, &["pools", "start", "gpu0"]).spawn().expect("the command starts");
    let mut told = std::io::BufReader::new(child.stderr.take().expect("piped"));
    let line = tokio::task::spawn_blocking(move || {
        let mut line = String::new();
        std::io::BufRead::read_line(&mut told, &mut line).expect("it tells");
        (line, told)
    });
    // Somebody goes on reading what it says.
    let (line, _told) = line.await.expect("no panic");
    assert_eq!(line, "llama-orch: gpu0: preparing, build llama.cpp (42 %)\n");
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("it lives");
    assert_eq!(ended(child).await.code, 130);
    assert!(server.routes().iter().all(|route| !route.contains("stop")));
}

/// An engine's lines come as they are, followed ones until Ctrl-C, which is how that ends.
#[tokio::test]
async fn logs_are_followed_until_ctrl_c() {
    let held = std::sync::Arc::new(tokio::sync::Notify::new());
    let server = TestServer::start(move |request| match request.path.as_str() {
        "/v1/pools/gpu0/logs?lines=2&follow=true" => Reply {
            status: 200,
            headers: Vec::new(),
            body: "loading\n".to_owned(),
            hold: Some((std::sync::Arc::clone(&held), String::new())),
        },
        _ => Reply { status: 200, headers: Vec::new(), body: "a\nb\n".to_owned(), hold: None },
    })
    .await;
    assert_eq!(cli(&server.url, &["logs", "gpu0"]).await.out, "a\nb\n");
    let mut child = command(&server.url, &["logs", "gpu0", "-f", "-n", "2"]).spawn().expect("the command starts");
    let mut out = std::io::BufReader::new(child.stdout.take().expect("piped"));
    let line = tokio::task::spawn_blocking(move || {
        let mut line = String::new();
        std::io::BufRead::read_line(&mut out, &mut line).expect("a line");
        (line, out)
    });
    let (line, _out) = line.await.expect("no panic");
    assert_eq!(line, "loading\n");
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("it lives");
    let ended = ended(child).await;
    assert_eq!((ended.code, ended.err.as_str()), (0, ""));
}
