//! A model that the configuration names and that is not here.

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::{is_whole, on_demand};
use crate::harness::with;
use crate::managed::bench::{Bench, ManagedPool, until_state};
use crate::managed::model::{self, Model};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
/// As tasks and the configuration name it.
const MODEL: &str = "hf:org/repo/model.gguf";

/// A hub with this one file; its address.
async fn hub(file: Vec<u8>) -> String {
    let oid: String = Sha256::digest(&file).iter().map(|byte| format!("{byte:02x}")).collect();
    let size = file.len();
    let lfs = json!({"oid": oid, "size": size, "pointerSize": 134});
    let tree = json!([{"type": "file", "path": "model.gguf", "size": size, "oid": "git", "lfs": lfs}]);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") && client.read_buf(&mut head).await.is_ok_and(|count| count > 0) {}
            let head = String::from_utf8_lossy(&head);
            let body = match head.split(' ').nth(1).unwrap_or_default() {
                path if path.contains("/revision/") => {
                    json!({"id": "org/repo", "sha": COMMIT}).to_string().into_bytes()
                }
                path if path.contains("/tree/") => tree.to_string().into_bytes(),
                _ => file.clone(),
            };
            let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
            // Who asked for the head alone has gone.
            let _ = client.write_all(&[answer.as_bytes(), &body].concat()).await;
        }
    });
    format!("http://{address}")
}

/// LO-SWP-01, ORCH-3504: the model of an on-demand pool is fetched when the first task asks for it, and its stream says so meanwhile.
#[tokio::test]
async fn a_model_that_is_not_here_is_fetched() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("model.gguf");
    model::write(&file, Model::Layers(64));
    let hub = hub(std::fs::read(&file).expect("the model")).await;
    let fetches = Some(MODEL.to_owned());
    let bench = Bench::new(vec![ManagedPool { model: Model::Missing, fetches, ..on_demand("a", 1) }]);
    let gpus = bench.gpus.env().map(|(name, value)| (name, value.into_string().expect("UTF-8")));
    let mut environment: Vec<(&str, &str)> = gpus.iter().map(|(name, value)| (*name, &**value)).collect();
    environment.push(("HF_ENDPOINT", &hub));
    let daemon = bench.start_with(&environment).await;
    until_state(&daemon, "a", "cold").await;
    let mut stream = daemon.run(&bench.task("a", 4)).await;
    is_whole(&stream.rest().await);
    let models: Value = daemon.json("/v1/catalog/models").await;
    assert!(models.to_string().contains(MODEL), "{models}");
    // By another name than the configured one nobody is served.
    let (status, _) = daemon.refusal(&with(bench.task("a", 4), "model_ref", json!(MODEL))).await;
    assert_eq!(status, 400);
}
