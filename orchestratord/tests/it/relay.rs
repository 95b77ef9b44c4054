//! A hop between the daemon and an engine that notes what is asked, and may lie about the engine's version.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use mock::process::MockEngineProcess;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// What the simulated engine says of its version, and what a disguised one says, letter for letter as long.
const VERSION: &str = "b0-mock";
const OTHER_VERSION: &str = "b1-mock";

/// The hop; it goes with the test that made it.
pub(crate) struct Relay {
    url: String,
    prompts: Prompts,
    serving: JoinHandle<()>,
}

/// The prompts of all requests for generation, in the order in which the engine got them.
#[derive(Clone, Default)]
pub(crate) struct Prompts(Arc<Mutex<Vec<String>>>);

impl Relay {
    /// A hop that changes nothing.
    pub(crate) async fn before(engine: &MockEngineProcess) -> Self {
        Self::start(engine, false).await
    }

    /// A hop behind which the engine seems to be of another version.
    pub(crate) async fn disguising(engine: &MockEngineProcess) -> Self {
        Self::start(engine, true).await
    }

    async fn start(engine: &MockEngineProcess, disguised: bool) -> Self {
        let engine: SocketAddr = engine.url().trim_start_matches("http://").parse().expect("an address");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let prompts = Prompts::default();
        let noted = prompts.clone();
        let serving = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(connect(client, engine, noted.clone(), disguised));
            }
        });
        Self { url, prompts, serving }
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    pub(crate) fn prompts(&self) -> &Prompts {
        &self.prompts
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Prompts {
    pub(crate) fn all(&self) -> Vec<String> {
        self.0.lock().expect("no holder panics").clone()
    }

    /// How often the engine was asked this.
    pub(crate) fn count(&self, prompt: &str) -> usize {
        self.0.lock().expect("no holder panics").iter().filter(|asked| *asked == prompt).count()
    }

    /// Notes the prompts in what was sent so far and keeps what is still incomplete.
    fn note(&self, sent: &mut String) {
        const START: &str = "\"prompt\":\"";
        while let Some(start) = sent.find(START).map(|at| at + START.len()) {
            let Some(length) = sent[start..].find('"') else { return };
            self.0.lock().expect("no holder panics").push(sent[start..start + length].to_owned());
            sent.drain(..start + length);
        }
    }
}

/// Carries one connection, until either side ends it.
async fn connect(client: TcpStream, engine: SocketAddr, prompts: Prompts, disguised: bool) {
    let Ok(engine) = TcpStream::connect(engine).await else { return };
    for stream in [&client, &engine] {
        stream.set_nodelay(true).expect("a socket takes it");
    }
    let ((from_client, to_client), (from_engine, to_engine)) = (client.into_split(), engine.into_split());
    let mut sent = String::new();
    let up = carry(from_client, to_engine, |bytes| {
        sent.push_str(&String::from_utf8_lossy(bytes));
        prompts.note(&mut sent);
        bytes.to_vec()
    });
    let down = carry(from_engine, to_client, |bytes| match disguised {
        true => String::from_utf8_lossy(bytes).replace(VERSION, OTHER_VERSION).into_bytes(),
        false => bytes.to_vec(),
    });
    tokio::select! {
        () = up => {}
        () = down => {}
    }
}

async fn carry(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut pass: impl FnMut(&[u8]) -> Vec<u8>) {
    let mut buffer = vec![0; 1 << 16];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        if to.write_all(&pass(&buffer[..length])).await.is_err() {
            return;
        }
    }
}
