//! The control client against scripted answers on a real socket.

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::*;
use crate::test_tls::self_signed;

/// A peer that takes as many requests on its one connection as there are answers; gives the requests.
async fn peer(answers: Vec<String>) -> (Endpoint, JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}/base", listener.local_addr().unwrap()).parse().unwrap();
    let serving = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut requests = Vec::new();
        for answer in answers {
            let mut request = vec![0; 4096];
            let length = stream.read(&mut request).await.unwrap();
            requests.push(String::from_utf8_lossy(&request[..length]).into_owned());
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
        requests
    });
    (endpoint, serving)
}

fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

/// ORCH-3610: one connection for several calls, the key in its header, the prefix before every path.
#[tokio::test]
async fn calls_share_a_connection() {
    let (endpoint, serving) = peer(vec![ok("{\"a\":1}"), ok("{}")]).await;
    let config = ControlConfig { api_key: Some("k".into()), ..ControlConfig::new(endpoint) };
    let control = Control::new(&config).unwrap();
    let answer = control.get("/x", None).await.unwrap();
    assert_eq!((answer.status, answer.json::<Value>().unwrap()), (200, json!({"a": 1})));
    control.post("/y", &json!({"b": 2}), None).await.unwrap();
    let requests = serving.await.unwrap();
    assert!(requests[0].starts_with("GET /base/x HTTP/1.1\r\n"), "{}", requests[0]);
    assert!(requests.iter().all(|request| request.to_lowercase().contains("authorization: bearer k\r\n")));
    assert!(requests[1].starts_with("POST /base/y HTTP/1.1\r\n") && requests[1].ends_with("{\"b\":2}"));
}

/// Redirects could carry the key elsewhere, so they are the caller's to judge.
#[tokio::test]
async fn redirects_are_not_followed() {
    let moved = "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n";
    let (endpoint, _serving) = peer(vec![moved.to_owned()]).await;
    let control = Control::new(&ControlConfig::new(endpoint)).unwrap();
    assert_eq!(control.get("/", None).await.unwrap().status, 302);
}

#[tokio::test]
async fn failures() {
    let endless = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n".to_owned() + &"x".repeat(100);
    let (endpoint, _serving) = peer(vec![endless]).await;
    let config = ControlConfig { max_answer: 99, ..ControlConfig::new(endpoint) };
    let outcome = Control::new(&config).unwrap().get("/", None).await;
    assert!(matches!(outcome, Err(ControlError::TooLarge { limit: 99 })), "{outcome:?}");

    let (endpoint, _serving) = peer(vec!["HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort".to_owned()]).await;
    let outcome = Control::new(&ControlConfig::new(endpoint)).unwrap().get("/", None).await;
    assert!(matches!(outcome, Err(ControlError::Lost(_))), "{outcome:?}");

    let (endpoint, _serving) = peer(vec![String::new(), String::new()]).await;
    let limit = Some(Duration::from_millis(50));
    let outcome = Control::new(&ControlConfig::new(endpoint)).unwrap().get("/", limit).await;
    assert!(matches!(outcome, Err(ControlError::Timeout(_))), "{outcome:?}");

    let dead = ControlConfig::new("unix:/nowhere/engine.sock".parse().unwrap());
    let outcome = Control::new(&dead).unwrap().get("/", None).await;
    assert!(matches!(outcome, Err(ControlError::Connect(_))), "{outcome:?}");

    let answer = Answer { status: 200, body: Bytes::from_static(b"[1") };
    assert!(matches!(answer.json::<Value>(), Err(ControlError::Body("cut short"))));
    assert!(matches!(answer.json::<String>(), Err(ControlError::Body("another shape"))));
    let key = ControlConfig { api_key: Some("a\nb".into()), ..dead };
    assert!(matches!(build_client(&key), Err(ControlError::Setup(_))));
}

/// ORCH-3610, OC-ADAPT-OAI-6021: a certificate that nobody vouches for is refused.
#[tokio::test]
async fn certificates_are_checked() {
    let (acceptor, pem) = self_signed();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint: Endpoint = format!("https://localhost:{}", listener.local_addr().unwrap().port()).parse().unwrap();
    let serving = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        assert!(acceptor.accept(stream).await.is_err());
        let (stream, _) = listener.accept().await.unwrap();
        let mut stream = acceptor.accept(stream).await.unwrap();
        assert!(stream.read(&mut [0; 4096]).await.unwrap() > 0);
        stream.write_all(ok("{}").as_bytes()).await.unwrap();
        stream.flush().await.unwrap();
    });
    let config = ControlConfig::new(endpoint);
    let outcome = Control::new(&config).unwrap().get("/", None).await;
    assert!(matches!(outcome, Err(ControlError::Connect(_))), "{outcome:?}");
    let trusting = ControlConfig { ca_pem: Some(pem), ..config.clone() };
    assert_eq!(Control::new(&trusting).unwrap().get("/", None).await.unwrap().status, 200);
    serving.await.unwrap();
    let no_pem = b"-----BEGIN CERTIFICATE-----\nx".as_slice();
    let no_pem = ControlConfig { ca_pem: Some(no_pem.into()), ..config };
    assert!(matches!(build_client(&no_pem), Err(ControlError::Setup(_))));
}
