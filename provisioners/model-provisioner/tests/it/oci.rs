//! Artifacts of OCI registries.

use catalog_core::{Digest, FetchError};
use config_schema::OutboundMode;
use serde_json::{Value, json};

use crate::secrets::{fetch, fetch_as, until_it_is_there};
use crate::servers::cutter::Cutter;
use crate::servers::registry::{Auth, INDEX, PASSWORD, Registry, USER};
use crate::servers::tokens::TokenService;
use crate::support::{Asker, Setup, SmallDisk, content};

fn digest_of(descriptor: &Value) -> Digest {
    descriptor["digest"].as_str().expect("a text").parse().expect("a digest")
}

/// ORCH-3090: an artifact of one file, by tag, by digest, and by way of an index; what is here is not fetched again.
#[tokio::test]
async fn one_file() {
    let Some(registry) = Registry::start(Auth::Nobody).await else { return };
    let bytes = content(1, 300_000);
    let layer = registry.push_file("llm/tiny", "tiny.gguf", &bytes).await;
    let manifest = registry.tag("llm/tiny", "1.0", &[layer]).await;
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [manifest]});
    registry.put_manifest("llm/tiny", "latest", INDEX, &index).await;

    let host = format!("127.0.0.1:{}", registry.port);
    let digest = digest_of(&manifest);
    for reference in [":1.0".to_owned(), format!("@{digest}"), String::new(), format!(":1.0@{digest}")] {
        let reference = format!("oci://{host}/llm/tiny{reference}");
        let setup = Setup::new();
        let fetched = fetch(&setup, &reference).await.expect("it is there");
        assert_eq!(fetched.local_path.file_name().expect("a name"), "tiny.gguf");
        assert!(fetched.local_path.starts_with(setup.dir().join("oci")), "{reference}: {:?}", fetched.local_path);
        assert!(std::fs::read(&fetched.local_path).expect("a file") == bytes);
        assert_eq!((fetched.files[0].size_bytes, &fetched.files[0].digest), (300_000, &Digest::of(&bytes)));
        assert_eq!(fetched.source_url, Some(format!("http://{host}/v2/llm/tiny/manifests/{digest}")));
        assert_eq!(fetch(&setup, &reference).await.expect("it is here").transferred_bytes, 0);
    }
}

/// ORCH-3090: an artifact of several files, some of them without a name.
#[tokio::test]
async fn several_files() {
    let Some(registry) = Registry::start(Auth::Nobody).await else { return };
    let mut layers = Vec::new();
    for number in 0..5 {
        let title = format!("weights/{number}.safetensors");
        layers.push(registry.push_file("llm/many", &title, &content(number, 10_000)).await);
    }
    layers.push(registry.push("llm/many", "application/vnd.docker.ai.gguf.v3", b"GGUF").await);
    registry.tag("llm/many", "1", &layers).await;
    let reference = format!("oci://127.0.0.1:{}/llm/many:1", registry.port);
    let setup = Setup::new();
    let fetched = fetch(&setup, &reference).await.expect("they are there");
    assert!(fetched.local_path.is_dir());
    let mut names: Vec<_> = fetched.files.iter().map(|file| file.name.as_str()).collect();
    let gguf = format!("{}.gguf", Digest::of(b"GGUF").hex());
    names.retain(|name| *name != gguf);
    assert_eq!(names, ["0", "1", "2", "3", "4"].map(|number| format!("weights/{number}.safetensors")));
    assert_eq!(std::fs::read(fetched.local_path.join(gguf)).expect("a file"), b"GGUF");
    assert_eq!(fetched.transferred_bytes, 50_004);
    assert_eq!(fetch(&setup, &reference).await.expect("they are here").transferred_bytes, 0);
}

/// LO-MOD-06: 100 cuts within one fetch, and 20 that each end a fetch: what is here is kept, and the file is whole.
#[tokio::test]
async fn cuts() {
    let Some(registry) = Registry::start(Auth::Nobody).await else { return };
    let bytes = content(2, 1 << 20);
    let layer = registry.push_file("llm/tiny", "tiny.gguf", &bytes).await;
    registry.tag("llm/tiny", "1", &[layer]).await;

    let line = Cutter::before(registry.port, 5, 100, 16_000).await;
    let reference = format!("oci://127.0.0.1:{}/llm/tiny:1", line.port);
    let setup = Setup { retries: 200, ..Setup::new() };
    let fetched = fetch(&setup, &reference).await.expect("it goes on");
    assert_eq!((line.left(), fetched.transferred_bytes), (0, bytes.len() as u64), "nothing came twice");
    assert!(std::fs::read(&fetched.local_path).expect("a file") == bytes);

    let line = Cutter::before(registry.port, 6, 20, 64_000).await;
    let reference = format!("oci://127.0.0.1:{}/llm/tiny:1", line.port);
    let setup = Setup { retries: 0, ..Setup::new() };
    let path = until_it_is_there(&setup, &reference, &line).await;
    assert!(std::fs::read(&path).expect("a file") == bytes);
    assert_eq!(setup.files().len(), 1);
}

/// ORCH-3703: neither a layer nor a manifest that is not what its digest says is kept.
#[tokio::test]
async fn wrong_digests() {
    let Some(registry) = Registry::start(Auth::Nobody).await else { return };
    let bytes = content(3, 100_000);
    let layer = registry.push_file("llm/tiny", "tiny.gguf", &bytes).await;
    let manifest = registry.tag("llm/tiny", "1", std::slice::from_ref(&layer)).await;
    let host = format!("oci://127.0.0.1:{}", registry.port);
    let setup = Setup::new();
    let refused = async |expected: Option<&Digest>, reference: &str| match fetch_as(
        &setup,
        reference,
        expected,
        &Asker::operator(),
    )
    .await
    {
        Err(FetchError::Digest { file, expected, .. }) => (file, expected),
        other => panic!("{other:?}"),
    };

    let other = Digest::of(b"another file");
    let (file, expected) = refused(Some(&other), &format!("{host}/llm/tiny:1")).await;
    assert_eq!((file.as_str(), expected), ("tiny.gguf", other));
    assert_eq!(setup.files(), [""; 0]);

    registry.corrupt(&digest_of(&layer), &content(4, 100_000));
    let (file, expected) = refused(None, &format!("{host}/llm/tiny:1")).await;
    assert_eq!((file.as_str(), expected), ("tiny.gguf", Digest::of(&bytes)));
    assert_eq!(setup.files(), [""; 0]);

    let digest = digest_of(&manifest);
    registry.corrupt(&digest, br#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"a/b","digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","size":2},"layers":[]}"#);
    for reference in [format!("{host}/llm/tiny:1"), format!("{host}/llm/tiny@{digest}")] {
        let (file, expected) = refused(None, &reference).await;
        assert_eq!((file.as_str(), &expected), ("the manifest", &digest), "{reference}");
    }
}

/// LO-MOD-05: nothing is asked for that the policy does not let out.
#[tokio::test]
async fn policies() {
    let Some(registry) = Registry::start(Auth::Nobody).await else { return };
    let layer = registry.push_file("llm/tiny", "tiny.gguf", b"model").await;
    registry.tag("llm/tiny", "1", &[layer]).await;
    let reference = format!("oci://127.0.0.1:{}/llm/tiny:1", registry.port);
    for (mode, allow, asker, key) in [
        (OutboundMode::Deny, &[][..], Asker::operator(), "policy.outbound.mode"),
        (OutboundMode::Configured, &[], Asker::client(), "[[catalog.models]]"),
        (OutboundMode::Allowlist, &["elsewhere.example"], Asker::operator(), "policy.outbound.allow"),
        (OutboundMode::Allow, &[], Asker::client(), "policy.outbound.allow"),
    ] {
        let setup = Setup::new().outbound(mode, allow);
        match fetch_as(&setup, &reference, None, &asker).await {
            Err(FetchError::Denied(text)) => assert!(text.contains(key), "{mode}: {text}"),
            other => panic!("{mode}: {other:?}"),
        }
        assert_eq!(setup.files(), [""; 0]);
    }
    let setup = Setup::new().outbound(OutboundMode::Allowlist, &["127.0.0.1"]);
    fetch_as(&setup, &reference, None, &Asker::client()).await.expect("it is listed");
}

/// ORCH-3091: what is not there, and what there is no room for, is said so.
#[tokio::test]
async fn missing_and_too_large() {
    let Some(registry) = Registry::start(Auth::Nobody).await else { return };
    let layer = registry.push_file("llm/tiny", "tiny.gguf", &content(8, 1000)).await;
    registry.tag("llm/tiny", "1", &[layer]).await;
    let host = format!("oci://127.0.0.1:{}", registry.port);
    let setup = Setup::new();
    let unknown = Digest::of(b"unknown");
    for name in
        ["llm/tiny:2".to_owned(), "llm/tiny".to_owned(), "llm/missing:1".to_owned(), format!("llm/tiny@{unknown}")]
    {
        match fetch(&setup, &format!("{host}/{name}")).await {
            Err(FetchError::NotFound(text)) => assert!(text.contains(&name), "{text}"),
            other => panic!("{name}: {other:?}"),
        }
    }
    let setup = Setup { disk: Some(SmallDisk::shared(999)), ..setup };
    match fetch(&setup, &format!("{host}/llm/tiny:1")).await {
        Err(FetchError::NoSpace { needed_bytes: 1000, free_bytes: 999, .. }) => {}
        other => panic!("{other:?}"),
    }
    assert_eq!(setup.files(), [""; 0]);
}

/// LO-MOD-03: a registry with passwords gets those that are meant for it, and nobody else does.
#[tokio::test]
async fn passwords() {
    let Some(registry) = Registry::start(Auth::Password).await else { return };
    let layer = registry.push_file("llm/tiny", "tiny.gguf", b"model").await;
    registry.tag("llm/tiny", "1", &[layer]).await;
    let port = registry.port;
    let reference = format!("oci://127.0.0.1:{port}/llm/tiny:1");
    let setup = Registry::setup(port, USER, PASSWORD);
    fetch(&setup, &reference).await.expect("the password is right");
    for (setup, why) in [
        (Setup::new(), "wants credentials"),
        (Registry::setup(port, USER, "wrong"), "does not take OCI_USERNAME"),
        (Registry::setup(1, USER, PASSWORD), "wants credentials"),
    ] {
        match fetch(&setup, &reference).await {
            Err(FetchError::Unauthorized(text)) => {
                assert!(text.contains(why) && text.contains("OCI_PASSWORD") && text.contains("OCI_REGISTRY"), "{text}");
            }
            other => panic!("{why}: {other:?}"),
        }
    }
}

/// LO-MOD-03: a token is got from where the registry says, anew when it expires, with a password only if one is meant for it.
#[tokio::test]
async fn tokens() {
    let account = Some((USER, PASSWORD));
    for (account, lasts) in [(None, 300), (None, 0), (account, 300), (account, 0)] {
        let Some(registry) = Registry::start(Auth::Token(TokenService::start(account, lasts).await)).await else {
            return;
        };
        let layers = [
            registry.push_file("llm/tiny", "a.gguf", b"model").await,
            registry.push_file("llm/tiny", "b.gguf", b"another").await,
        ];
        registry.tag("llm/tiny", "1", &layers).await;
        let reference = format!("oci://127.0.0.1:{}/llm/tiny:1", registry.port);
        let setup = match account {
            Some((user, password)) => Registry::setup(registry.port, user, password),
            None => Registry::setup(1, USER, PASSWORD),
        };
        let setup = setup.outbound(OutboundMode::Configured, &["127.0.0.1"]);
        fetch(&setup, &reference).await.expect("the token is taken");
        let asked = registry.tokens().asked();
        assert_eq!(asked.len() > 1, lasts == 0, "{asked:?}");
        for head in &asked {
            assert!(head.contains("scope=repository%3Allm%2Ftiny%3Apull"), "{head}");
            assert_eq!(head.contains("authorization: Basic"), account.is_some(), "{head}");
        }

        let wrong = Registry::setup(registry.port, USER, "wrong");
        let setup = wrong.outbound(OutboundMode::Configured, &["127.0.0.1"]);
        match (fetch(&setup, &reference).await, account) {
            (Ok(_), None) => {}
            (Err(FetchError::Unauthorized(text)), Some(_)) => assert!(text.contains("OCI_PASSWORD"), "{text}"),
            (other, _) => panic!("{other:?}"),
        }
        // A token service is another host, or another port of this one.
        let setup = setup.outbound(OutboundMode::Configured, &[]);
        match fetch(&setup, &reference).await {
            Err(FetchError::Denied(text)) => assert!(text.contains("policy.outbound.allow"), "{text}"),
            other => panic!("{other:?}"),
        }
    }
}

/// LO-CAT-10: a layer whose title leads elsewhere spoils the artifact, and nothing of it is fetched.
#[tokio::test]
async fn titles_that_lead_elsewhere() {
    let Some(registry) = Registry::start(Auth::Nobody).await else { return };
    let good = registry.push_file("llm/tiny", "good", b"good").await;
    let reference = format!("oci://127.0.0.1:{}/llm/tiny:1", registry.port);
    let setup = Setup::new();
    for (title, why) in [
        ("../x", "not a plain path"),
        ("a/../../x", "not a plain path"),
        ("/etc/x", "not a plain path"),
        ("a\\x", "not a plain path"),
        ("x\u{1}y", "not a plain path"),
        ("m.gguf.part", "not a plain path"),
        ("good", "twice"),
        ("good/x", "a file and a folder"),
    ] {
        let bad = registry.push_file("llm/tiny", title, b"bad").await;
        registry.tag("llm/tiny", "1", &[good.clone(), bad]).await;
        match fetch(&setup, &reference).await {
            Err(FetchError::Unsupported(text)) => assert!(text.contains(why), "{text}"),
            other => panic!("{title}: {other:?}"),
        }
        assert_eq!(setup.files(), [""; 0]);
    }
}
