//! What the relay answers itself.

use std::sync::Arc;

use api_types::PoolId;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::super::Shared;
use crate::logs::Followed;

/// Lines when nobody says how many, and at most.
const LINES: usize = 200;
const LINES_MAX: usize = 100_000;

/// Sends what a pool's engine has written, and with `follow` what it writes, until the peer leaves.
pub(super) async fn logs(shared: &Arc<Shared>, client: &mut TcpStream, pool: &str, lines: Option<usize>, follow: bool) {
    let log = shared.lives.present().and_then(|life| life.manager.log(&PoolId::from(pool)).cloned());
    let Some(log) = log else {
        let _ = client.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").await;
        return;
    };
    let head = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain; charset=utf-8\r\nconnection: close\r\n\r\n";
    if client.write_all(head).await.is_err() {
        return;
    }
    let lines = lines.unwrap_or(LINES).min(LINES_MAX);
    if !follow {
        let text: String = log.lines(lines).await.iter().map(|line| format!("{line}\n")).collect();
        let _ = client.write_all(text.as_bytes()).await;
        let _ = client.shutdown().await;
        return;
    }
    let mut follower = log.follow(lines);
    // The life may end while somebody follows.
    drop(log);
    let mut nothing = [0; 64];
    loop {
        let followed = tokio::select! {
            followed = follower.next() => followed,
            read = client.read(&mut nothing) => match read {
                Ok(0) | Err(_) => None,
                Ok(_) => continue,
            },
        };
        let Some(followed) = followed else { return };
        let line = match followed {
            Followed::Line(line) => format!("{line}\n"),
            Followed::Missed(count) => format!("--- {count} lines were missed: they came faster than they were read\n"),
        };
        if client.write_all(line.as_bytes()).await.is_err() {
            return;
        }
    }
}

/// What preparing a pool's engine takes: a status and JSON.
pub(super) fn plan(shared: &Arc<Shared>, pool: &str) -> (&'static str, Vec<u8>) {
    let refused = |status, message: String| (status, serde_json::json!({"error": message}).to_string().into_bytes());
    let Some(life) = shared.lives.present() else {
        return refused("404 Not Found", "the host has not taken on its pools yet".to_owned());
    };
    let Some(config) = life.config.pools.iter().find(|config| config.id.as_str() == pool) else {
        return refused("404 Not Found", "the host does not run such a pool".to_owned());
    };
    match life.manager.plan(config) {
        Ok(plan) => ("200 OK", serde_json::to_vec(&plan).unwrap_or_default()),
        Err(failure) => refused("422 Unprocessable Content", failure.to_string()),
    }
}
