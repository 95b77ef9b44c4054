//! Every shipped example, from both sides.

use std::path::{Path, PathBuf};

use config_schema::{EngineSource, Loaded, ProvisioningMode, json_schema};
use serde_json::Value;

use crate::support::{Variables, load_file, load_text};

fn examples() -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples");
    let mut files: Vec<PathBuf> = std::fs::read_dir(&directory)
        .expect("the examples")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| matches!(path.extension().and_then(|e| e.to_str()), Some("toml" | "yaml")))
        .collect();
    files.sort();
    files
}

fn load(path: &Path) -> Loaded {
    let variables = Variables::from([
        ("HOME", "/home/someone"),
        ("AUTH_TOKEN", "0123456789abcdef0123456789abcdef"),
        ("VLLM_API_KEY", "0123456789abcdef"),
    ]);
    load_file(path, &variables).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn schema() -> jsonschema::Validator {
    let schema: Value = serde_json::from_str(&json_schema()).expect("the schema is JSON");
    jsonschema::validator_for(&schema).expect("the schema is a schema")
}

fn tree(path: &Path) -> Value {
    let text = std::fs::read_to_string(path).expect("readable");
    match path.extension().and_then(|e| e.to_str()) {
        Some("yaml") => serde_yaml_ng::from_str(&text).expect("YAML"),
        _ => toml::from_str(&text).expect("TOML"),
    }
}

/// OC-CONFIG-6002, OC-CONFIG-6031, LO-CFG-02: every example fits the schema, loads, and causes no warning.
#[test]
fn every_example_fits_schema_and_loader() {
    let validator = schema();
    let files = examples();
    assert!(files.len() >= 10, "examples are missing: {files:?}");
    for path in files {
        let misfits: Vec<String> =
            validator.iter_errors(&tree(&path)).map(|e| format!("{e} at {}", e.instance_path())).collect();
        assert!(misfits.is_empty(), "{}: {misfits:?}", path.display());
        let loaded = load(&path);
        assert_eq!(loaded.warnings, Vec::<String>::new(), "{}", path.display());
    }
}

/// OC-CONFIG-6022..6025: there is an example of every mode, and it resolves to that mode's settings.
#[test]
fn every_provisioning_mode_has_an_example() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples");
    for mode in ProvisioningMode::ALL {
        let loaded = load(&directory.join(format!("provisioning-{mode}.toml")));
        let pool = &loaded.config.pools[0];
        assert_eq!(pool.mode(), *mode);
        let source = pool.engine_source().expect("the mode's own table");
        let fits = match mode {
            ProvisioningMode::External => matches!(source, EngineSource::External(_)),
            ProvisioningMode::Source => matches!(source, EngineSource::Source(_)),
            ProvisioningMode::Container => matches!(source, EngineSource::Container(_)),
            ProvisioningMode::Package => matches!(source, EngineSource::Package(_)),
            ProvisioningMode::Binary => matches!(source, EngineSource::Binary(_)),
        };
        assert!(fits, "{mode}: {source:?}");
    }
}

/// HME-003: TOML and YAML say the same.
#[test]
fn the_same_configuration_in_two_notations() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples");
    let [toml, yaml] = ["toml", "yaml"].map(|notation| load(&directory.join(format!("loopback-dev.{notation}"))));
    assert_eq!(toml.config, yaml.config);
}

/// OC-CONFIG-6010: the committed schema is the one that the types give.
#[test]
fn the_committed_schema_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("llama-orch.schema.json");
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(committed == json_schema(), "{} is out of date; run `cargo xtask regen-schema`", path.display());
    assert_eq!(json_schema(), json_schema());
}

/// What the schema refuses, the loader refuses too; the schema is the weaker one, since it knows no rules between values.
#[test]
fn the_schema_refuses_only_what_the_loader_refuses() {
    let validator = schema();
    let base = "[[pools]]\nid = \"a\"\nengine = \"mock\"\nmodel = \"m\"\n";
    let bad = [
        "[server]\nbnd = \"127.0.0.1:1\"\n",
        "[worker]\nid = \"box2\"\n",
        "[worker]\norchestrator = \"unix:/run/x\"\n",
        "[server]\nmax_body_bytes = 0\n",
        "[server]\nmax_connections = 0\n",
        "[server]\nhead_timeout_ms = 0\n",
        "[server]\npeer_timeout_ms = 1999\n",
        "[server]\npeer_timeout_ms = 3600001\n",
        "[stream]\nmicrobatch_ms = 51\n",
        "[catalog]\nindex = \"sql\"\n",
        "[admission]\ntoken_rate_limit_rps = 0.0\n",
        "[admission]\nplacement_overrides = [\"force\"]\n",
        "[sessions]\ntokens_budget = 0\n",
        "[sessions]\ncost_budget = 0.0\ncost_per_1k_tokens = 1.0\n",
        "[history]\nretain_days = -1\n",
        "[policy.outbound]\nmode = \"maybe\"\n",
        &format!("{base}slots = 0\n"),
        &format!("{base}ctx = 0\n"),
        &format!("{base}[pools.timeouts]\nidle_ms = 0\n"),
        &format!("{base}[[pools.admission.priorities]]\nname = \"batch\"\nrate_limit_rps = 0.0\n"),
        &format!("{base}[pools.provisioning.external]\nurl = \"ftp://host\"\n"),
        &format!("{base}[pools.provisioning.external]\nurl = \"http://h\"\nreplicas = [\"h\"]\n"),
        &format!("{base}[pools.provisioning.model]\nchecksum = \"sha256:12\"\n"),
        &format!("{base}[pools.provisioning]\nports = [0]\n"),
        "[[pools]]\nid = \"a\"\n",
    ];
    for text in bad {
        let tree: Value = toml::from_str(text).expect("TOML");
        assert!(!validator.is_valid(&tree), "the schema takes {text}");
        assert!(load_text(text).is_err(), "the loader takes {text}");
    }
}
