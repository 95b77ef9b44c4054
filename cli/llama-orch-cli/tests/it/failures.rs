//! What people and scripts learn when it does not work.

use serde_json::json;

use crate::command::{cli, command, finish, with_a_pool};
use crate::server::{Reply, TestServer};

fn envelope(status: u16, code: &str, retriable: bool) -> Reply {
    Reply::json(status, json!({"code": code, "message": "the reason", "retriable": retriable}))
        .header("X-Correlation-Id", "c-77")
}

/// LO-CLI-03, LO-CLI-08: each class has its exit code; the reason, the id and the remedy are told.
#[tokio::test]
async fn refusals_have_their_exit_codes() {
    for (status, code, retriable, exit) in [
        (400, "INVALID_PARAMS", false, 4),
        (409, "CONFLICT", false, 4),
        (429, "ADMISSION_REJECT", true, 6),
        (503, "POOL_UNREADY", true, 6),
        (503, "POOL_UNAVAILABLE", false, 1),
        (500, "INTERNAL", false, 1),
    ] {
        let server = TestServer::start(with_a_pool(move |_| envelope(status, code, retriable))).await;
        let ended = cli(&server.url, &["run", "x", "--retries", "0"]).await;
        assert_eq!((ended.code, ended.out.as_str()), (exit, ""), "{code}");
        assert!(
            ended.err.contains("the reason") && ended.err.contains("c-77") && ended.err.contains(code),
            "{}",
            ended.err
        );
    }
}

/// ORCH-3406: a task that fails in its stream fails the command, after what had come of it.
#[tokio::test]
async fn a_failed_task_fails_the_command() {
    for (code, retriable, exit) in [("WORKER_RESET", false, 1), ("DECODE_TIMEOUT", true, 6)] {
        let server = TestServer::start(with_a_pool(move |_| {
            let error = json!({"code": code, "message": "the engine went away", "retriable": retriable, "retry_after_ms": 1500});
            Reply::events(&[(0, "token", json!({"t": "half", "i": 0})), (1, "error", error)])
        }))
        .await;
        let ended = cli(&server.url, &["run", "x"]).await;
        assert_eq!((ended.code, ended.out.as_str()), (exit, "half"), "{ended:?}");
        assert!(ended.err.contains("the engine went away") && ended.err.contains("next:"), "{}", ended.err);
    }
}

/// LO-CLI-03: nobody there says what to do.
#[tokio::test]
async fn an_absent_server_is_told_apart() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("bound").port();
    let ended = cli(&format!("127.0.0.1:{port}"), &["status"]).await;
    assert_eq!(ended.code, 3);
    assert!(ended.err.contains("cannot connect") && ended.err.contains("orchestratord"), "{}", ended.err);
}

/// LO-CLI-02, LO-CLI-04: the token comes from the flag or the environment, a refusal of it explains the remedy, and
/// nothing prints it.
#[tokio::test]
async fn the_token_is_sent_and_never_shown() {
    let server = TestServer::start(|_| {
        Reply::json(401, json!({"code": 40102, "message": "BAD_TOKEN: wrong", "hint": "ask the operator"}))
    })
    .await;
    let secret = "sesame-sesame-sesame";
    for (variable, flag) in [(Some("AUTH_TOKEN"), None), (Some("LLORCH_API_TOKEN"), None), (None, Some(secret))] {
        let mut run = command(&server.url, &["tasks"]);
        variable.map(|name| run.env(name, secret));
        flag.map(|token| run.args(["--auth-token", token]));
        let ended = finish(run, "").await;
        assert_eq!(ended.code, 5);
        assert!(ended.err.contains("BAD_TOKEN") && ended.err.contains("ask the operator"), "{}", ended.err);
        assert!(ended.err.contains("fingerprint 951105") && !ended.err.contains(secret), "{}", ended.err);
        let sent = server.seen().last().and_then(|request| request.header("authorization").map(str::to_owned));
        assert_eq!(sent, Some(format!("Bearer {secret}")));
    }
    let mut help = command(&server.url, &["--help"]);
    help.env("AUTH_TOKEN", secret);
    let help = finish(help, "").await;
    assert!(!help.out.contains(secret) && help.out.contains("Exit codes:"));
    let mut bad = command(&server.url, &["tasks"]);
    bad.env("AUTH_TOKEN", "two words");
    let bad = finish(bad, "").await;
    assert!(bad.code == 2 && !bad.err.contains("two words"), "{}", bad.err);
}

/// Wrong arguments are wrong usage, whoever finds them.
#[tokio::test]
async fn wrong_usage_exits_with_two() {
    for arguments in [&["run", "x", "--engine", "llama"][..], &["task", "no-uuid"], &["pools", "--server", "ftp://x"]] {
        assert_eq!(cli("http://127.0.0.1:1", arguments).await.code, 2, "{arguments:?}");
    }
}
