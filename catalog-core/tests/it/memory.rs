//! What memory a model takes, foretold and as llama.cpp says it: of the engine that is asked now, when there is one, and of one that
//! has been asked for the same models.

use std::path::Path;
use std::process::Command;

use catalog_core::files::fit::{self, Outputs};
use catalog_core::files::read_local;
use sample_gguf::{Recorded, Sample, recorded};

const MIB: f64 = 1_048_576.0;

/// How far a prediction may be off, in percent.
const TOLERANCE: f64 = 10.0;

/// Contexts of a slot, and slots, that the engine is asked about.
const CTX: [&str; 4] = ["512", "2048", "8192", "32768"];
const SLOTS: [&str; 3] = ["1", "2", "4"];

fn percent(foretold: f64, said: f64) -> f64 {
    if said == 0.0 { 0.0 } else { (foretold / said - 1.0) * 100.0 }
}

/// Compares what the engine said of a file with what is foretold, prints both, and gives by how much the total is off, in percent.
///
/// The engine has all weights in one place, and tells no overhead of CUDA, since it is a build for the CPU; so weights are all of the
/// file's here. Its figures are rounded down to MiB.
fn compare(file: &Path, said: &Recorded) -> f64 {
    let info = read_local(file).expect("a model");
    let need = fit::need(&info.shape.expect("a shape"), said.ctx, said.slots);
    let foretold = [info.facts.weights_bytes.expect("known") as f64, need.kv_bytes as f64, need.compute_bytes as f64];
    let foretold = foretold.map(|bytes| bytes / MIB);
    let engine = [said.weights_mib, said.kv_mib, said.compute_mib].map(|mib| mib as f64);
    let all = |parts: [f64; 3]| parts.iter().sum::<f64>();
    let off = percent(all(foretold), all(engine));
    let Recorded { name, ctx, slots, .. } = said;
    let column = |part: usize| {
        format!("{:8.0} {:8.0} {:+6.1}", engine[part], foretold[part], percent(foretold[part], engine[part]))
    };
    println!("{name:<16} {ctx:>6} {slots:>2} |{} |{} |{} | {off:+5.2}", column(0), column(1), column(2));
    // Keys and values, as the weights, are exact.
    assert!((foretold[1] - engine[1]).abs() < 1.0, "{said:?}: {foretold:?}");
    // Sizes of this order are rounded by whole percents.
    assert!((foretold[2] - engine[2]).abs() < TOLERANCE / 100.0 * engine[2] + 1.0, "{said:?}: {foretold:?}");
    off
}

fn check<'a>(all: impl IntoIterator<Item = &'a Recorded>, folder: &Path) {
    println!(
        "MiB: engine, foretold, percent   weights                  keys and values          compute buffers          total"
    );
    for said in all {
        let off = compare(&folder.join(format!("{}.gguf", said.name)), said);
        assert!(off.abs() < TOLERANCE, "{said:?}: {off} %");
    }
}

fn samples() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    for sample in Sample::all() {
        sample.write(&folder.path().join(format!("{}.gguf", sample.name))).expect("a file with a hole");
    }
    folder
}

/// LO-HST-40: for models of unlike families, contexts and numbers of slots the prediction is within a tenth of what llama.cpp takes.
#[test]
fn what_is_foretold_is_what_was_recorded() {
    check(&recorded(), samples().path());
}

/// LO-HST-40: on a GPU the input embedding is not counted where it is not the output matrix, too.
#[test]
fn the_input_embedding_stays_behind() {
    let folder = samples();
    for sample in Sample::all() {
        let info = read_local(&folder.path().join(format!("{}.gguf", sample.name))).expect("a model");
        let all = info.facts.weights_bytes.expect("known") as u64;
        assert_eq!(info.shape.expect("a shape").weights_bytes, all - sample.host_bytes(), "{}", sample.name);
    }
}

/// Compute buffers with one slot of 2048 tokens, in MiB, that builds of llama.cpp reported which have room for an output of every
/// token: 9294 (`xllamacpp` 2026.5.9294), and one a year older (0.2.3).
const OLD_BUILDS: [(&str, f64, f64); 4] = [
    ("gemma3-270m", 520.27, 519.02),
    ("qwen2.5-0.5b", 302.00, 300.25),
    ("llama-3.1-8b", 266.50, 258.50),
    ("qwen3-30b-a3b", 304.75, 300.75),
];

/// LO-HST-40: of an older engine's buffers it is known that they are larger; the tag says which it is.
#[test]
fn older_engines_take_more() {
    let folder = samples();
    for (name, newer, older) in OLD_BUILDS {
        let info = read_local(&folder.path().join(format!("{name}.gguf"))).expect("a model");
        let need = fit::need_with(&info.shape.expect("a shape"), 2048, 1, Outputs::EachToken);
        for said in [newer, older] {
            let off = percent(need.compute_bytes as f64 / MIB, said);
            assert!(off.abs() < TOLERANCE / 2.0, "{name}: {off} %");
        }
    }
    for (tag, outputs) in [
        ("b6891", Outputs::EachToken),
        ("b9294-1a2b3c4", Outputs::EachToken),
        ("b11549", Outputs::EachSlot),
        ("master", Outputs::EachSlot),
        ("b1a2b3c4", Outputs::EachSlot),
        ("", Outputs::EachSlot),
    ] {
        assert_eq!(Outputs::of_tag(tag), outputs, "{tag}");
    }
}

mod real_engine {
    use super::{CTX, Command, Path, Recorded, SLOTS, Sample, check, samples};

    /// LO-HST-40, LO-TST-04: the same of the engine that is installed, which is asked about the samples and about the real model.
    #[test]
    fn says_what_is_foretold() {
        let Some(python) = std::env::var_os("LLAMA_ORCH_REAL_ENGINE_PYTHON") else {
            assert!(
                std::env::var("REQUIRE_REAL_LLAMA").as_deref() != Ok("1"),
                "REQUIRE_REAL_LLAMA=1 and no real engine"
            );
            eprintln!("skipped: no real engine; `cargo xtask test` brings one up");
            return;
        };
        let folder = samples();
        let model = std::env::var_os("LLAMA_ORCH_REAL_ENGINE_MODEL").expect("an engine has a model");
        std::os::unix::fs::symlink(model, folder.path().join("real.gguf")).expect("a link");
        let names = Sample::all().into_iter().map(|sample| sample.name).chain(["real"]);
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../xtask/engines/memory_llamacpp.py");
        let mut asked = Command::new(python);
        asked.arg(script).args(names.map(|name| folder.path().join(format!("{name}.gguf"))));
        let output = asked.arg("--ctx").args(CTX).arg("--slots").args(SLOTS).output().expect("it runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let said: Vec<_> = String::from_utf8(output.stdout).expect("text").lines().map(Recorded::of_line).collect();
        assert_eq!(said.len(), (Sample::all().len() + 1) * CTX.len() * SLOTS.len());
        check(&said, folder.path());
    }
}
