//! Models made present, and what the catalog has of them.

use std::sync::Arc;

use api_types::{ModelLifecycle, VerificationOutcome};
use catalog_core::{CatalogEntry, CatalogStore, Digest, FetchError, FsCatalog, ModelRef};
use model_provisioner::{Fetcher, ModelProvisioner, ProvisionError, UNVERIFIED};

use crate::origin::{Origin, Reply};
use crate::support::{Asker, Setup};

const WEIGHTS: &[u8] = b"weights";

struct Provisioning {
    setup: Setup,
    catalog: Arc<FsCatalog>,
    provisioner: ModelProvisioner<FsCatalog, Fetcher>,
}

impl Provisioning {
    fn new() -> Self {
        let setup = Setup::new();
        let catalog = Arc::new(FsCatalog::open(setup.dir().join("catalog"), setup.dir()).expect("a catalog"));
        let provisioner = ModelProvisioner::new(Arc::clone(&catalog), Arc::new(setup.fetcher()));
        Self { setup, catalog, provisioner }
    }

    fn entry(&self, model: &str) -> Option<CatalogEntry> {
        self.catalog.get(&model.parse::<ModelRef>().expect("a reference").id()).expect("a catalog")
    }
}

async fn origin() -> Origin {
    Origin::start(|seen| match seen.path.split('?').next().unwrap_or_default() {
        "/m.gguf" => Reply::file(seen, WEIGHTS, "\"e\""),
        _ => Reply::new(404, ""),
    })
    .await
}

/// ORCH-3700, ORCH-3702, ORCH-3436, ORCH-3703, LO-MOD-01: success registers the model with path and digest, active, with a
/// warning when there was nothing to compare it with; once it is here nothing is asked for again.
#[tokio::test]
async fn success_is_registered() {
    let (origin, digest) = (origin().await, Digest::of(WEIGHTS));
    for given in [None, Some(digest.clone())] {
        let all = Provisioning::new();
        let (url, asker) = (origin.url("/m.gguf"), Asker::operator());
        let model = format!(" {url}?token=s3cret ");
        let done = all.provisioner.ensure_present_str(&model, given.clone(), &asker.context).await.unwrap();
        let entry = all.entry(&url).unwrap();
        assert_eq!(Some(&done.model.local_path), entry.local_path.as_ref());
        assert_eq!((done.model.id.as_str(), done.transferred_bytes), (url.as_str(), 7));
        assert_eq!(std::fs::read(done.model.local_path).unwrap(), WEIGHTS);
        assert_eq!((entry.lifecycle, entry.digest.as_ref()), (ModelLifecycle::Active, Some(&digest)));
        assert_eq!((entry.files[0].size_bytes, entry.source_url.as_deref()), (7, Some(url.as_str())));
        let verification = entry.verification.unwrap();
        match given {
            None => assert_eq!(
                (verification.outcome, verification.findings),
                (VerificationOutcome::Warn, vec![UNVERIFIED.to_owned()])
            ),
            Some(_) => assert_eq!((verification.outcome, verification.findings), (VerificationOutcome::Pass, vec![])),
        }

        let requests = origin.seen().len();
        let again = all.provisioner.ensure_present_str(&url, None, &asker.context).await.unwrap();
        assert_eq!((again.transferred_bytes, again.digest.as_ref()), (0, Some(&digest)));
        // A digest that comes later is compared, too, and settles the warning.
        let confirmed = all.provisioner.ensure_present_str(&url, Some(digest.clone()), &asker.context).await.unwrap();
        assert_eq!(confirmed.verification.unwrap().outcome, VerificationOutcome::Pass);
        assert_eq!(all.entry(&url).unwrap().verification.unwrap().outcome, VerificationOutcome::Pass);
        let other = all.provisioner.ensure_present_str(&url, Some(Digest::of(b"x")), &asker.context).await;
        assert!(matches!(other, Err(ProvisionError::OtherDigest { .. })), "{other:?}");
        assert_eq!(origin.seen().len(), requests);
    }
}

/// ORCH-3702, ORCH-3703: failure leaves no entry, and no file.
#[tokio::test]
async fn failure_is_not_registered() {
    let origin = origin().await;
    let all = Provisioning::new();
    let (asker, client) = (Asker::operator(), Asker::client());
    let (there, missing) = (origin.url("/m.gguf"), origin.url("/missing.gguf"));
    for (model, digest, asker, is_kind) in [
        (&missing, None, &asker, (|e| matches!(e, FetchError::NotFound(_))) as fn(&FetchError) -> bool),
        (&there, Some(Digest::of(b"x")), &asker, |e| matches!(e, FetchError::Digest { .. })),
        (&there, None, &client, |e| matches!(e, FetchError::Denied(_))),
    ] {
        let error = all.provisioner.ensure_present_str(model, digest, &asker.context).await.unwrap_err();
        assert!(matches!(&error, ProvisionError::Fetch { source, .. } if is_kind(source)), "{error:?}");
        assert_eq!(all.entry(model), None);
    }
    let malformed = all.provisioner.ensure_present_str("ftp://x/y", None, &asker.context).await;
    assert!(matches!(malformed, Err(ProvisionError::Reference(_))));
    assert_eq!(all.setup.files().iter().filter(|name| name.contains("gguf")).count(), 0);
}

/// ORCH-3037.3: the digest that a model was registered with is what must come, and what was registered with it stays.
#[tokio::test]
async fn a_registered_digest_must_come() {
    let origin = origin().await;
    let url = origin.url("/m.gguf");
    let asker = Asker::operator();
    let all = Provisioning::new();
    let id = url.parse::<ModelRef>().unwrap().id();
    let entry = |digest| CatalogEntry {
        digest: Some(digest),
        tags: vec!["mine".to_owned()],
        lifecycle: ModelLifecycle::Retired,
        ..CatalogEntry::new(id.clone(), 1)
    };
    all.catalog.put(entry(Digest::of(b"x"))).unwrap();
    let error = all.provisioner.ensure_present_str(&url, None, &asker.context).await.unwrap_err();
    assert!(matches!(&error, ProvisionError::Fetch { source: FetchError::Digest { .. }, .. }), "{error:?}");
    assert_eq!(all.entry(&url), Some(entry(Digest::of(b"x"))));

    all.catalog.put(entry(Digest::of(WEIGHTS))).unwrap();
    all.provisioner.ensure_present_str(&url, None, &asker.context).await.unwrap();
    let found = all.entry(&url).unwrap();
    assert_eq!(found.verification.unwrap().outcome, VerificationOutcome::Pass);
    assert_eq!((found.tags, found.lifecycle), (vec!["mine".to_owned()], ModelLifecycle::Retired));
}

/// ORCH-3701, ORCH-3704, LO-MOD-04: local models are registered where they are, under one id however they are written, and
/// nothing else is fetched.
#[tokio::test]
async fn files_only() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("m.gguf"), WEIGHTS).unwrap();
    let provisioner = ModelProvisioner::file_only(folder.path()).unwrap();
    let asker = Asker::operator();
    for model in ["file:m.gguf", "./m.gguf", "m.gguf"] {
        let done = provisioner.ensure_present_str(model, None, &asker.context).await.unwrap();
        assert_eq!((done.model.id.as_str(), done.digest), ("file:m.gguf", Some(Digest::of(WEIGHTS))));
        assert_eq!(done.model.local_path, folder.path().join("m.gguf"));
    }
    let error = provisioner.ensure_present_str("hf:org/repo", None, &asker.context).await.unwrap_err();
    assert!(matches!(error, ProvisionError::Fetch { source: FetchError::Unsupported(_), .. }), "{error:?}");
}
