//! `artifacts`.

use serde_json::{Value, json};

use crate::command::{cli, command, finish};
use crate::server::{Reply, TestServer};

const ID: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
const TASK: &str = "7f9c24e5-5d8b-4c53-9c13-0c6d3b7f5a10";
const SESSION: &str = "2b1f4c6e-8d3a-4a5e-9f7b-1c2d3e4f5a6b";

/// An artifact's reference, as lists and records have it.
pub(crate) fn reference(kind: &str, tags: &[&str]) -> Value {
    json!({"id": ID, "kind": kind, "digest": format!("sha256:{ID}"), "created_ms": 1_760_000_000_000_i64, "tags": tags})
}

/// Filters reach the server; a table or the server's own JSON comes of it.
#[tokio::test]
async fn lists_and_their_filters() {
    let page = json!({"artifacts": [reference("trace", &["sse", "stream"])]});
    let answer = page.clone();
    let server = TestServer::start(move |_| Reply::json(200, answer.clone())).await;
    let tagged = |tag: &str, id: &str| format!("GET /v1/artifacts?tag={tag}%3A{id}&limit=20");
    for (options, route) in [
        (&["--task", TASK][..], tagged("task", TASK)),
        (&["--session", SESSION], tagged("session", SESSION)),
        (&["--kind", "plan", "--tag", "x", "--limit", "3"], "GET /v1/artifacts?kind=plan&tag=x&limit=3".to_owned()),
        (&["--parent", &format!("sha256:{ID}")], format!("GET /v1/artifacts?parent={ID}&limit=20")),
    ] {
        let listed = cli(&server.url, &[&["artifacts", "list"], options].concat()).await;
        assert_eq!((listed.code, listed.out.lines().count(), listed.err.as_str()), (0, 2, ""));
        assert!(listed.out.contains(ID) && listed.out.contains("sse,stream"), "{}", listed.out);
        assert_eq!(server.routes().last(), Some(&route));
    }
    let json = cli(&server.url, &["artifacts", "list", "--json"]).await;
    assert_eq!(serde_json::from_str::<Value>(&json.out).expect("JSON"), page);
    for wrong in [&["--kind", "poem"][..], &["--tag", "x", "--task", TASK], &["--limit", "0"]] {
        assert_eq!(cli(&server.url, &[&["artifacts", "list"], wrong].concat()).await.code, 2, "{wrong:?}");
    }
}

/// OC-CLI-2301: the document comes as it is, to stdout or to a file that is there when all of it is.
#[tokio::test]
async fn a_document_byte_for_byte() {
    let document = "{\"content\":{\"text\":\"é\"},\"kind\":\"plan\"}";
    let server = TestServer::start(move |request| match request.path.as_str() {
        path if path.ends_with("/download") && path.contains(ID) => Reply::json(200, document),
        path if path.ends_with("/download") => Reply::json(200, "{").header("Content-Length", "99"),
        _ => Reply::json(204, ""),
    })
    .await;
    let got = cli(&server.url, &["artifacts", "get", ID]).await;
    assert_eq!((got.code, got.out.as_str(), got.err.as_str()), (0, document, ""));
    assert_eq!(server.routes(), [format!("GET /v1/artifacts/{ID}/download")]);

    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("plan.json");
    let path = file.to_str().expect("UTF-8");
    let got = cli(&server.url, &["artifacts", "get", ID, "-o", path]).await;
    assert_eq!((got.code, got.out.as_str()), (0, ""), "{got:?}");
    assert_eq!(std::fs::read_to_string(&file).expect("written"), document);

    let cut = cli(&server.url, &["artifacts", "get", "beef", "-o", path]).await;
    assert_eq!(cut.code, 3, "{cut:?}");
    assert_eq!(std::fs::read_to_string(&file).expect("as before"), document);
    assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 1, "no half of a file");

    let nowhere = cli(&server.url, &["artifacts", "get", ID, "-o", "/no/such/folder/x"]).await;
    assert!(nowhere.code == 2 && nowhere.err.contains("cannot write"), "{nowhere:?}");
    assert_eq!(cli(&server.url, &["artifacts", "get"]).await.code, 2, "neither id nor task");
    let removed = cli(&server.url, &["artifacts", "rm", ID]).await;
    assert_eq!((removed.code, removed.out.as_str()), (0, ""));
    assert_eq!(server.routes().last(), Some(&format!("DELETE /v1/artifacts/{ID}")));
}

/// What it is, without what it says.
#[tokio::test]
async fn an_artifact_in_full() {
    let mut record = reference("diff", &["a", "b"]);
    let more = json!({"content": {"secret": "never shown"}, "metadata": {"pool_id": "gpu0", "n": 2}, "parent": "aa",
        "ancestors": ["aa", "bb"], "children": []});
    record.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    let answer = record.clone();
    let server = TestServer::start(move |_| Reply::json(200, answer.clone())).await;
    let shown = cli(&server.url, &["artifacts", "show", &format!("sha256:{ID}")]).await;
    for part in ["kind:       diff", "members:    secret", "tags:       a, b", "aa < bb", "n 2, pool_id gpu0"] {
        assert!(shown.out.contains(part), "{part}\n{}", shown.out);
    }
    assert!(!shown.out.contains("never shown") && !shown.out.contains("children"), "{}", shown.out);
    let json = cli(&server.url, &["artifacts", "show", ID, "--json"]).await;
    assert_eq!(serde_json::from_str::<Value>(&json.out).expect("JSON"), record);
}

/// OC-CLI-2301: a document is a JSON object, from a file or from stdin.
#[tokio::test]
async fn a_document_is_kept() {
    let server = TestServer::start(|_| Reply::json(201, reference("plan", &[]))).await;
    let put = ["artifacts", "put", "-", "--kind", "plan", "--tag", "a", "--parent", "aa"];
    let kept = finish(command(&server.url, &put), "{\"steps\": [1]}").await;
    assert_eq!((kept.code, kept.out, kept.err.as_str()), (0, format!("{ID}\n"), ""));
    let sent: Value = serde_json::from_str(&server.seen()[0].body).expect("JSON");
    assert_eq!(sent, json!({"kind": "plan", "content": {"steps": [1]}, "tags": ["a"], "parent": "aa"}));

    for text in ["[1]", "", "{\"a\": ", "secret"] {
        let refused = finish(command(&server.url, &put), text).await;
        assert_eq!(refused.code, 2, "{text}");
        assert!(refused.err.contains("no JSON object") && !refused.err.contains("secret"), "{}", refused.err);
    }
    let missing = cli(&server.url, &["artifacts", "put", "/no/such", "--kind", "plan"]).await;
    assert!(missing.code == 2 && missing.err.contains("/no/such"), "{missing:?}");
    assert_eq!(server.seen().len(), 1);
}
