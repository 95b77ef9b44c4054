//! Mode `binary`: verified, unpacked, installed.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};

use api_types::PoolFault;
use config_schema::{Outbound, Pool};
use engine_provisioner::StepKind;

use crate::support::{Place, denied, digest, file_url, pool};

fn binary_pool(engine: &str, url: &str, sum: &str) -> Pool {
    pool(engine, &format!("mode = \"binary\"\n[provisioning.binary]\nurl = \"{url}\"\nchecksum = \"{sum}\""))
}

/// An archive with a program and its library below a folder.
fn archive(place: &Place, name: &str) -> PathBuf {
    place.program("files/build/bin/llama-server", "echo 'version: 6891 (1a2b3c4d)' >&2");
    place.write("files/build/bin/libggml-cuda.so", "library");
    let path = place.at(name);
    let out = fs::File::create(&path).expect("created");
    let mut tar = tar::Builder::new(flate2::write::GzEncoder::new(out, flate2::Compression::fast()));
    tar.append_dir_all(".", place.at("files")).expect("packed");
    tar.into_inner().and_then(flate2::write::GzEncoder::finish).expect("packed");
    path
}

/// LO-ENG-12, ORCH-3441: an archive with the right checksum becomes an engine; with another nothing of it is kept. The second time
/// nothing is done, although the archive is gone; a program that was changed is noticed.
#[tokio::test]
async fn an_archive_is_installed_once() {
    let place = Place::without_cuda();
    let path = archive(&place, "llama.tar.gz");
    let (error, _) =
        place.ensure(&binary_pool("llamacpp", &file_url(&path), &format!("sha256:{}", "0".repeat(64)))).await;
    assert_eq!(error.expect_err("it is another file").fault(), PoolFault::FetchFailed);
    assert!(place.cached("llamacpp").is_empty() && place.entries().is_empty());

    let pool = binary_pool("llamacpp", &file_url(&path), digest(&path).as_str());
    let (engine, kept) = place.ensure(&pool).await;
    let engine = engine.expect("it is installed");
    assert_eq!(kept.steps(), [StepKind::Download, StepKind::Unpack, StepKind::Version, StepKind::Register]);
    assert_eq!((engine.engine_version.as_str(), engine.build_ref.as_deref()), ("6891", Some("1a2b3c4d")));
    let program = engine.binary_path().expect("a program");
    assert!(program.ends_with("build/bin/llama-server") && engine.workdir.join("libggml-cuda.so").exists());
    assert_eq!(place.entries()[0].digest, engine.engine_digest);

    fs::remove_file(&path).expect("removed");
    let (again, kept) = place.ensure(&pool).await;
    assert_eq!(again.expect("it is here"), engine);
    assert_eq!(kept.steps(), []);
    // The same content at another time is read once and believed again; other content is not.
    let content = fs::read(program).expect("a program");
    fs::write(program, &content).expect("written");
    let (again, kept) = place.ensure(&pool).await;
    again.expect("it is the same");
    assert_eq!(kept.steps(), []);
    fs::write(program, "#!/bin/sh\nexit 1\n").expect("written");
    let (error, kept) = place.ensure(&pool).await;
    assert_eq!(error.expect_err("the archive is gone").fault(), PoolFault::FetchFailed);
    assert_eq!(kept.steps(), [StepKind::Download]);
}

/// A plain program is taken whatever its name; one that does not run, or is of another version, is refused with a remedy.
#[tokio::test]
async fn a_plain_program() {
    let place = Place::without_cuda();
    let good = place.program("engine-of-somebody", "echo mock-engine 0.1.0");
    let mut pool = binary_pool("mock", &file_url(&good), digest(&good).as_str());
    let (engine, _) = place.ensure(&pool).await;
    assert_eq!(engine.expect("it is installed").engine_version, "0.1.0");
    pool.provisioning.version = Some("0.2.0".to_owned());
    let (error, _) = place.ensure(&pool).await;
    let error = error.expect_err("it is 0.1.0");
    assert_eq!(error.fault(), PoolFault::Unsupported);
    assert!(error.to_string().contains("0.1.0") && error.to_string().contains("0.2.0"), "{error}");

    let bad = place.program(
        "bad",
        "echo 'error while loading shared libraries: libcudart.so.12: cannot open shared object file' >&2; exit 127",
    );
    let (error, _) = place.ensure(&binary_pool("llamacpp", &file_url(&bad), digest(&bad).as_str())).await;
    let error = error.expect_err("it does not run");
    assert_eq!(error.fault(), PoolFault::NoCuda, "{error}");
    assert!(error.fix().is_some());
}

/// An archive without the engine's program, and one that leads outside, are refused, and leave nothing.
#[tokio::test]
async fn what_does_not_do_is_refused() {
    let place = Place::without_cuda();
    place.write("files/readme", "text");
    let path = archive(&place, "llama.tar.gz");
    let (error, _) = place.ensure(&binary_pool("vllm", &file_url(&path), digest(&path).as_str())).await;
    assert!(error.expect_err("there is no vllm").to_string().contains("vllm"));
    let text = place.write("broken.zip", "PK\u{3}\u{4} and no more");
    let (error, _) = place.ensure(&binary_pool("llamacpp", &file_url(&text), digest(&text).as_str())).await;
    assert_eq!(error.expect_err("it is no archive").fault(), PoolFault::FetchFailed);
    assert!(place.entries().is_empty() && place.cached("llamacpp").is_empty() && place.cached("vllm").is_empty());
}

/// LO-ENG-12: without permission no program is used, and none is asked for.
#[tokio::test]
async fn programs_must_be_allowed() {
    let place = Place::with_outbound(&Outbound::default());
    let path = archive(&place, "llama.tar.gz");
    let mut pool = binary_pool("llamacpp", &file_url(&path), digest(&path).as_str());
    let (error, kept) = place.ensure(&pool).await;
    let error = error.expect_err("it is not allowed");
    assert_eq!((error.fault(), kept.steps().len()), (PoolFault::NotAllowed, 0));
    assert!(error.fix().is_some_and(|fix| fix.contains("allow_binary_downloads")));
    pool.provisioning.allow_binary_downloads = Some(true);
    let (engine, _) = place.ensure(&pool).await;
    engine.expect("this pool may");
}

/// Serves one file, and says on which connections it was asked.
fn serve(path: &Path) -> (u16, std::thread::JoinHandle<usize>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let content = fs::read(path).expect("a file");
    let serving = std::thread::spawn(move || {
        let mut asked = 0;
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            let mut request = Vec::new();
            let mut byte = [0];
            while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|length| length > 0) {
                request.push(byte[0]);
            }
            let request = String::from_utf8_lossy(&request).into_owned();
            if request.starts_with("GET /stop") {
                return asked;
            }
            asked += 1;
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", content.len());
            let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&content));
        }
        asked
    });
    (port, serving)
}

fn asked(port: u16, serving: std::thread::JoinHandle<usize>) -> usize {
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).expect("it serves");
    stream.write_all(b"GET /stop HTTP/1.1\r\n\r\n").expect("written");
    serving.join().expect("it served")
}

/// ORCH-3206: what is not on this machine comes through the gate to the network: once, or not at all.
#[tokio::test]
async fn programs_come_through_the_gate() {
    let allowed = Place::without_cuda();
    let path = archive(&allowed, "llama.tar.gz");
    let (port, serving) = serve(&path);
    let pool = binary_pool("llamacpp", &format!("http://127.0.0.1:{port}/llama.tar.gz"), digest(&path).as_str());
    let (engine, kept) = allowed.ensure(&pool).await;
    engine.expect("it is installed");
    assert_eq!(kept.shares().last(), Some(&1.0));
    let (_, kept) = allowed.ensure(&pool).await;
    assert_eq!(kept.steps(), []);
    let left = fs::read_dir(allowed.at("cache/llamacpp/.fetch/downloads/http")).into_iter().flatten().count();
    assert!(left <= 1, "the archive is not kept");
    let refused = Place::with_outbound(&Outbound { allow_binary_downloads: true, ..denied() });
    let (error, _) = refused.ensure(&pool).await;
    assert_eq!(error.expect_err("nothing may be fetched").fault(), PoolFault::NotAllowed);
    // Once to look, once to fetch.
    assert_eq!(asked(port, serving), 2);
}
