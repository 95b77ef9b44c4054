//! Indices that are not understood (LO-CAT-03).

use catalog_core::{CatalogError, EngineCatalogStore as _, FsEngineCatalog};

use crate::support::{ALL, Kind, Place, entry, ids, write};

/// What opening says, and that the index is afterwards as it was.
fn refused(place: &Place) -> CatalogError {
    let before = std::fs::read(place.index()).expect("it is there");
    let error = place.kind.open(place.dir()).map(|_| ()).expect_err("it is refused");
    assert_eq!(std::fs::read(place.index()).expect("it is there"), before);
    error
}

fn set_version(place: &Place, version: u64) {
    match place.kind {
        Kind::Fs => {
            let text = std::fs::read(place.index()).expect("it is there");
            let mut index: serde_json::Value = serde_json::from_slice(&text).expect("it is JSON");
            index["schema_version"] = version.into();
            std::fs::write(place.index(), index.to_string()).expect("it is written");
        }
        Kind::Sqlite => {
            let database = rusqlite::Connection::open(place.index()).expect("it opens");
            database.pragma_update(None, "user_version", version.cast_signed()).expect("it is written");
        }
    }
}

/// LO-CAT-03, ORCH-3262: an index of another version is refused with its number, and works again with the known one.
#[test]
fn another_version_is_refused_untouched() {
    for kind in Kind::ALL {
        let place = Place::new(kind);
        place.open().put(entry("hf:acme/model")).expect("it is written");
        for version in [2, 0, 77] {
            set_version(&place, version);
            let error = refused(&place);
            let expected = matches!(error, CatalogError::UnknownVersion { found, known: 1, .. } if found == version);
            assert!(expected, "{kind:?}: {error}");
        }
        set_version(&place, 1);
        assert_eq!(ids(place.open().as_ref(), &ALL), ["hf:acme/model"]);
    }
}

/// LO-CAT-03: a later version may look quite different, and one that comes while the index is open is refused as well.
#[test]
fn a_later_version_is_recognised_whatever_it_looks_like() {
    let place = Place::new(Kind::Fs);
    let store = place.open();
    store.put(entry("hf:acme/model")).expect("it is written");
    let later = r#"{"models": {"hf:acme/model": [1, 2]}, "schema_version": 9}"#;
    std::fs::write(place.index(), later).expect("it is written");
    assert!(matches!(refused(&place), CatalogError::UnknownVersion { found: 9, .. }));
    assert!(matches!(store.put(entry("hf:acme/other")), Err(CatalogError::UnknownVersion { found: 9, .. })));
    assert!(matches!(store.list(&ALL), Err(CatalogError::UnknownVersion { found: 9, .. })));
    assert_eq!(std::fs::read_to_string(place.index()).expect("it is there"), later);
}

/// LO-CAT-02, LO-CAT-03: what is no index, or not a whole one, is refused as damaged.
#[test]
fn garbage_is_refused_untouched() {
    for kind in Kind::ALL {
        let place = Place::new(kind);
        place.open().put(entry("hf:acme/model")).expect("it is written");
        let whole = std::fs::read(place.index()).expect("it is there");
        for garbage in
            [b"".as_slice(), b"{", b"[]", b"{\"schema_version\":1}", &whole[..whole.len() / 2], &[0xff; 5000]]
        {
            for log in ["models.db-wal", "models.db-shm"] {
                let _ = std::fs::remove_file(place.index().with_file_name(log));
            }
            std::fs::write(place.index(), garbage).expect("it is written");
            // Half of a database is found out when the missing half is wanted.
            let opened = place.kind.open(place.dir()).and_then(|store| store.list(&ALL)).map(|_| ());
            assert!(matches!(opened, Err(CatalogError::Damaged { .. })), "{kind:?}: {opened:?}");
            assert_eq!(std::fs::read(place.index()).expect("it is there"), garbage, "{kind:?}");
        }
    }
    let twice = Place::new(Kind::Fs);
    let line = serde_json::to_string(&entry("hf:acme/model")).expect("it is text");
    let index = format!("{{\"schema_version\":1,\"revision\":1,\"entries\":[{line},{line}]}}");
    write(&twice.index(), index.as_bytes());
    assert!(matches!(refused(&twice), CatalogError::Damaged { .. }));
    let foreign = Place::new(Kind::Sqlite);
    write(&foreign.index(), b"");
    rusqlite::Connection::open(foreign.index())
        .expect("it opens")
        .execute_batch("CREATE TABLE t (a)")
        .expect("it is written");
    assert!(matches!(refused(&foreign), CatalogError::Damaged { .. }));
}

/// LO-CAT-03: the two indices have versions of their own.
#[test]
fn engines_do_not_mind_the_version_of_models() {
    let place = Place::new(Kind::Fs);
    place.open().put(entry("hf:acme/model")).expect("it is written");
    set_version(&place, 5);
    let engines = FsEngineCatalog::open(place.dir().join("catalog")).expect("it opens");
    assert!(engines.list().expect("it is read").is_empty());
    write(&place.dir().join("catalog/engines.json"), b"{\"schema_version\":6}");
    assert!(matches!(engines.list(), Err(CatalogError::UnknownVersion { found: 6, .. })));
    set_version(&place, 5);
    let refused = FsEngineCatalog::open(place.dir().join("catalog")).map(|_| ());
    assert!(matches!(refused, Err(CatalogError::UnknownVersion { found: 6, known: 1, .. })));
}
