//! Plain calls.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use api_types::{ErrorKind, TaskId, TaskQuery, TaskState};
use openapi_client::{BearerToken, Client, ClientConfig, ClientError};
use serde_json::json;

use crate::server::{Reply, Request, TestServer};
use crate::streams::task;

pub(crate) fn client(url: &str) -> Client {
    client_with(url, None)
}

fn client_with(url: &str, token: Option<&str>) -> Client {
    let mut config = ClientConfig::new(url.parse().expect("a server"));
    config.token = token.map(|text| BearerToken::parse(text).expect("a token"));
    Client::new(config).expect("a client")
}

fn admitted(request: &Request) -> Reply {
    let body: serde_json::Value = serde_json::from_str(&request.body).expect("JSON");
    Reply::json(
        202,
        json!({"task_id": body["task_id"], "queue_position": 2, "predicted_start_ms": 1800, "backoff_ms": 0}),
    )
}

/// LO-CLI-04, LO-TOOL-06: path, method, body and token arrive as the contract wants them.
#[tokio::test]
async fn a_call_arrives_as_documented() {
    let server = TestServer::start(|request| match request.route().as_str() {
        "POST /v1/tasks" => admitted(request),
        "GET /metrics" => Reply { headers: vec![("Content-Type", "text/plain".into())], ..Reply::json(200, "up 1\n") },
        "GET /v1/pools/a%2Fb/health" => {
            Reply::json(200, json!({"live": true, "ready": false, "draining": false, "metrics": {}}))
        }
        _ => Reply::json(204, ""),
    })
    .await;
    let client = client_with(&server.url, Some("sesame-sesame-sesame"));
    let task = task();
    assert_eq!(client.submit_task(&task).await.expect("admitted").queue_position, 2);
    client.cancel_task(task.task_id).await.expect("canceled");
    assert_eq!(client.get_metrics().await.expect("text"), "up 1\n");
    assert!(!client.get_pool_health(&"a/b".into()).await.expect("health").ready);

    let seen = server.seen();
    assert!(seen.iter().all(|request| request.header("authorization") == Some("Bearer sesame-sesame-sesame")));
    assert_eq!(seen[0].header("accept"), Some("application/json"));
    assert_eq!(serde_json::from_str::<api_types::TaskRequest>(&seen[0].body).expect("a task"), task);
    assert_eq!(seen[1].route(), format!("POST /v1/tasks/{}/cancel", task.task_id));
}

/// OC-CLI-2801, OC-CLI-2802, LO-CLI-03: a refusal keeps its envelope, its wait and its correlation id.
#[tokio::test]
async fn a_refusal_is_typed() {
    let server = TestServer::start(|_| {
        Reply::json(
            429,
            json!({"code": "ADMISSION_REJECT", "message": "full; try again", "retriable": true,
            "retry_after_ms": 1500, "policy_label": "reject"}),
        )
        .header("X-Correlation-Id", "c-1")
        .header("Retry-After", "2")
        .header("X-Backoff-Ms", "1500")
    })
    .await;
    let error = client(&server.url).submit_task(&task()).await.expect_err("refused");
    assert_eq!(error.retry_after(), Some(Duration::from_millis(1500)));
    assert_eq!((error.correlation_id(), error.is_retriable()), (Some("c-1"), true));
    let ClientError::Refused(refusal) = error else { panic!("{error:?}") };
    assert_eq!((refusal.status, refusal.envelope.code), (429, ErrorKind::AdmissionReject));
    assert_eq!(server.routes().len(), 1, "waiting is the caller's business");
}

/// LO-ERR-05, LO-CLI-02: an authentication failure has its own type, and nothing prints the token.
#[tokio::test]
async fn a_wrong_token_is_told_and_not_shown() {
    let server = TestServer::start(|_| {
        Reply::json(401, json!({"code": 40102, "message": "BAD_TOKEN: wrong", "hint": "check AUTH_TOKEN"}))
    })
    .await;
    let client = client_with(&server.url, Some("very-secret-token"));
    let error = client.list_tasks(&TaskQuery::default()).await.expect_err("refused");
    let ClientError::Unauthorized(refusal) = &error else { panic!("{error:?}") };
    assert_eq!(refusal.envelope.code, 40102);
    assert!(!format!("{error:?} {client:?}").contains("very-secret"));
}

/// LO-ERR-01: what is not ours is named without being quoted.
#[tokio::test]
async fn a_strange_answer_is_a_protocol_error() {
    let server = TestServer::start(|request| match request.path.as_str() {
        "/v1/pools" => Reply::json(200, r#"{"pools":[{"id":"secret words"}]}"#),
        _ => Reply::json(502, "<html>bad gateway</html>"),
    })
    .await;
    let client = client(&server.url);
    for error in [
        client.list_pools().await.expect_err("no pool"),
        client.get_capabilities().await.expect_err("a proxy's page"),
        client.get_readyz().await.expect_err("a proxy's page"),
    ] {
        assert!(matches!(error, ClientError::Protocol { .. }), "{error:?}");
        assert!(!format!("{error:?}").contains("secret") && !format!("{error:?}").contains("html"));
    }
}

/// A server that is not ready says so in a body, not in an error.
#[tokio::test]
async fn not_being_ready_is_an_answer() {
    let server = TestServer::start(|_| {
        Reply::json(
            503,
            json!({"ready": false, "pools_ready": 0, "pools_total": 1,
            "reason": {"code": "POOL_UNREADY", "message": "pool gpu0 is loading"}}),
        )
    })
    .await;
    assert!(!client(&server.url).get_readyz().await.expect("an answer").ready);
}

/// Only the transport is retried, and only where twice is as good as once.
#[tokio::test]
async fn a_lost_connection_is_tried_again() {
    static CALLS: AtomicU32 = AtomicU32::new(0);
    let server = TestServer::start(|_| match CALLS.fetch_add(1, Ordering::Relaxed) {
        // Too short for its length: the connection breaks in the middle of the body.
        0 => Reply::json(200, "{").header("Content-Length", "400"),
        _ => Reply::json(200, json!({"tasks": []})),
    })
    .await;
    assert!(client(&server.url).list_tasks(&TaskQuery::default()).await.expect("the second try").tasks.is_empty());
    assert_eq!(server.routes(), ["GET /v1/tasks", "GET /v1/tasks"]);
}

/// LO-TOOL-06: filters go into the query, and only those that are given.
#[tokio::test]
async fn a_query_goes_behind_the_path() {
    let server = TestServer::start(|_| Reply::json(200, json!({"tasks": [], "next_cursor": "n"}))).await;
    let query = TaskQuery {
        limit: Some(2),
        state: vec![TaskState::Failed, TaskState::Expired],
        model_ref: Some("hf:a/b c&d".to_owned()),
        ..TaskQuery::default()
    };
    let list = client(&server.url).list_tasks(&query).await.expect("a list");
    assert_eq!(list.next_cursor.as_deref(), Some("n"));
    assert_eq!(server.routes(), ["GET /v1/tasks?limit=2&state=failed%2Cexpired&model_ref=hf%3Aa%2Fb+c%26d"]);
}

/// LO-CLI-03: nobody there is its own kind of failure.
#[tokio::test]
async fn nobody_listening_is_unreachable() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("bound").port();
    let error = client(&format!("http://127.0.0.1:{port}")).get_task(TaskId::random()).await.expect_err("nobody");
    assert!(matches!(error, ClientError::Unreachable { .. }), "{error:?}");
}

/// A server on a Unix socket is called like any other.
#[tokio::test]
async fn a_unix_socket_works_too() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let path = std::env::temp_dir().join(format!("client-{}.sock", TaskId::random()));
    let listener = tokio::net::UnixListener::bind(&path).expect("a socket");
    let answering = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a client");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.expect("a request"));
        }
        stream
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Type: text/plain\r\n\r\nok\n")
            .await
            .expect("written");
    });
    let answer = client(&format!("unix:{}", path.display())).get_healthz().await;
    std::fs::remove_file(&path).expect("ours");
    assert_eq!(answer.expect("an answer"), "ok\n");
    answering.await.expect("no panic");
}
