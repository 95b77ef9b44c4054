use std::path::PathBuf;

use super::documents::Document;
use super::sources::Sources;
use super::{index, problems, read, trace};
use crate::repo;

const GOOD: &str = "# A\n\nStatus: Draft\nOwner: maintainers\nDate: 2025-01-01\n\n## Queue\n
| ID | Level | Requirement | Proof |\n|---|---|---|---|
| LO-ADM-01, LO-ADM-02 | MUST | full is `ADMISSION_REJECT` | unit |\n| LO-ADM-03 | MUST | see LO-ADM-01 | unit |
\n## Refinement Opportunities\n";

fn document(text: &str) -> Vec<Document> {
    vec![Document::parse(PathBuf::from(".specs/a.md"), ".specs/a.md".to_owned(), text.to_owned())]
}

fn sources(text: &str) -> Sources {
    let mut sources = Sources::default();
    sources.add("a.rs", text);
    sources
}

/// LO-TST-08, LO-TOOL-07, LO-DOC-01: whatever is committed is in step.
#[test]
fn the_repository_and_its_specs_agree() {
    let (documents, sources) = read(repo::root()).unwrap();
    assert_eq!(problems(&documents, &sources), Vec::<String>::new(), "see `cargo xtask specs`");
}

#[test]
fn disagreements_are_named_with_their_place() {
    let doubled = GOOD.replace("| LO-ADM-03 |", "| LO-ADM-01 |");
    let cases = [
        (GOOD, "/// LO-ADM-01: x\nfn a() {}", None),
        (GOOD, "fn a() {} // LO-ADM-77", None),
        (GOOD, "\n// as LO-ADM-77 says", Some("a.rs:2: LO-ADM-77 is not defined in .specs")),
        (
            &GOOD.replace("see LO-ADM-01", "see LO-ADM-78"),
            "",
            Some(".specs/a.md:12: LO-ADM-78 is not defined in .specs"),
        ),
        (&doubled, "", Some(".specs/a.md:12: LO-ADM-01 is defined at .specs/a.md:11 already")),
        (&GOOD.replace("Owner: ", ""), "", Some(".specs/a.md: has no line that begins with \"Owner: \"")),
        (&GOOD.replace("_REJECT", "_REFUSE"), "", Some(".specs/a.md:11: no code knows the name `ADMISSION_REFUSE`")),
        (&GOOD.replace("ADMISSION_REJECT", "tasks_total"), "const T: &str = \"tasks_total\";", None),
    ];
    for (specs, code, expected) in cases {
        let found = problems(&document(specs), &sources(code));
        assert_eq!(found, expected.map(str::to_owned).into_iter().collect::<Vec<_>>());
    }
}

/// LO-TST-08: a test counts for every requirement on the row that it cites one of.
#[test]
fn tests_are_traced_to_the_rows_they_cite() {
    let code = "/// LO-ADM-02: x\n#[tokio::test(start_paused = true)]\nasync fn proves() {}\n\n/// LO-ADM-03\nfn helper() {}\n";
    let (documents, sources) = (document(GOOD), sources(code));
    let traces = trace(&documents, &sources);
    let tests: Vec<&[String]> = traces.iter().map(|trace| trace.tests.as_slice()).collect();
    assert_eq!(tests, [&["a.rs: proves".to_owned()][..], &[]]);

    let mut sources = Sources::default();
    sources.add("tests/it/b.rs", "//! LO-ADM-03 and what follows\n\n#[test]\nfn proves() {}\n");
    sources.add("src/c.rs", "//! LO-ADM-03\n\n#[test]\nfn proves() {}\n");
    assert_eq!(trace(&documents, &sources)[1].tests, ["tests/it/b.rs"], "only files of tests prove as a whole");
}

/// LO-TOOL-04, LO-TOOL-05: the index has the wanted shape and does not change from run to run.
#[test]
fn the_index_lists_every_id() {
    let (documents, sources) = (document(GOOD), sources(""));
    let text = index(&documents[0], &sources).unwrap();
    assert_eq!(text, index(&documents[0], &sources).unwrap());
    let index: serde_json::Value = serde_yaml_ng::from_str(&text).unwrap();
    assert_eq!((&index["schema_version"], &index["source"]), (&1.into(), &".specs/a.md".into()));
    let entry = &index["requirements"]["LO-ADM-02"];
    assert_eq!((&entry["section"], &entry["level"]), (&"Queue".into(), &"MUST".into()));
    assert_eq!(index["requirements"].as_object().unwrap().len(), 3);
}
