//! The Hub's layout.

use std::sync::Mutex;

use catalog_core::{Digest, FetchError, ModelRef};
use futures_util::StreamExt as _;
use model_provisioner::Peek;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Value, json};

use crate::origin::{Origin, Reply, Seen};
use crate::support::{Asker, Setup, content};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
const TOKEN: &str = "hf_Abcdefghijklmnop";

/// Files of a repository; those with weights are in LFS.
type Files = Vec<(&'static str, Vec<u8>)>;

fn tree(files: &[(&'static str, Vec<u8>)]) -> Value {
    let item = |(path, bytes): &(&str, Vec<u8>)| {
        let mut item =
            json!({"type": "file", "path": path, "size": bytes.len(), "oid": format!("git-{}", bytes.len())});
        if path.ends_with("gguf") || path.ends_with("safetensors") {
            item["lfs"] = json!({"oid": Digest::of(bytes).hex(), "size": bytes.len(), "pointerSize": 134});
        }
        item
    };
    json!(files.iter().map(item).chain([json!({"type": "directory", "path": "dir", "oid": "x"})]).collect::<Vec<_>>())
}

/// A hub, and the host that it delivers from, which knows no token.
async fn hub(files: Files) -> (Origin, Origin) {
    hub_with(files, |reply| reply).await
}

/// [`hub`] whose delivery does something to what it sends.
async fn hub_with(files: Files, deliver: impl Fn(Reply) -> Reply + Send + Sync + 'static) -> (Origin, Origin) {
    let delivered = files.clone();
    let delivery = Origin::start(move |seen| {
        let path = seen.path.split('?').next().unwrap_or_default().trim_start_matches('/');
        match delivered.iter().find(|(name, _)| *name == path) {
            _ if seen.header("authorization").is_some() => Reply::new(400, "credentials"),
            Some((_, bytes)) => deliver(Reply::file(seen, bytes, "\"e\"")),
            None => Reply::new(404, ""),
        }
    })
    .await;
    let to = delivery.named_url("http", "");
    let hub = Origin::start(move |seen| answer(seen, &files, &to)).await;
    (hub, delivery)
}

fn answer(seen: &Seen, files: &Files, delivery: &str) -> Reply {
    if seen.header("authorization") != Some(&format!("Bearer {TOKEN}")) {
        return Reply::new(401, "").with("x-error-code", "GatedRepo");
    }
    let (api, resolve) = ("/api/models/org/repo", format!("/org/repo/resolve/{COMMIT}/"));
    let (path, query) = seen.path.split_once('?').unwrap_or((&seen.path, ""));
    if path == format!("{api}/revision/main") || path == format!("{api}/revision/refs%2Fpr%2F1") {
        return Reply::json(&json!({"id": "org/repo", "sha": COMMIT}));
    }
    if path == format!("{api}/tree/{COMMIT}") {
        // Two pages.
        let half = files.len() / 2;
        return match query.contains("cursor") {
            true => Reply::json(&tree(&files[half..])),
            false => Reply::json(&tree(&files[..half]))
                .with("link", format!("<{api}/tree/{COMMIT}?recursive=true&cursor=x>; rel=\"next\"")),
        };
    }
    match path.strip_prefix(&resolve) {
        Some(name) if name.ends_with("gguf") || name.ends_with("safetensors") => {
            Reply::redirect(format!("{delivery}/{name}?X-Amz-Signature=c2ln"))
        }
        Some(name) => match files.iter().find(|(known, _)| *known == name) {
            Some((_, bytes)) => Reply::file(seen, bytes, "\"small\""),
            None => Reply::new(404, "").with("x-error-code", "EntryNotFound"),
        },
        None if path.starts_with(api) => Reply::new(404, "").with("x-error-code", "RevisionNotFound"),
        None => Reply::new(404, "").with("x-error-code", "RepoNotFound"),
    }
}

fn setup(hub: &Origin) -> Setup {
    // The delivery host is another one: it has to be known.
    Setup::new()
        .outbound(config_schema::OutboundMode::Configured, &["localhost"])
        .env("HF_ENDPOINT", hub.url(""))
        .env("HF_TOKEN", TOKEN)
}

fn names(files: &[catalog_core::StoredFile]) -> Vec<&str> {
    files.iter().map(|file| file.name.as_str()).collect()
}

/// ORCH-3435, ORCH-3090: a whole repository comes at one commit, files side by side, without what repeats its weights, and the
/// token goes to the hub alone.
#[tokio::test]
async fn a_repository() {
    let (hub, delivery) = hub(vec![
        (".gitattributes", b"x".to_vec()),
        ("config.json", b"{}".to_vec()),
        ("dir/model-00001-of-00002.safetensors", content(1, 60_000)),
        ("dir/model-00002-of-00002.safetensors", content(2, 50_000)),
        ("pytorch_model.bin", content(3, 110_000)),
        ("tokenizer.json", content(4, 9_000)),
    ])
    .await;
    let setup = setup(&hub);
    let asker = Asker::operator();
    let fetched = setup.fetch_as("hf:org/repo", None, &asker).await.unwrap();
    let wanted = [
        "config.json",
        "dir/model-00001-of-00002.safetensors",
        "dir/model-00002-of-00002.safetensors",
        "tokenizer.json",
    ];
    assert_eq!(names(&fetched.files), wanted);
    assert_eq!(fetched.local_path, setup.dir().join("hf/org/repo"));
    assert_eq!(setup.files(), wanted.map(|name| format!("hf/org/repo/{name}")));
    assert_eq!(*asker.progress.planned.lock().unwrap(), Some((4, Some(119_002))));
    assert_eq!(asker.progress.net(), 119_002);
    assert!(fetched.source_url.unwrap().ends_with(&format!("/org/repo@{COMMIT}")));
    assert_eq!(delivery.transfers(), 2);

    // Of what is here nothing comes again, also for another reference to a part of it.
    let again = setup.fetch("hf:org/repo/dir/model-00001-of-00002.safetensors").await.unwrap();
    assert_eq!((again.transferred_bytes, names(&again.files)), (0, vec!["model-00001-of-00002.safetensors"]));
    assert_eq!(setup.fetch("hf:org/repo").await.unwrap().transferred_bytes, 0);

    // Several files have one digest together.
    let digest = catalog_core::CatalogEntry::manifest_digest(&fetched.files).unwrap();
    assert!(setup.fetch_as("hf:org/repo", Some(&digest), &asker).await.is_ok());
}

/// LO-MOD-06: the delivery breaks off anywhere, 100 times, through the redirect and with the fetch begun anew again and again: the
/// files are whole in the end and no byte came twice.
#[tokio::test]
async fn a_repository_in_pieces() {
    let cuts = |seed: u64| async move {
        let parts = [content(seed, 40_000), content(seed + 1000, 30_000)];
        let files = vec![("a.safetensors", parts[0].clone()), ("b.safetensors", parts[1].clone())];
        let random = Mutex::new(StdRng::seed_from_u64(seed));
        let (hub, delivery) = hub_with(files, move |reply| {
            let at = random.lock().unwrap().random_range(0..=reply.body.len());
            if at < reply.body.len() / 2 { reply.cut(at) } else { reply }
        })
        .await;
        let mut setup = setup(&hub);
        setup.retries = 1;
        let asker = Asker::operator();
        let fetched = loop {
            match setup.fetch_as("hf:org/repo", None, &asker).await {
                Ok(fetched) => break fetched,
                Err(FetchError::Source(_)) => {}
                Err(error) => panic!("seed {seed}: {error}"),
            }
        };
        for (name, bytes) in ["a.safetensors", "b.safetensors"].iter().zip(&parts) {
            assert!(std::fs::read(fetched.local_path.join(name)).unwrap() == *bytes, "seed {seed}: {name}");
        }
        assert_eq!((delivery.sent(), asker.progress.lost()), (70_000, 0), "seed {seed}");
    };
    futures_util::stream::iter(0..100).for_each_concurrent(8, cuts).await;
}

/// ORCH-3703: with a digest of all files together, none of them gets its name before it is right.
#[tokio::test]
async fn a_repository_with_another_digest() {
    let (hub, _delivery) = hub(vec![("a.gguf", content(1, 20_000)), ("b.gguf", content(2, 20_000))]).await;
    let setup = setup(&hub);
    let asker = Asker::operator();
    let error = setup.fetch_as("hf:org/repo", Some(&Digest::of(b"other")), &asker).await.unwrap_err();
    assert!(matches!(error, FetchError::Digest { .. }), "{error:?}");
    assert_eq!((setup.files(), asker.progress.net()), (vec![], 0));
}

/// ORCH-3090: one file, all parts of a split one, a folder, a revision.
#[tokio::test]
async fn selections() {
    let (hub, _delivery) = hub(vec![
        ("Q4/m-00001-of-00003.gguf", content(1, 3_000)),
        ("Q4/m-00002-of-00003.gguf", content(2, 3_000)),
        ("Q4/m-00003-of-00003.gguf", content(3, 3_000)),
        ("m-Q8.gguf", content(4, 5_000)),
    ])
    .await;
    let parts = ["m-00001-of-00003.gguf", "m-00002-of-00003.gguf", "m-00003-of-00003.gguf"];
    for (model, files, path) in [
        ("hf:org/repo/m-Q8.gguf", &["m-Q8.gguf"][..], "hf/org/repo/m-Q8.gguf"),
        ("hf:org/repo/m-Q8.gguf@refs/pr/1", &["m-Q8.gguf"], "hf/org/repo@refs%2Fpr%2F1/m-Q8.gguf"),
        ("hf:org/repo/Q4/m-00001-of-00003.gguf", &parts, "hf/org/repo/Q4/m-00001-of-00003.gguf"),
        ("hf:org/repo/Q4", &parts, "hf/org/repo/Q4"),
    ] {
        let setup = setup(&hub);
        let fetched = setup.fetch(model).await.unwrap();
        assert_eq!(names(&fetched.files), files, "{model}");
        assert_eq!(fetched.local_path, setup.dir().join(path), "{model}");
        assert!(fetched.local_path.exists());
    }
    for (model, what) in [
        ("hf:org/repo/other.gguf", "no such file"),
        ("hf:org/repo@other", "no such revision"),
        ("hf:org/other", "no such repository"),
    ] {
        let error = setup(&hub).fetch(model).await.unwrap_err();
        assert!(matches!(&error, FetchError::NotFound(text) if text.contains(what)), "{model}: {error:?}");
    }
}

/// ORCH-3268: without a token the error names the variable to set.
#[tokio::test]
async fn a_gated_repository() {
    let (hub, _delivery) = hub(vec![("m.gguf", content(1, 1_000))]).await;
    let error = Setup::new().env("HF_ENDPOINT", hub.url("")).fetch("hf:org/repo").await.unwrap_err();
    assert!(matches!(&error, FetchError::Unauthorized(text) if text.contains("HF_TOKEN")), "{error:?}");
}

/// LO-CAT-10: a list of files cannot lead out of the model's folder, nor into what is unfinished.
#[tokio::test]
async fn names_that_lead_elsewhere() {
    for name in ["../evil.gguf", "/etc/evil", "a/../../b", "a//b", "a\\b", "a\nb", "m.gguf.part", "x/.."] {
        let (hub, _delivery) = hub(vec![("good.gguf", content(1, 100)), (name, content(2, 100))]).await;
        let setup = setup(&hub);
        let error = setup.fetch("hf:org/repo").await.expect_err(name);
        assert!(matches!(error, FetchError::Unsupported(_)), "{name}: {error:?}");
        assert!(setup.files().is_empty());
    }
}

/// ORCH-3080: the hub's own word does not let a request go to a host that nobody knows.
#[tokio::test]
async fn delivery_from_an_unknown_host() {
    let (hub, delivery) = hub(vec![("m.gguf", content(1, 100))]).await;
    let setup = setup(&hub).outbound(config_schema::OutboundMode::Configured, &[]);
    let error = setup.fetch("hf:org/repo").await.unwrap_err();
    assert!(matches!(&error, FetchError::Denied(text) if text.contains("policy.outbound.allow")), "{error:?}");
    assert!(delivery.seen().is_empty());
}

/// LO-MOD-07: a header is read without fetching the model, as much of it as its reader wants and no more.
#[tokio::test]
async fn a_look_at_the_header() {
    let bytes = content(5, 600_000);
    let (hub, delivery) =
        hub(vec![("m-00001-of-00002.gguf", bytes.clone()), ("m-00002-of-00002.gguf", vec![0; 10])]).await;
    let setup = setup(&hub);
    let model: ModelRef = "hf:org/repo".parse().unwrap();
    let mut seen = Vec::new();
    let mut read = |beginning: &[u8]| {
        seen = beginning.to_vec();
        if beginning.len() < 550_000 { Peek::More(550_000) } else { Peek::Done }
    };
    let peeked = setup.fetcher().peek(&model, &Asker::operator().context, &mut read).await.unwrap();
    assert_eq!(
        (peeked.file.as_str(), peeked.file_bytes, peeked.weights_bytes),
        ("m-00001-of-00002.gguf", Some(600_000), Some(600_010))
    );
    assert!(seen == bytes[..550_000]);
    assert_eq!(delivery.sent(), 550_000);
    assert!(setup.files().is_empty());

    let endless =
        setup.fetcher().peek(&model, &Asker::operator().context, &mut |seen| Peek::More(seen.len() + 1)).await;
    assert!(matches!(endless, Err(FetchError::Unsupported(_))), "{endless:?}");
}

/// ORCH-3701: what is on this machine is looked for there.
#[tokio::test]
async fn local_files_are_not_asked_for() {
    let (hub, _delivery) = hub(vec![]).await;
    let setup = setup(&hub);
    std::fs::write(setup.dir().join("m.gguf"), b"weights").unwrap();
    let fetched = setup.fetch("file:m.gguf").await.unwrap();
    assert_eq!((fetched.local_path, fetched.transferred_bytes), (setup.dir().join("m.gguf"), 0));
    assert!(matches!(setup.fetch("file:other.gguf").await, Err(FetchError::NotFound(_))));
    assert!(hub.seen().is_empty());
}
