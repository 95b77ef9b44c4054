//! `tasks`: filters, pages and how much of them.

use serde_json::{Value, json};

use crate::command::cli;
use crate::server::{Reply, Request, TestServer};

const SESSION: &str = "2b1f4c6e-8d3a-4a5e-9f7b-1c2d3e4f5a6b";

/// As many tasks as asked for; `cursor` is the number of those that came before, of 1,500 in all.
fn page(request: &Request) -> Reply {
    let value = |name: &str| {
        let query = request.path.split_once('?').map_or("", |(_, query)| query);
        query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('=')?.parse::<u64>().ok())
    };
    let first = value("cursor").unwrap_or(0);
    let last = (first + value("limit").unwrap_or(100)).min(1_500);
    let tasks: Vec<Value> = (first..last).map(task).collect();
    let mut list = json!({"tasks": tasks});
    if last < 1_500 {
        list["next_cursor"] = last.to_string().into();
    }
    Reply::json(200, list)
}

fn task(number: u64) -> Value {
    json!({"task_id": format!("00000000-0000-4000-8000-{number:012}"), "correlation_id": "c", "session_id": SESSION,
        "state": "completed", "workload": "completion", "model_ref": "tiny", "engine": "mock", "priority": "batch",
        "seed": 1, "predicted_start_ms": 0, "admitted_at_ms": 1_760_000_000_000_i64})
}

/// LO-CLI-06: the newest 20, and a word about there being more where it is in nobody's way.
#[tokio::test]
async fn a_screenful_by_default() {
    let server = TestServer::start(page).await;
    let ended = cli(&server.url, &["tasks"]).await;
    assert_eq!((ended.code, ended.out.lines().count()), (0, 21));
    assert_eq!(ended.err, "llama-orch: there are more; a larger --limit shows them\n");
    assert_eq!(server.routes(), ["GET /v1/tasks?limit=20"]);
}

/// More than the server gives in one answer comes page by page, each task once.
#[tokio::test]
async fn cursors_are_followed_up_to_the_limit() {
    let server = TestServer::start(page).await;
    let ended = cli(&server.url, &["tasks", "--json", "--limit", "1200"]).await;
    let list: Value = serde_json::from_str(&ended.out).expect("JSON");
    let expected: Vec<Value> = (0..1_200).map(|number| task(number)["task_id"].clone()).collect();
    let listed: Vec<Value> =
        list["tasks"].as_array().expect("tasks").iter().map(|task| task["task_id"].clone()).collect();
    assert_eq!(listed, expected);
    assert_eq!(list["next_cursor"], "1200");
    assert_eq!(server.routes(), ["GET /v1/tasks?limit=1000", "GET /v1/tasks?limit=200&cursor=1000"]);

    let all = cli(&server.url, &["tasks", "--limit", "9999"]).await;
    assert_eq!((all.out.lines().count(), all.err.as_str()), (1_501, ""), "all there are");
}

/// A cursor that leads nowhere ends the list.
#[tokio::test]
async fn an_empty_page_is_the_last() {
    let server = TestServer::start(|_| Reply::json(200, json!({"tasks": [], "next_cursor": "again"}))).await;
    let ended = cli(&server.url, &["tasks", "--priority", "batch"]).await;
    assert_eq!((ended.out.as_str(), ended.err.as_str()), ("no task passes these filters\n", ""));
    assert_eq!(server.routes().len(), 1);
}

/// Every filter reaches the server under the contract's name; times count back from now.
#[tokio::test]
async fn filters_reach_the_server() {
    let server = TestServer::start(page).await;
    let options = [
        "tasks",
        "--state",
        "failed,expired",
        "--priority",
        "batch",
        "--pool",
        "gpu0",
        "--session",
        SESSION,
        "--model",
        "hf:a/b",
        "--limit",
        "5",
    ];
    assert_eq!(cli(&server.url, &options).await.code, 0);
    let expected = format!(
        "GET /v1/tasks?limit=5&state=failed%2Cexpired&priority=batch&pool_id=gpu0&session_id={SESSION}&model_ref=hf%3Aa%2Fb"
    );
    assert_eq!(server.routes(), [expected]);

    assert_eq!(cli(&server.url, &["tasks", "--since", "2h", "--until", "30m"]).await.code, 0);
    let route = server.routes().remove(1);
    let bound = |name: &str| -> i64 {
        let value = route.split(['?', '&']).find_map(|pair| pair.strip_prefix(name)).expect("it is there");
        value.parse().expect("a number")
    };
    assert_eq!(bound("until_ms=") - bound("since_ms=") - 5_400_000, 0, "both count from one moment: {route}");

    for wrong in [&["--state", "done"][..], &["--limit", "0"], &["--since", "yesterday"], &["--session", "x"]] {
        assert_eq!(cli(&server.url, &[&["tasks"], wrong].concat()).await.code, 2, "{wrong:?}");
    }
}
