//! Which requests leave, and what they carry.

use std::sync::{Arc, Mutex};

use catalog_core::{Digest, FetchError, ModelFetcher};
use config_schema::OutboundMode::{Allow, Allowlist, Configured, Deny};
use model_provisioner::Peek;

use crate::origin::{Origin, Reply};
use crate::support::{Asker, Setup, content};

fn denied(result: Result<impl std::fmt::Debug, FetchError>, key: &str) {
    match result {
        Err(FetchError::Denied(text)) => assert!(text.contains(key), "{text}"),
        other => panic!("{other:?} is no denial"),
    }
}

/// ORCH-3080: by default only what the operator's configuration names is asked for, and nothing that a client names; no
/// request leaves that is denied.
#[tokio::test]
async fn nothing_leaves_unless_allowed() {
    let origin = Origin::start(|seen| Reply::file(seen, b"weights", "\"e\"")).await;
    let url = origin.url("/m.gguf");
    for (mode, allow, asker, key) in [
        (Deny, &["127.0.0.1"][..], Asker::operator(), "policy.outbound.mode"),
        (Configured, &[], Asker::client(), "[[catalog.models]]"),
        (Configured, &["127.0.0.1"], Asker::client(), "[[catalog.models]]"),
        (Allowlist, &["other.example"], Asker::operator(), "policy.outbound.allow"),
        (Allow, &[], Asker::client(), "policy.outbound.allow"),
    ] {
        let setup = Setup::new().outbound(mode, allow);
        denied(setup.fetch_as(&url, None, &asker).await, key);
        let model = url.parse().unwrap();
        let peeked = setup.fetcher().peek(&model, &asker.context, &mut |_| Peek::Done).await;
        denied(peeked, key);
        assert!(setup.files().is_empty());
    }
    assert!(origin.seen().is_empty());
    for (mode, allow, asker) in [
        (Configured, &[][..], Asker::operator()),
        (Allowlist, &["127.0.0.1"], Asker::client()),
        (Allow, &["127.0.0.1"], Asker::client()),
    ] {
        assert!(Setup::new().outbound(mode, allow).fetch_as(&url, None, &asker).await.is_ok());
    }
}

/// ORCH-3080: a name that leads to an address of this machine or network is refused where it is resolved.
#[tokio::test]
async fn names_of_private_addresses() {
    let (origin, pem) = Origin::start_tls(|seen| Reply::file(seen, b"weights", "\"e\"")).await;
    let mut setup = Setup::new().outbound(Allow, &[]);
    setup.ca_pem = Some(pem);
    let url = origin.named_url("https", "/m.gguf");
    denied(setup.fetch_as(&url, None, &Asker::client()).await, "policy.outbound.allow");
    assert!(origin.seen().is_empty());
    // The operator's own word is enough, and the certificate is checked.
    setup = setup.outbound(Configured, &[]);
    assert!(setup.fetch_as(&url, None, &Asker::operator()).await.is_ok());
    setup = Setup::new();
    assert!(matches!(setup.fetch_as(&url, None, &Asker::operator()).await, Err(FetchError::Source(_))));
}

/// ORCH-3080: each hop of a redirect is checked like a request of its own.
#[tokio::test]
async fn redirects_are_checked() {
    let target = Origin::start(|seen| Reply::file(seen, b"weights", "\"e\"")).await;
    let to = Arc::new(Mutex::new(String::new()));
    let shared = Arc::clone(&to);
    let (origin, pem) = Origin::start_tls(move |seen| match seen.path.split('?').next().unwrap_or_default() {
        "/here" => Reply::redirect("/m.gguf"),
        "/loop" => Reply::redirect("loop?again=s3cret"),
        "/nowhere" => Reply::redirect("http://"),
        "/there" => Reply::redirect(shared.lock().unwrap().clone()),
        _ => Reply::file(seen, b"weights", "\"e\""),
    })
    .await;
    let mut setup = Setup::new();
    setup.ca_pem = Some(pem);
    let get = async |path: &str| setup.fetch(&origin.named_url("https", path)).await;
    assert!(get("/here").await.is_ok());
    let error = get("/loop").await.unwrap_err();
    assert!(matches!(&error, FetchError::Source(text) if !text.contains("s3cret")), "{error:?}");
    assert!(matches!(get("/nowhere").await, Err(FetchError::Source(_))));
    for (location, key) in [
        (target.url("/m.gguf"), "https is not left"),
        ("https://127.0.0.1/m.gguf".to_owned(), "policy.outbound.allow"),
        ("https://169.254.169.254/latest/meta-data".to_owned(), "policy.outbound.allow"),
        ("https://evil.example/m.gguf".to_owned(), "policy.outbound.allow"),
        ("file:///etc/passwd".to_owned(), "https"),
    ] {
        *to.lock().unwrap() = location;
        denied(get("/there").await, key);
    }
    assert!(target.seen().is_empty());
}

/// ORCH-3080: plain http off this machine wants a digest, before anything is asked for.
#[tokio::test]
async fn plain_http() {
    let setup = Setup::new();
    denied(setup.fetch("http://model.invalid/m.gguf").await, "checksum");
    let pinned = setup.fetch_as("http://model.invalid/m.gguf", Some(&Digest::of(b"x")), &Asker::operator()).await;
    assert!(matches!(pinned, Err(FetchError::Source(_))), "{pinned:?}");
}

/// LO-MOD-03: whatever fails, neither error nor log nor what is kept on disk shows a token or a signature.
#[tokio::test]
async fn secrets_are_not_told() {
    const TOKEN: &str = "hf_Abcdefghijklmnop";
    const SIGNATURE: &str = "c2lnbmF0dXJl";
    let capture = narration_core::capture();
    let bytes = content(1, 50_000);
    let origin = Origin::start(move |seen| match seen.number {
        0 => Reply::file(seen, &bytes, "\"e\""),
        1 => Reply::redirect(format!("/signed?X-Amz-Signature={SIGNATURE}")),
        2 => Reply::file(seen, &bytes, "\"e\"").cut(20_000),
        _ => Reply::new(500, format!("{TOKEN} {SIGNATURE}")),
    })
    .await;
    let setup = Setup::new().env("HF_TOKEN", TOKEN);
    let url = origin.url(&format!("/m.gguf?token={TOKEN}&sig={SIGNATURE}"));
    let fetcher = setup.fetcher();
    let model: catalog_core::ModelRef = url.parse().unwrap();
    let error = fetcher.fetch(&model, None, &Asker::operator().context).await.unwrap_err();
    let files = setup.files();
    let kept = files.iter().filter(|name| name.ends_with(".json")).map(|name| setup.dir().join(name));
    let kept: Vec<_> = kept.map(|path| std::fs::read_to_string(path).unwrap()).collect();
    assert_eq!(kept.len(), 1);
    let log = capture.events().iter().map(|event| format!("{event:?}")).collect::<String>();
    assert!(log.contains("transfer is begun again"), "{log}");
    for told in [format!("{error} {error:?}"), kept.concat(), log] {
        assert!(!told.contains(TOKEN) && !told.contains(SIGNATURE), "{told}");
    }
}
