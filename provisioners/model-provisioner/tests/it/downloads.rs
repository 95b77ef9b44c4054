//! One file, and everything that can go wrong with it.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use catalog_core::{Digest, FetchError, ModelFetcher};
use futures_util::StreamExt;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::origin::{Origin, Reply, Seen};
use crate::support::{Asker, Setup, SmallDisk, content, eventually};

const ETAG: &str = "\"one\"";

/// The file's place below the models' folder.
fn place(origin: &Origin, name: &str) -> String {
    format!("http/127.0.0.1_{}/{name}", origin.address.port())
}

/// A source whose transfers, not its probes, go as told.
async fn origin(content: Vec<u8>, transfer: impl Fn(&Seen, usize, &[u8]) -> Reply + Send + Sync + 'static) -> Origin {
    let transfers = Mutex::new(0);
    Origin::start(move |seen| {
        if seen.is_probe() {
            return Reply::file(seen, &content, ETAG);
        }
        let mut number = transfers.lock().expect("nobody panicked");
        *number += 1;
        transfer(seen, *number - 1, &content)
    })
    .await
}

/// LO-MOD-01, ORCH-3266: a file comes whole, under its name, with its digest, and is not fetched a second time.
#[tokio::test]
async fn a_file_is_fetched_once() {
    let bytes = content(1, 300_000);
    let origin = origin(bytes.clone(), |seen, _, content| Reply::file(seen, content, ETAG)).await;
    let setup = Setup::new();
    let asker = Asker::operator();
    let model = origin.url("/dir/model.gguf?token=s3cret");
    let digest = Digest::of(&bytes);
    let fetched = setup.fetch_as(&model, Some(&digest), &asker).await.unwrap();
    assert_eq!(fetched.local_path, setup.dir().join(place(&origin, "dir/model.gguf")));
    assert!(std::fs::read(&fetched.local_path).unwrap() == bytes);
    assert_eq!((fetched.files.len(), &fetched.files[0].digest, fetched.transferred_bytes), (1, &digest, 300_000));
    assert_eq!(setup.files(), [place(&origin, "dir/model.gguf")]);
    assert_eq!(*asker.progress.planned.lock().unwrap(), Some((1, Some(300_000))));
    assert_eq!(*asker.progress.done.lock().unwrap(), ["model.gguf"]);
    assert_eq!((asker.progress.net(), asker.progress.lost()), (300_000, 0));

    let again = setup.fetch(&model).await.unwrap();
    assert_eq!((again.files, again.transferred_bytes), (fetched.files, 0));
    assert_eq!(origin.transfers(), 1);
    // A file that was changed since is not what was fetched.
    std::fs::write(&fetched.local_path, b"changed").unwrap();
    assert_eq!(setup.fetch(&model).await.unwrap().transferred_bytes, 300_000);
}

/// LO-MOD-06: a connection may be cut anywhere, any number of times, and the process may be restarted in between: the file is
/// whole in the end and no byte came twice but the one that proves that the file is still the same.
#[tokio::test]
async fn cut_anywhere_and_resumed() {
    let survives = |seed: u64| async move {
        let bytes = content(seed, 20_000 + usize::try_from(seed).unwrap() * 997);
        let random = Mutex::new(StdRng::seed_from_u64(seed));
        let origin = origin(bytes.clone(), move |seen, _, content| {
            let reply = Reply::file(seen, content, ETAG);
            let at = random.lock().unwrap().random_range(0..=reply.body.len());
            if at < reply.body.len() / 2 { reply.cut(at) } else { reply }
        })
        .await;
        let mut setup = Setup::new();
        setup.retries = 1;
        let asker = Asker::operator();
        let digest = Digest::of(&bytes);
        // With a digest or without: both resume, each by its own proof.
        let expected = seed.is_multiple_of(2).then_some(&digest);
        let fetched = loop {
            match setup.fetch_as(&origin.url("/m.gguf"), expected, &asker).await {
                Ok(fetched) => break fetched,
                Err(FetchError::Source(_)) => assert!(setup.files().iter().all(|name| name.contains(".part"))),
                Err(error) => panic!("seed {seed}: {error}"),
            }
        };
        assert!(std::fs::read(&fetched.local_path).unwrap() == bytes, "seed {seed}");
        assert_eq!(asker.progress.lost(), 0, "seed {seed}");
        assert_eq!(origin.sent(), bytes.len(), "seed {seed}");
        assert_eq!(setup.files().len(), 1, "seed {seed}");
    };
    futures_util::stream::iter(0..100).for_each_concurrent(8, survives).await;
}

/// LO-MOD-06: a source that falls silent is asked again, and goes on where it stopped.
#[tokio::test]
async fn silence_is_not_waited_out() {
    let bytes = content(2, 50_000);
    let origin = origin(bytes.clone(), |seen, number, content| match number {
        0 => Reply::file(seen, content, ETAG).stall(20_000),
        _ => Reply::file(seen, content, ETAG),
    })
    .await;
    let mut setup = Setup::new();
    setup.stall = Duration::from_millis(300);
    let fetched = setup.fetch(&origin.url("/m.gguf")).await.unwrap();
    assert!(std::fs::read(&fetched.local_path).unwrap() == bytes);
    assert_eq!(origin.seen()[2].from(), Some(20_000));
}

/// LO-MOD-06: what the source changed in the middle is fetched anew and not mixed, whether it says so or not.
#[tokio::test]
async fn a_changed_file_is_not_mixed() {
    for honours_if_range in [true, false] {
        let (old, new) = (content(3, 40_000), content(4, 40_000));
        let kept = new.clone();
        let origin = origin(old, move |seen, number, old| match number {
            0 => Reply::file(seen, old, ETAG).cut(10_000),
            _ if honours_if_range => Reply::file(seen, &kept, "\"two\""),
            _ => {
                let mut lax = seen.clone();
                lax.headers.remove("if-range");
                Reply::file(&lax, &kept, "\"two\"")
            }
        })
        .await;
        let (setup, asker) = (Setup::new(), Asker::operator());
        let fetched = setup.fetch_as(&origin.url("/m.gguf"), None, &asker).await.unwrap();
        assert!(std::fs::read(&fetched.local_path).unwrap() == new);
        assert_eq!((asker.progress.lost(), asker.progress.net()), (10_000, 40_000));
    }
}

/// LO-MOD-06: a source without ranges is read from the beginning again.
#[tokio::test]
async fn without_ranges_it_begins_anew() {
    let bytes = content(5, 30_000);
    let origin = origin(bytes.clone(), |_, number, content| {
        let whole = Reply::new(200, content).with("etag", ETAG);
        if number == 0 { whole.cut(12_345) } else { whole }
    })
    .await;
    let (setup, asker) = (Setup::new(), Asker::operator());
    let fetched = setup.fetch_as(&origin.url("/m.gguf"), None, &asker).await.unwrap();
    assert!(std::fs::read(&fetched.local_path).unwrap() == bytes);
    assert_eq!(asker.progress.lost(), 12_345);
}

/// LO-MOD-06: lengths and ranges that do not add up are errors, and nothing gets a name.
#[tokio::test]
async fn lies_about_lengths() {
    type Lie = fn(&Seen, &[u8]) -> Reply;
    let lies: [(&str, Lie); 6] = [
        ("announces", |_, content| Reply::new(200, &content[..20_000])),
        ("ended before", |_, content| Reply::new(200, &content[..20_000]).with("transfer-encoding", "x")),
        ("cut short", |_, content| Reply::new(200, &content[..20_000]).with("content-length", "30000")),
        ("more than it announced", |_, content| {
            let chunked = [b"9c40\r\n", content, &content[..10_000], b"\r\n0\r\n\r\n"].concat();
            Reply::new(200, chunked).with("transfer-encoding", "chunked")
        }),
        ("another part", |seen, content| match seen.from() {
            None => Reply::file(seen, content, ETAG).cut(10_000),
            Some(_) => {
                Reply::new(206, &content[5_000..]).with("content-range", "bytes 5000-29999/30000").with("etag", ETAG)
            }
        }),
        ("without saying which", |seen, content| match seen.from() {
            None => Reply::file(seen, content, ETAG).cut(10_000),
            Some(from) => Reply::new(206, &content[from..]).with("etag", ETAG),
        }),
    ];
    for (what, lie) in lies {
        let origin = origin(content(6, 30_000), move |seen, _, content| lie(seen, content)).await;
        let setup = Setup::new();
        let error = setup.fetch(&origin.url("/m.gguf")).await.expect_err(what);
        assert!(matches!(error, FetchError::Source(_)), "{what}: {error:?}");
        assert!(setup.files().iter().all(|name| name.contains(".part")), "{what}: {:?}", setup.files());
    }
}

/// LO-MOD-06: a source that does not say how long a file is must be helped by a digest.
#[tokio::test]
async fn without_a_length() {
    let bytes = content(7, 30_000);
    let all = bytes.clone();
    let origin = Origin::start(move |_| Reply::new(200, &all[..]).with("content-length", "")).await;
    let setup = Setup::new();
    let error = setup.fetch(&origin.url("/m.gguf")).await.unwrap_err();
    assert!(error.to_string().contains("checksum"), "{error}");
    let fetched = setup.fetch_as(&origin.url("/m.gguf"), Some(&Digest::of(&bytes)), &Asker::operator()).await.unwrap();
    assert!(std::fs::read(&fetched.local_path).unwrap() == bytes);
}

/// LO-MOD-06: a part that is complete, or longer than the file is by now, does no harm.
#[tokio::test]
async fn parts_that_are_complete_or_too_long() {
    let bytes = content(8, 30_000);
    for (kept, transferred) in [(30_000, 1), (29_999, 1), (30_001, 30_000)] {
        let origin = origin(bytes.clone(), |seen, number, content| match number {
            0 => Reply::file(seen, content, ETAG).cut(10),
            _ => Reply::file(seen, content, ETAG),
        })
        .await;
        let mut setup = Setup::new();
        setup.retries = 0;
        setup.fetch(&origin.url("/m.gguf")).await.unwrap_err();
        let part = setup.dir().join(place(&origin, "m.gguf.part"));
        std::fs::write(&part, [&bytes[..], b"xx"].concat().get(..kept).unwrap()).unwrap();
        let asker = Asker::operator();
        let fetched = setup.fetch_as(&origin.url("/m.gguf"), None, &asker).await.unwrap();
        assert_eq!((fetched.transferred_bytes, asker.progress.net()), (transferred, 30_000), "{kept}");
        assert!(std::fs::read(&fetched.local_path).unwrap() == bytes);
    }
}

/// ORCH-3703, ORCH-3267: a file with another digest is not kept, neither under its name nor in part.
#[tokio::test]
async fn a_wrong_digest_is_refused() {
    let origin = origin(content(9, 30_000), |seen, _, content| Reply::file(seen, content, ETAG)).await;
    let setup = Setup::new();
    let asker = Asker::operator();
    let error = setup.fetch_as(&origin.url("/m.gguf"), Some(&Digest::of(b"other")), &asker).await.unwrap_err();
    assert!(matches!(error, FetchError::Digest { .. }), "{error:?}");
    assert_eq!((setup.files(), asker.progress.net()), (vec![], 0));
}

/// LO-MOD-06: what was kept and damaged meanwhile costs a second transfer, not the model.
#[tokio::test]
async fn a_damaged_part_is_fetched_anew() {
    let bytes = content(10, 30_000);
    let origin = origin(bytes.clone(), |seen, number, content| match number {
        0 => Reply::file(seen, content, ETAG).cut(20_000),
        _ => Reply::file(seen, content, ETAG),
    })
    .await;
    let mut setup = Setup::new();
    setup.retries = 0;
    let digest = Digest::of(&bytes);
    setup.fetch_as(&origin.url("/m.gguf"), Some(&digest), &Asker::operator()).await.unwrap_err();
    let part = setup.dir().join(place(&origin, "m.gguf.part"));
    let mut kept = std::fs::read(&part).unwrap();
    assert_eq!(kept.len(), 20_000);
    kept[100] ^= 1;
    std::fs::write(&part, kept).unwrap();
    let asker = Asker::operator();
    let fetched = setup.fetch_as(&origin.url("/m.gguf"), Some(&digest), &asker).await.unwrap();
    assert!(std::fs::read(&fetched.local_path).unwrap() == bytes);
    assert_eq!((asker.progress.lost(), asker.progress.net()), (30_000, 30_000));
}

/// LO-MOD-06: room is asked for before anything is fetched, and running out of it keeps what came.
#[tokio::test]
async fn no_room() {
    let bytes = content(11, 200_000);
    let origin = origin(bytes.clone(), |seen, _, content| Reply::file(seen, content, ETAG)).await;
    let mut setup = Setup::new();
    setup.disk = Some(Arc::new(SmallDisk { says: 199_999, left: Mutex::new(0) }));
    let error = setup.fetch(&origin.url("/m.gguf")).await.unwrap_err();
    assert!(matches!(error, FetchError::NoSpace { needed_bytes: 200_000, free_bytes: 199_999, .. }), "{error:?}");
    assert_eq!((origin.transfers(), setup.files().len()), (0, 0));

    setup.disk = Some(Arc::new(SmallDisk { says: 200_000, left: Mutex::new(120_000) }));
    let error = setup.fetch(&origin.url("/m.gguf")).await.unwrap_err();
    assert!(matches!(error, FetchError::NoSpace { .. }), "{error:?}");

    setup.disk = Some(Arc::new(SmallDisk { says: 80_000, left: Mutex::new(80_000) }));
    let fetched = setup.fetch(&origin.url("/m.gguf")).await.unwrap();
    assert_eq!(fetched.transferred_bytes, 80_000);
    assert!(std::fs::read(&fetched.local_path).unwrap() == bytes);
}

/// LO-MOD-06: what the source answers decides whether it is asked again, and what the error says.
#[tokio::test]
async fn refusals() {
    type IsKind = fn(&FetchError) -> bool;
    let source: IsKind = |error| matches!(error, FetchError::Source(_));
    let kinds: [(u16, usize, IsKind); 6] = [
        (401, 1, |error| matches!(error, FetchError::Unauthorized(_))),
        (403, 1, |error| matches!(error, FetchError::Unauthorized(_))),
        (404, 1, |error| matches!(error, FetchError::NotFound(_))),
        (418, 1, source),
        (500, 4, source),
        (503, 4, source),
    ];
    for (status, transfers, is_kind) in kinds {
        let origin = origin(content(12, 1_000), move |_, _, _| Reply::new(status, "no")).await;
        let error = Setup::new().fetch(&origin.url("/m.gguf?sig=s3cret")).await.unwrap_err();
        assert!(is_kind(&error), "{status}: {error:?}");
        assert!(!error.to_string().contains("s3cret"), "{error}");
        assert_eq!(origin.transfers(), transfers, "{status}");
    }
    let busy = origin(content(13, 1_000), |seen, number, content| match number {
        0 => Reply::new(429, "").with("retry-after", "0"),
        _ => Reply::file(seen, content, ETAG),
    })
    .await;
    assert!(Setup::new().fetch(&busy.url("/m.gguf")).await.is_ok());
    let asks_too_much = origin(content(13, 1_000), |_, _, _| Reply::new(503, "").with("retry-after", "86400")).await;
    assert!(Setup::new().fetch(&asks_too_much.url("/m.gguf")).await.is_err());
    assert_eq!(asks_too_much.transfers(), 1);
}

/// LO-MOD-06: a canceled fetch stops at once, keeps what it has, and the next one goes on from there.
#[tokio::test]
async fn canceled_and_gone_on() {
    let bytes = content(14, 90_000);
    let origin = origin(bytes.clone(), |seen, number, content| match number {
        0 => Reply::file(seen, content, ETAG).stall(50_000),
        _ => Reply::file(seen, content, ETAG),
    })
    .await;
    let setup = Setup::new();
    let asker = Asker::operator();
    let url = origin.url("/m.gguf");
    let cancel = async {
        eventually("50000 bytes came", || asker.progress.net() == 50_000).await;
        asker.context.cancel.cancel();
    };
    let (fetched, ()) = tokio::join!(setup.fetch_as(&url, None, &asker), cancel);
    assert!(matches!(fetched, Err(FetchError::Canceled)));
    let fetched = setup.fetch(&url).await.unwrap();
    assert_eq!(fetched.transferred_bytes, 40_000);
    assert!(std::fs::read(&fetched.local_path).unwrap() == bytes);
}

/// LO-MOD-06: many who want the same get one transfer, and all of them see it.
#[tokio::test]
async fn equal_fetches_are_one() {
    let bytes = content(15, 100_000);
    let origin = origin(bytes, |seen, number, content| match number {
        0 => Reply::file(seen, content, ETAG).stall(50_000),
        _ => Reply::file(seen, content, ETAG),
    })
    .await;
    let setup = Setup::new();
    let fetcher = setup.fetcher();
    let model = origin.url("/m.gguf").parse().unwrap();
    let askers: Vec<_> = (0..4).map(|_| Asker::operator()).collect();
    let fetches = askers.iter().map(|asker| fetcher.fetch(&model, None, &asker.context));
    // The first one gives up in the middle, and another goes on where it stopped.
    let cancel = async {
        eventually("50000 bytes came", || askers.iter().all(|asker| asker.progress.net() == 50_000)).await;
        askers[0].context.cancel.cancel();
    };
    let (done, ()) = tokio::join!(futures_util::future::join_all(fetches), cancel);
    assert!(matches!(done[0], Err(FetchError::Canceled)));
    let transferred: u64 = done[1..].iter().map(|fetched| fetched.as_ref().unwrap().transferred_bytes).sum();
    assert_eq!((transferred, origin.transfers(), origin.sent()), (50_000, 2, 100_000));
    for asker in &askers[1..] {
        assert_eq!((asker.progress.net(), asker.progress.done.lock().unwrap().len()), (100_000, 1));
    }
}

/// LO-MOD-06: another process that wants the same waits for the file and takes it.
#[tokio::test]
async fn another_process_waits() {
    let bytes = content(16, 100_000);
    let origin = origin(bytes, |seen, number, content| match number {
        0 => Reply::file(seen, content, ETAG).stall(50_000),
        _ => Reply::file(seen, content, ETAG),
    })
    .await;
    let mut setup = Setup::new();
    setup.stall = Duration::from_millis(500);
    let (one, two) = (Asker::operator(), Asker::operator());
    let url = origin.url("/m.gguf");
    let second = async {
        eventually("50000 bytes came", || one.progress.net() == 50_000).await;
        setup.fetch_as(&url, None, &two).await
    };
    let (first, second) = tokio::join!(setup.fetch_as(&url, None, &one), second);
    assert_eq!((first.unwrap().transferred_bytes, second.unwrap().transferred_bytes), (100_000, 0));
    assert_eq!((two.progress.waits.load(Ordering::Relaxed), two.progress.net()), (1, 100_000));
    assert_eq!((origin.sent(), setup.files().len()), (100_000, 1));
}
