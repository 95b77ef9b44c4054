use serde_json::{Value, json};

use crate::harness::{Daemon, config, start_engine, task};

const TOKEN: &str = "correct-horse-battery-staple";

/// LO-TST-01, AUTH-1001, LO-AUTH-03, LO-AUTH-04, LO-ERR-05: with a token every route but the two probes wants it, also on
/// loopback.
#[tokio::test]
async fn a_configured_token_is_wanted_everywhere() {
    let engine = start_engine(&[]);
    let daemon = Daemon::start_with(&config(engine.url(), ""), &[("AUTH_TOKEN", TOKEN)]).await;
    daemon.ready().await;
    let get = async |path: &str, token: Option<&str>| {
        let mut request = daemon.http().get(daemon.url(path));
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        request.send().await.expect("an answer")
    };
    for path in ["/v1/tasks", "/v1/capabilities", "/v1/pools", "/metrics", "/v1/openapi.json", "/nowhere"] {
        for (token, code) in [(None, 40101), (Some("wrong"), 40102)] {
            let answer = get(path, token).await;
            assert_eq!(answer.status(), 401, "{path}");
            assert!(
                answer.headers().contains_key("x-correlation-id") && answer.headers().contains_key("www-authenticate")
            );
            let envelope: Value = answer.json().await.expect("JSON");
            assert_eq!(envelope["code"], code);
            assert!(envelope["hint"].as_str().is_some_and(|hint| hint.contains("AUTH_TOKEN")), "{envelope}");
        }
        let status = get(path, Some(TOKEN)).await.status();
        assert_eq!(status, if path == "/nowhere" { 404 } else { 200 }, "{path}");
    }
    assert_eq!(daemon.post("/v1/tasks", &task("x", 1)).await.status(), 401);
    for path in ["/healthz", "/readyz"] {
        assert_eq!(get(path, None).await.status(), 200, "{path}");
    }
    assert!(!daemon.log().contains(TOKEN), "AUTH-1008: the token is in no log line");
}

/// C3 of the requirements: `AUTH_OPTIONAL=true` lets loopback in; false keeps it out even without a token to compare.
#[tokio::test]
async fn auth_optional_is_about_loopback() {
    let engine = start_engine(&[]);
    let cases: [(&[(&str, &str)], u16); 4] = [
        (&[], 200),
        (&[("AUTH_OPTIONAL", "false")], 401),
        (&[("AUTH_TOKEN", TOKEN), ("AUTH_OPTIONAL", "true")], 200),
        (&[("AUTH_TOKEN", TOKEN), ("AUTH_OPTIONAL", "false")], 401),
    ];
    for (environment, status) in cases {
        let daemon = Daemon::start_with(&config(engine.url(), ""), environment).await;
        assert_eq!(daemon.get("/v1/pools").await.status(), status, "{environment:?}");
    }
}

/// DESIGN section 8: a web page must not reach us by DNS rebinding.
#[tokio::test]
async fn a_foreign_host_is_refused_on_loopback() {
    let engine = start_engine(&[]);
    let daemon = Daemon::before(&engine, "").await;
    let port = daemon.addr().port();
    for (host, status) in [
        (format!("localhost:{port}"), 200),
        (format!("127.0.0.1:{port}"), 200),
        (format!("[::1]:{port}"), 200),
        (format!("evil.example:{port}"), 403),
        ("evil.example".to_owned(), 403),
    ] {
        let answer = daemon.http().get(daemon.url("/v1/pools")).header("host", &host).send().await.expect("an answer");
        assert_eq!(answer.status(), status, "{host}");
        if status == 403 {
            assert_eq!(answer.json::<Value>().await.expect("JSON")["code"], json!(40302));
        }
    }
}
