//! Keeps `.specs` and the code in step.
//!
//! Requirements are defined in tables of `.specs/*.md` and cited by ID in comments, above all in the doc comments of the
//! tests that prove them. Checked: every cited ID is defined, once; every document has its front matter; every error code,
//! metric and field a document names in backticks exists in the code.

mod documents;
mod ids;
mod sources;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context as _, bail};
use serde::Serialize;

use crate::repo;
use documents::{Document, Requirement};
use sources::Sources;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Print the trace table as JSON.
    #[arg(long)]
    json: bool,
}

/// One requirement and the tests that cite it.
#[derive(Serialize)]
struct Trace<'a> {
    #[serde(flatten)]
    requirement: &'a Requirement,
    tests: Vec<String>,
}

/// `cargo xtask specs`: checks, then lists what proves what.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let (documents, sources) = read(repo::root())?;
    let traces = trace(&documents, &sources);
    if args.json {
        println!("{}", serde_json::to_string_pretty(&traces)?);
    } else {
        print_table(&traces);
    }
    report(&problems(&documents, &sources))
}

/// Only the checks.
pub(crate) fn check() -> anyhow::Result<()> {
    let (documents, sources) = read(repo::root())?;
    report(&problems(&documents, &sources))
}

/// `cargo xtask spec-extract`: one index per document.
pub(crate) fn extract() -> anyhow::Result<()> {
    let (documents, sources) = read(repo::root())?;
    let folder = repo::path("target/specs");
    std::fs::create_dir_all(&folder)?;
    for document in &documents {
        let stem = document.path.file_stem().context("a document has a name")?.to_string_lossy();
        let path = folder.join(format!("{stem}.yaml"));
        std::fs::write(&path, index(document, &sources)?)?;
        println!("{}", repo::shown(&path));
    }
    Ok(())
}

fn read(root: &Path) -> anyhow::Result<(Vec<Document>, Sources)> {
    Ok((Document::read_all(root)?, Sources::read(root)?))
}

fn report(problems: &[String]) -> anyhow::Result<()> {
    if problems.is_empty() {
        return Ok(());
    }
    bail!("the specs and the code disagree:\n  {}", problems.join("\n  "))
}

/// Every disagreement, as `file:line: what`.
fn problems(documents: &[Document], sources: &Sources) -> Vec<String> {
    let mut problems = Vec::new();
    let mut defined: BTreeMap<&str, &Requirement> = BTreeMap::new();
    for document in documents {
        problems.extend(document.front_matter_problems());
        problems.extend(document.unknown_names(sources));
        for requirement in &document.requirements {
            for id in &requirement.ids {
                if let Some(first) = defined.insert(id, requirement) {
                    problems.push(format!("{}: {id} is defined at {} already", requirement.place, first.place));
                }
            }
        }
    }
    let cited = sources.citations.iter().chain(documents.iter().flat_map(|document| &document.citations));
    for citation in cited {
        if !defined.keys().any(|id| ids::covers(&citation.id, id)) {
            problems.push(format!("{}: {} is not defined in .specs", citation.place, citation.id));
        }
    }
    problems
}

fn trace<'a>(documents: &'a [Document], sources: &Sources) -> Vec<Trace<'a>> {
    let requirements = documents.iter().flat_map(|document| &document.requirements);
    requirements.map(|requirement| Trace { requirement, tests: tests_of(requirement, sources) }).collect()
}

/// Requirements on one row state the same thing: a test of one is a test of all.
fn tests_of(requirement: &Requirement, sources: &Sources) -> Vec<String> {
    let covers = |cited: &str| requirement.ids.iter().any(|id| ids::covers(cited, id));
    let tests = sources.tests.iter().filter(|(cited, _)| covers(cited)).flat_map(|(_, tests)| tests);
    tests.cloned().collect::<BTreeSet<_>>().into_iter().collect()
}

fn print_table(traces: &[Trace<'_>]) {
    let (tested, untested): (Vec<_>, Vec<_>) = traces.iter().partition(|trace| !trace.tests.is_empty());
    println!("{} requirements with a test that cites them:", tested.len());
    for trace in &tested {
        println!("  {} ({})", trace.requirement.ids.join(", "), trace.requirement.level);
        for test in &trace.tests {
            println!("      {test}");
        }
    }
    println!("{} requirements without one:", untested.len());
    for trace in &untested {
        let Requirement { ids, level, proof, .. } = trace.requirement;
        println!("  {} ({level}; proof: {proof})", ids.join(", "));
    }
}

/// LO-TOOL-05's format.
fn index(document: &Document, sources: &Sources) -> anyhow::Result<String> {
    #[derive(Serialize)]
    struct Index<'a> {
        schema_version: u32,
        source: String,
        notes: &'static str,
        requirements: BTreeMap<&'a str, Entry<'a>>,
    }
    #[derive(Serialize)]
    struct Entry<'a> {
        title: &'a str,
        section: &'a str,
        level: &'a str,
        links: Vec<String>,
    }
    let requirements = document.requirements.iter().flat_map(|requirement| {
        let Requirement { ids, title, section, level, .. } = requirement;
        ids.iter().map(move |id| (id.as_str(), Entry { title, section, level, links: tests_of(requirement, sources) }))
    });
    Ok(serde_yaml_ng::to_string(&Index {
        schema_version: 1,
        source: document.shown.clone(),
        notes: "links are the tests that cite the requirement",
        requirements: requirements.collect(),
    })?)
}

#[cfg(test)]
mod tests;
