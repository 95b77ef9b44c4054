//! References, normal and hostile.

use std::path::{Component, Path};

use proptest::prelude::{Strategy, prop_assert, prop_assert_eq, proptest};
use proptest::sample::select;

use super::{ModelRef, RefError};
use crate::Digest;

fn parse(text: &str) -> ModelRef {
    text.parse().unwrap_or_else(|error: RefError| panic!("{text}: {error}"))
}

/// LO-CAT-07, ORCH-3264, ORCH-3704, ORCH-3090: what is written, its id, and where its files belong.
#[test]
fn references_are_normalised() {
    let hex = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
    let cases = [
        (" hf:org/repo ", "hf:org/repo", Some("hf/org/repo")),
        ("HF://org/repo/", "hf:org/repo", Some("hf/org/repo")),
        ("hf:org/repo@main", "hf:org/repo", Some("hf/org/repo")),
        ("hf:org/repo@refs/pr/1", "hf:org/repo@refs/pr/1", Some("hf/org/repo@refs%2Fpr%2F1")),
        ("hf:Org/Repo.v1/q4/model.gguf@v1", "hf:Org/Repo.v1/q4/model.gguf@v1", Some("hf/Org/Repo.v1@v1/q4/model.gguf")),
        ("/srv//models/./a.gguf", "file:/srv/models/a.gguf", None),
        ("file:///srv/models/a.gguf", "file:/srv/models/a.gguf", None),
        ("file:/srv/models/", "file:/srv/models", None),
        ("./rel/a.gguf", "file:rel/a.gguf", Some("rel/a.gguf")),
        ("rel/a b.gguf", "file:rel/a b.gguf", Some("rel/a b.gguf")),
        (
            "HTTPS://Models.Example:443/a/b.gguf#part",
            "https://models.example/a/b.gguf",
            Some("https/models.example/a/b.gguf"),
        ),
        ("http://127.0.0.1:8080/a%20b.gguf", "http://127.0.0.1:8080/a%20b.gguf", Some("http/127.0.0.1_8080/a b.gguf")),
        ("https://h/a?", "https://h/a", Some("https/h/a")),
        ("https://h/a?X-Amz-Signature=s&token=t", "https://h/a", Some("https/h/a")),
        (
            "https://h/a?v=1%201&token=t&w",
            "https://h/a?v=1%201&w",
            Some(&format!("https/h/a@{}", &Digest::of(b"v=1%201&w").hex()[..16])),
        ),
        ("s3://bucket/folder/", "s3://bucket/folder/", Some("s3/bucket/folder")),
        ("s3://bucket/a/b.gguf", "s3://bucket/a/b.gguf", Some("s3/bucket/a/b.gguf")),
        ("oci://GHCR.io/acme/model:latest", "oci://ghcr.io/acme/model", Some("oci/ghcr.io/acme/model@latest")),
        ("oci://localhost:5000/m:v1", "oci://localhost:5000/m:v1", Some("oci/localhost_5000/m@v1")),
        (&format!("oci://h/m@SHA256:{hex}"), &format!("oci://h/m@sha256:{hex}"), Some(&format!("oci/h/m@{hex}"))),
    ];
    for (text, id, path) in cases {
        let model = parse(text);
        assert_eq!(model.id().as_str(), id, "{text}");
        assert_eq!(model.cache_path().as_deref(), path.map(Path::new), "{text}");
        assert_eq!(model.is_local(), id.starts_with("file:"), "{text}");
        assert_eq!(parse(id).id().as_str(), id, "{text}");
    }
}

/// LO-CAT-07, LO-CAT-10: what could lead anywhere else, or means nothing, is refused in every scheme.
#[test]
fn hostile_and_meaningless_references_are_refused() {
    let names =
        ["..", ".", "", "%2e%2e", "%2E.", "a%2f..%2f..", "a%5cb", "a\\..\\b", "\u{7f}", "a%00", "a ", " a", "a\nb"];
    let forms = [
        "hf:{}/repo",
        "hf:org/{}/x",
        "hf:org/repo/{}/x",
        "hf:org/repo/x@{}/y",
        "file:/x/{}/y",
        "file:x/{}/y",
        "x/{}/y",
        "https://h/{}/x",
        "https://h/x/{}/y",
        "s3://bucket/{}/x",
        "s3://{}/x",
        "oci://{}/x",
        "oci://h/{}/x",
        "oci://h/x:{}/y",
    ];
    for form in forms {
        for name in names {
            let text = form.replace("{}", name);
            let is_fine_for_files = matches!(name, "" | ".") && (form.starts_with("file") || form.starts_with("x/"));
            // A URL drops tabs and line ends, and its spaces are escaped.
            let is_escaped = form.starts_with("https") && name.contains(' ');
            if !is_fine_for_files && !is_escaped {
                assert!(text.parse::<ModelRef>().is_err(), "{text:?}");
            }
        }
    }
    let others = [
        "",
        "  ",
        "hf:org",
        "hf:",
        "hf:org/repo@",
        "hf:org/repo/x@a@b",
        "file:",
        "file:/",
        "file:..",
        "../x",
        "x/..",
        "file://host/x",
        "ftp://h/x",
        "c:\\x",
        "https://",
        "https://h",
        "https://h/",
        "https://h/dir/",
        "https:///",
        "https://user@h/x",
        "https://u:p@h/x",
        "https://../x",
        "https://\u{ff0e}\u{ff0e}/x",
        "https://h//x",
        "s3:bucket/x",
        "s3://b/x",
        "s3://Bucket/x",
        "s3://.../x",
        "s3://bucket",
        "s3://bucket/",
        "oci://h",
        "oci://h/",
        "oci://../x",
        "oci://./x",
        "oci:///x",
        "oci://h/X",
        "oci://h/x:a/b",
        "oci://h/x@sha256:12",
        "oci://h/x@md5:12",
        &"x".repeat(3000),
        &"é".repeat(1000).replace('é', "https://h/é"),
    ];
    for text in others {
        assert!(text.parse::<ModelRef>().is_err(), "{text:?}");
    }
    // It grows when it is escaped.
    assert_eq!(format!("https://h/{}", "é".repeat(1000)).parse::<ModelRef>(), Err(RefError::TooLong));
}

/// Anything made of what matters to a parser.
fn texts() -> impl Strategy<Value = String> {
    let pieces = [
        "hf:",
        "file:",
        "https://",
        "http://",
        "s3://",
        "oci://",
        "//",
        "/",
        "..",
        ".",
        "%2e",
        "%2f",
        "%5c",
        "%00",
        "%",
        "@",
        ":",
        "?",
        "#",
        "&",
        "=",
        "\\",
        " ",
        "\t",
        "\u{85}",
        "\u{ff0e}",
        "é",
        "org",
        "repo",
        "bucket",
        "host.example",
        "[::1]",
        "a",
        "B",
        "-",
        "_",
        "main",
        "latest",
        "token",
        "x=1",
        "sha256:",
        "~",
        "+",
        ":8080",
    ];
    proptest::collection::vec(select(pieces.to_vec()), 0..12).prop_map(|pieces| pieces.concat())
}

/// References of each scheme, well-formed for the most part.
fn likely() -> impl Strategy<Value = String> {
    let heads =
        ["hf:org/repo", "hf:org/", "file:", "file:/", "", "/", "https://h/", "http://h:8/", "s3://bucket/", "oci://h/"];
    (select(heads.to_vec()), texts()).prop_map(|(head, tail)| format!("{head}{tail}"))
}

fn check(text: &str) -> Result<(), proptest::test_runner::TestCaseError> {
    let Ok(model) = text.parse::<ModelRef>() else { return Ok(()) };
    let id = model.id();
    let again = id.as_str().parse::<ModelRef>();
    prop_assert_eq!(again.as_ref().map(ModelRef::id), Ok(id.clone()));
    let again = again.expect("it was compared");
    prop_assert_eq!(again.cache_path(), model.cache_path());
    prop_assert_eq!(again.id().as_str().parse::<ModelRef>(), Ok(again.clone()));
    if !text.to_ascii_lowercase().contains("token") {
        prop_assert_eq!(&again, &model);
    }
    if let Some(path) = model.cache_path() {
        prop_assert!(path.components().all(|part| matches!(part, Component::Normal(_))), "{:?}", path);
        prop_assert!(path.components().count() > 0);
        prop_assert!(!path.to_string_lossy().contains(['\\', '\0']), "{:?}", path);
    }
    Ok(())
}

proptest! {
    /// LO-CAT-07, LO-CAT-10, ORCH-3704: whatever is parsed is written back as it was, and never leads out of the cache.
    #[test]
    fn what_is_parsed_is_stable_and_stays_inside(text in texts(), likely in likely()) {
        check(&text)?;
        check(&likely)?;
    }

    /// The same for any text at all.
    #[test]
    fn no_text_breaks_the_parser(text in ".{0,60}") {
        check(&text)?;
        check(&format!("https://h/{text}"))?;
        check(&format!("hf:org/repo/{text}"))?;
    }
}
