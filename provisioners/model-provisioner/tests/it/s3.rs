//! Objects of S3.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use catalog_core::{Digest, FetchError};
use config_schema::OutboundMode;

use crate::secrets::{fetch, fetch_as, until_it_is_there};
use crate::servers::cutter::Cutter;
use crate::servers::s3::{KEY, S3Server, SECRET, TEMPORARY};
use crate::support::{Asker, Setup, SmallDisk, content};

fn account(port: u16) -> Setup {
    S3Server::setup(port, &[KEY, SECRET])
}

/// ORCH-3090: an object, with and without credentials; what is here is not fetched again.
#[tokio::test]
async fn one_object() {
    let Some(server) = S3Server::start().await else { return };
    server.make_bucket("models").await;
    let bytes = content(1, 300_000);
    server.put("models", "llm/ä b+c&d=1%41 (x)/mödel.gguf", &bytes, &[]).await;
    let setup = account(server.port);
    let reference = "s3://models/llm/ä b+c&d=1%41 (x)/mödel.gguf";
    let fetched = fetch(&setup, reference).await.expect("it is there");
    assert_eq!(fetched.local_path, setup.dir().join("s3/models/llm/ä b+c&d=1%41 (x)/mödel.gguf"));
    assert_eq!(std::fs::read(&fetched.local_path).expect("a file"), bytes);
    assert_eq!((fetched.files[0].size_bytes, &fetched.files[0].digest), (300_000, &Digest::of(&bytes)));
    assert_eq!(fetched.transferred_bytes, 300_000);
    let url = fetched.source_url.expect("a URL");
    assert!(url.ends_with("/models/llm/%C3%A4%20b%2Bc%26d%3D1%2541%20%28x%29/m%C3%B6del.gguf"), "{url}");

    assert_eq!(fetch(&setup, reference).await.expect("it is here").transferred_bytes, 0);

    for credentials in [&TEMPORARY[..], &[]] {
        server.put("models", "public.gguf", &bytes, &[("x-amz-acl", "public-read")]).await;
        let setup = S3Server::setup(server.port, credentials);
        let fetched = fetch(&setup, "s3://models/public.gguf").await.expect("anybody may read it");
        assert_eq!(std::fs::read(&fetched.local_path).expect("a file"), bytes);
    }
}

/// ORCH-3090: all objects below a folder, over several pages of the list.
#[tokio::test]
async fn a_folder() {
    let Some(server) = S3Server::start().await else { return };
    server.make_bucket("models").await;
    let mut expected = Vec::new();
    for number in 0..25 {
        let name = format!("part {}/weights+{number:02}.safetensors", number % 3);
        server.put("models", &format!("llm/{name}"), &content(number, 1000), &[]).await;
        expected.push(format!("s3/models/llm/{name}"));
    }
    expected.sort();
    server.put("models", "llm/", b"", &[]).await;
    server.put("models", "llm/empty/", b"", &[]).await;
    server.put("models", "llm-other/x", b"x", &[]).await;
    let setup = account(server.port);
    let fetched = fetch(&setup, "s3://models/llm/").await.expect("they are there");
    assert_eq!(fetched.local_path, setup.dir().join("s3/models/llm"));
    assert_eq!(setup.files(), expected);
    for (number, file) in fetched.files.iter().map(|file| (&file.name[file.name.len() - 14..][..2], file)) {
        let bytes = content(number.parse().expect("a number"), 1000);
        assert_eq!(file.digest, Digest::of(&bytes), "{}", file.name);
        assert_eq!(std::fs::read(fetched.local_path.join(&file.name)).expect("a file"), bytes);
    }
    assert_eq!(fetch(&setup, "s3://models/llm/").await.expect("they are here").transferred_bytes, 0);
}

/// LO-MOD-06: 100 cuts within one fetch, and 20 that each end a fetch: what is here is kept, and the file is whole.
#[tokio::test]
async fn cuts() {
    let Some(server) = S3Server::start().await else { return };
    server.make_bucket("models").await;
    let bytes = content(2, 1 << 20);
    server.put("models", "m.gguf", &bytes, &[]).await;

    let line = Cutter::before(server.port, 3, 100, 16_000).await;
    let setup = Setup { retries: 200, ..account(line.port) };
    let fetched = fetch(&setup, "s3://models/m.gguf").await.expect("it goes on");
    assert_eq!((line.left(), fetched.transferred_bytes), (0, bytes.len() as u64), "nothing came twice");
    assert!(std::fs::read(&fetched.local_path).expect("a file") == bytes);

    let line = Cutter::before(server.port, 4, 20, 64_000).await;
    let setup = Setup { retries: 0, ..account(line.port) };
    let fetched = until_it_is_there(&setup, "s3://models/m.gguf", &line).await;
    assert!(std::fs::read(&fetched).expect("a file") == bytes);
    assert_eq!(setup.files(), ["s3/models/m.gguf"]);
}

/// LO-MOD-06, ORCH-3703: an object that is replaced while it is fetched never gives a mixture.
#[tokio::test]
async fn a_replaced_object() {
    let Some(server) = S3Server::start().await else { return };
    server.make_bucket("models").await;
    let (old, new) = (content(5, 200_000), content(6, 200_000));
    for expected in [None, Some(Digest::of(&old)), Some(Digest::of(&new))] {
        server.put("models", "m.gguf", &old, &[]).await;
        let line = Cutter::before(server.port, 7, 2, 100_000).await;
        let setup = Setup { retries: 0, ..account(line.port) };
        fetch_as(&setup, "s3://models/m.gguf", expected.as_ref(), &Asker::operator()).await.expect_err("it is cut");
        server.put("models", "m.gguf", &new, &[]).await;
        let setup = Setup { retries: 5, ..setup };
        match fetch_as(&setup, "s3://models/m.gguf", expected.as_ref(), &Asker::operator()).await {
            Ok(fetched) => {
                assert_ne!(expected, Some(Digest::of(&old)));
                assert!(std::fs::read(&fetched.local_path).expect("a file") == new);
            }
            Err(FetchError::Digest { found, .. }) => {
                assert_eq!((expected, found), (Some(Digest::of(&old)), Digest::of(&new)));
                assert_eq!(setup.files(), [""; 0]);
            }
            Err(error) => panic!("{error}"),
        }
    }
}

/// ORCH-3703: an object that is not what it was uploaded as is not kept.
#[tokio::test]
async fn a_checksum() {
    let Some(server) = S3Server::start().await else { return };
    server.make_bucket("models").await;
    // The SHA-256 of nothing, and of `model`.
    let (wrong, right) = ("47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=", checksum(b"model"));
    for (name, checksum, is_kept) in [("wrong", wrong, false), ("right", &right, true)] {
        let headers = [("x-amz-checksum-sha256", checksum), ("x-amz-sdk-checksum-algorithm", "SHA256")];
        server.put("models", name, b"model", &headers).await;
        let setup = account(server.port);
        match fetch(&setup, &format!("s3://models/{name}")).await {
            Ok(_) => assert!(is_kept),
            Err(FetchError::Digest { expected, .. }) => {
                assert!(!is_kept && expected == Digest::of(b""));
                assert_eq!(setup.files(), [""; 0]);
            }
            Err(error) => panic!("{error}"),
        }
    }
}

fn checksum(bytes: &[u8]) -> String {
    let hex = Digest::of(bytes).hex().to_owned();
    let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex digits");
    STANDARD.encode((0..64).step_by(2).map(byte).collect::<Vec<_>>())
}

/// LO-MOD-05: nothing is asked for that the policy does not let out.
#[tokio::test]
async fn policies() {
    let Some(server) = S3Server::start().await else { return };
    server.make_bucket("models").await;
    server.put("models", "m.gguf", b"model", &[]).await;
    for (mode, allow, asker, key) in [
        (OutboundMode::Deny, &[][..], Asker::operator(), "policy.outbound.mode"),
        (OutboundMode::Configured, &[], Asker::client(), "[[catalog.models]]"),
        (OutboundMode::Allowlist, &["elsewhere.example"], Asker::operator(), "policy.outbound.allow"),
        (OutboundMode::Allow, &[], Asker::client(), "policy.outbound.allow"),
    ] {
        let setup = account(server.port).outbound(mode, allow);
        match fetch_as(&setup, "s3://models/m.gguf", None, &asker).await {
            Err(FetchError::Denied(text)) => assert!(text.contains(key), "{mode}: {text}"),
            other => panic!("{mode}: {other:?}"),
        }
        assert_eq!(setup.files(), [""; 0]);
    }
    let setup = account(server.port).outbound(OutboundMode::Allowlist, &["127.0.0.1"]);
    fetch_as(&setup, "s3://models/m.gguf", None, &Asker::client()).await.expect("it is listed");
}

/// ORCH-3091: what is not there, and what there is no room for, is said so.
#[tokio::test]
async fn missing_and_too_large() {
    let Some(server) = S3Server::start().await else { return };
    server.make_bucket("models").await;
    server.put("models", "llm/m.gguf", &content(8, 1000), &[]).await;
    let setup = account(server.port);
    for (reference, why) in [
        ("s3://models/missing.gguf", "no such object"),
        ("s3://models/llm", "no such object"),
        ("s3://models/missing/", "no objects"),
        ("s3://missing/m.gguf", "no such bucket"),
        ("s3://missing/llm/", "no such bucket"),
    ] {
        match fetch(&setup, reference).await {
            Err(FetchError::NotFound(text)) => assert!(text.contains(reference) && text.contains(why), "{text}"),
            other => panic!("{reference}: {other:?}"),
        }
    }
    let setup = Setup { disk: Some(SmallDisk::shared(999)), ..setup };
    for reference in ["s3://models/llm/m.gguf", "s3://models/llm/"] {
        match fetch(&setup, reference).await {
            Err(FetchError::NoSpace { needed_bytes: 1000, free_bytes: 999, .. }) => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(setup.files(), [""; 0]);
}

/// LO-MOD-03: refused credentials are not shown, and the variable to change is named.
#[tokio::test]
async fn wrong_credentials() {
    let Some(server) = S3Server::start().await else { return };
    server.make_bucket("models").await;
    server.put("models", "llm/m.gguf", b"model", &[]).await;
    for (credentials, variable) in [
        (&["AKIAUNHEARDOF", SECRET][..], "AWS_ACCESS_KEY_ID is not known"),
        (&[KEY, "another/secret"], "AWS_SECRET_ACCESS_KEY does not belong"),
        (&[KEY], "AWS_ACCESS_KEY_ID is set and AWS_SECRET_ACCESS_KEY is not"),
        (&[TEMPORARY[0], TEMPORARY[1]], "AWS_SESSION_TOKEN"),
        (&[TEMPORARY[0], TEMPORARY[1], "old"], "AWS_SESSION_TOKEN"),
    ] {
        for reference in ["s3://models/llm/m.gguf", "s3://models/llm/"] {
            let setup = S3Server::setup(server.port, credentials);
            match fetch(&setup, reference).await {
                Err(FetchError::Unauthorized(text)) => assert!(text.contains(variable), "{text}"),
                other => panic!("{credentials:?}: {other:?}"),
            }
        }
    }
    let setup = S3Server::setup(server.port, &[]);
    match fetch(&setup, "s3://models/llm/m.gguf").await {
        Err(FetchError::Unauthorized(text)) => assert!(text.contains("set AWS_ACCESS_KEY_ID"), "{text}"),
        other => panic!("{other:?}"),
    }
    let setup =
        Setup::new().env("AWS_REGION", "us-east-1").env("AWS_ACCESS_KEY_ID", KEY).env("AWS_SECRET_ACCESS_KEY", SECRET);
    let setup = setup.env("AWS_ENDPOINT_URL", format!("http://127.0.0.1:{}", server.port));
    match fetch(&setup, "s3://models/llm/m.gguf").await {
        Err(FetchError::Unsupported(text)) => assert!(text.contains("AWS_REGION=eu-west-1"), "{text}"),
        other => panic!("{other:?}"),
    }
}

/// LO-CAT-10: an object whose name leads elsewhere spoils its folder, and nothing of it is fetched.
#[tokio::test]
async fn names_that_lead_elsewhere() {
    let Some(server) = S3Server::start().await else { return };
    server.make_bucket("models").await;
    let names = ["../x", "a/../../x", "a//x", "/etc/x", "a\\x", "a/./x", "x\u{1}y", "m.gguf.part", "m.part.json"];
    for (number, name) in names.iter().enumerate() {
        server.put("models", &format!("{number}/good"), b"good", &[]).await;
        server.put_raw("models", &format!("{number}/{name}"), b"bad").await;
        let setup = account(server.port);
        match fetch(&setup, &format!("s3://models/{number}/")).await {
            Err(FetchError::Unsupported(text)) => assert!(text.contains("not a plain path"), "{text}"),
            other => panic!("{name}: {other:?}"),
        }
        assert_eq!(setup.files(), [""; 0]);
    }
    server.put("models", "both/a", b"file", &[]).await;
    server.put("models", "both/a/b", b"in a folder of that name", &[]).await;
    match fetch(&account(server.port), "s3://models/both/").await {
        Err(FetchError::Unsupported(text)) => assert!(text.contains("a file and a folder"), "{text}"),
        other => panic!("{other:?}"),
    }
}
