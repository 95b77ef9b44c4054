//! Pools of other hosts, and the files of those hosts.

use config_schema::{Config, ConfigError, Loaded};
use serde_json::{Value, json};

use crate::support::{Variables, home, load_named, load_text};

const MANAGED: &str = "[[pools]]\nid = \"far\"\nengine = \"llamacpp\"\nmodel = \"file:m.gguf\"\ndevices = [0, 1]\nworker = \"box2\"\n\
                       [pools.provisioning]\nmode = \"binary\"\nports = [9000]\nallow_binary_downloads = true\n\
                       [pools.provisioning.binary]\nurl = \"https://example.org/x\"\ninstall_dir = \"~/engines\"\nchecksum = \"sha256:";

fn managed() -> String {
    format!("{MANAGED}{}\"\n", "0".repeat(64))
}

fn problems(loaded: Result<Loaded, ConfigError>) -> String {
    match loaded {
        Err(ConfigError::Invalid(problems)) => problems.iter().map(|problem| format!("{problem}\n")).collect(),
        other => panic!("expected problems, got {other:?}"),
    }
}

fn with_token() -> Variables {
    Variables::from([("HOME", "/home/someone"), ("AUTH_TOKEN", "0123456789abcdef0123456789abcdef")])
}

/// LO-HST-08: only engines that llama-orch starts are started by a worker; each host has its own ports, paths and permissions.
#[test]
fn pools_of_another_host() {
    let loaded = load_text(&managed().replace("allow_binary_downloads = true\n", ""))
        .expect("what box2 may fetch is its business");
    let pool = &loaded.config.pools[0];
    assert_eq!(pool.device_mask().as_deref(), Some("box2:0,1"));
    assert!(pool.is_managed() && !pool.is_managed_here());
    let binary = pool.provisioning.binary.as_ref().expect("its table");
    assert_eq!(
        binary.install_dir.as_deref(),
        Some(std::path::Path::new("~/engines")),
        "whose home that is only box2 knows"
    );
    let two = managed() + &managed().replace("far", "near").replace("worker = \"box2\"\n", "");
    load_text(&two).expect("the same port on two hosts");
    assert!(
        problems(load_text(&(managed() + &managed().replace("far", "other")))).contains("pools[1].provisioning.ports")
    );
    assert!(problems(load_text(&managed().replace("\"box2\"", "\"box 2\""))).contains("pools[0].worker"));
    let external = "[[pools]]\nid = \"a\"\nengine = \"llamacpp\"\nmodel = \"m\"\nworker = \"box2\"\n[pools.provisioning]\nmode = \"external\"\n\
                    [pools.provisioning.external]\nurl = \"http://h\"\n";
    assert!(problems(load_text(external)).contains("pools[0].worker"));
}

/// LO-HST-08: a worker's file needs the orchestrator's address and token, and has no pools.
#[test]
fn the_file_of_a_worker() {
    let file = "[worker]\norchestrator = \"http://10.0.0.1:8080\"\n";
    assert!(problems(load_text(file)).contains("AUTH_TOKEN"));
    let loaded = load_named("w.toml", file, &with_token()).expect("all that it needs");
    let worker = loaded.config.worker.expect("a worker");
    assert!(!worker.id().as_str().is_empty(), "its host has a name");
    assert_eq!(worker.bind.port(), 8085);
    let with_pool = format!("{file}{}", managed());
    assert!(problems(load_named("w.toml", &with_pool, &with_token())).contains("pools: a worker's pools stand in"));
    let bad = format!("{file}id = \"a/b\"\nadvertise = \"http://x/\"\n");
    let said = problems(load_named("w.toml", &bad, &with_token()));
    assert!(said.contains("worker.id") && said.contains("worker.advertise"), "{said}");
}

/// LO-HST-08: what comes from an orchestrator is this host's own from then on: its paths, and what its own file allows.
#[test]
fn adopted_pools() {
    let sent: Vec<Value> =
        load_text(&managed()).expect("it loads").config.pools.iter().map(|pool| json!(pool)).collect();
    let own = Config::default();
    match own.adopt(&sent, &home()) {
        Err(ConfigError::Invalid(problems)) => {
            assert!(
                problems[0].path.ends_with("allow_binary_downloads"),
                "the orchestrator cannot allow it: {problems:?}"
            );
        }
        other => panic!("expected a problem, got {other:?}"),
    }
    let mut own = own;
    own.policy.outbound.allow_binary_downloads = true;
    let adopted = own.adopt(&sent, &Variables::from([("HOME", "/home/worker")])).expect("it is allowed");
    let pool = &adopted.pools[0];
    assert!(pool.is_managed_here());
    assert_eq!(pool.device_mask().as_deref(), Some("0,1"));
    let binary = pool.provisioning.binary.as_ref().expect("its table");
    assert_eq!(binary.install_dir.as_deref(), Some(std::path::Path::new("/home/worker/engines")));
    let newer = [json!({"id": "p", "engine": "llamacpp", "model": "m", "of_tomorrow": 1})];
    let error = own.adopt(&newer, &home()).expect_err("nobody knows what that means");
    assert!(error.to_string().contains("of_tomorrow"), "{error}");
}
