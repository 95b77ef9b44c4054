//! Bad files fail for the right reason.

use config_schema::{Config, ConfigError, Misfit, Problem, Sources, UnknownKeys};

use crate::support::{POOL, Variables, home, load_named, load_text};

fn misfits(result: Result<config_schema::Loaded, ConfigError>) -> Vec<Misfit> {
    match result {
        Err(ConfigError::Parse { misfits, .. }) => misfits,
        other => panic!("expected misfits, got {other:?}"),
    }
}

fn problems(result: Result<config_schema::Loaded, ConfigError>) -> Vec<Problem> {
    match result {
        Err(ConfigError::Invalid(problems)) => problems,
        other => panic!("expected problems, got {other:?}"),
    }
}

/// OC-CONFIG-6001: a misspelt key is refused with its path, its place and the nearest valid key.
#[test]
fn a_misspelt_key_is_named_with_the_nearest_valid_one() {
    let text = "[stream]\nheartbeat_ms = 5\nchanel_cap = 3\n";
    let found = misfits(load_text(text));
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].error.path, "stream");
    assert_eq!(found[0].error.nearest.as_deref(), Some("channel_cap"));
    let position = found[0].position.expect("a position");
    assert_eq!((position.line, position.column), (3, 1));
}

/// OC-CONFIG-6001: all misfits are reported in one go, each at its own place.
#[test]
fn several_misfits_are_reported_together() {
    let text = format!(
        "[server]\nbnd = \"x\"\nmax_body_bytes = \"many\"\n{POOL}quannt = \"Q4\"\nengin = \"vlm\"\n[[pools]]\nid = \"b\"\nengine = \"vlm\"\nmodel = \"m\"\n"
    );
    let found = misfits(load_text(&text));
    let shown: Vec<(Option<usize>, String, Option<String>)> = found
        .iter()
        .map(|misfit| (misfit.position.map(|p| p.line), misfit.error.path.clone(), misfit.error.nearest.clone()))
        .collect();
    let expected = [
        (Some(2), "server", Some("bind")),
        (Some(3), "server.max_body_bytes", None),
        (Some(11), "pools[0]", Some("quant")),
        (Some(12), "pools[0]", Some("engine")),
        (Some(15), "pools[1].engine", Some("vllm")),
    ];
    assert_eq!(shown, expected.map(|(line, path, near)| (line, path.to_owned(), near.map(str::to_owned))), "{found:?}");
}

/// Syntax errors have a place in both notations; a missing field has that of its table.
#[test]
fn places_of_errors() {
    let cases = [
        ("a.toml", "[server]\nbind = \n", Some((2, 8)), ""),
        ("a.yaml", "server:\n  bind: [\n", Some((3, 1)), ""),
        ("a.toml", "[[pools]]\nid = \"a\"\nengine = \"mock\"\n", Some((1, 1)), "pools[0]"),
        ("a.yaml", "server:\n  bnd: x\n", None, "server"),
    ];
    for (name, text, place, path) in cases {
        let found = misfits(load_named(name, text, &home()));
        assert_eq!(found[0].position.map(|p| (p.line, p.column)), place, "{name} {text}: {found:?}");
        assert_eq!(found[0].error.path, path, "{text}: {found:?}");
    }
}

/// An empty file, also one of comments only, is a valid one.
#[test]
fn an_empty_file_gives_the_defaults() {
    for name in ["a.toml", "a.yaml"] {
        let loaded = load_named(name, "# nothing\n", &home()).expect(name);
        assert!(loaded.config.pools.is_empty());
    }
}

/// OC-CONFIG-6001: the compatibility mode warns about unknown keys and about nothing else.
#[test]
fn the_compatibility_mode_ignores_unknown_keys_only() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("c.toml");
    let variables = home();
    let load = |text: &str| {
        std::fs::write(&path, text).expect("written");
        let sources = Sources { file: Some(path.clone()), unknown_keys: UnknownKeys::Warn, ..Sources::new(&variables) };
        Config::load(&sources)
    };
    let loaded = load("[server]\nbnd = 1\nthreads = 2\n[future]\nx = 1\n").expect("only unknown keys");
    assert_eq!(loaded.warnings.len(), 2, "{:?}", loaded.warnings);
    assert_eq!(loaded.config.server.threads.map(std::num::NonZeroUsize::get), Some(2));
    assert_eq!(misfits(load("[server]\nbnd = 1\nthreads = 0\n")).len(), 1);
}

/// LO-CFG-20, LO-CFG-03: the rules between values, all reported at once with path and remedy.
#[test]
fn rules_between_values() {
    let cases: &[(&str, &str, &str)] = &[
        ("id = \"\"", "id", "letters"),
        ("id = \"a/b\"", "id", "letters"),
        ("model = \" \"", "model", "model"),
        ("slots = 2\ndeterminism = \"strict\"", "slots", "best_effort"),
        ("devices = [1, 1]", "devices", "twice"),
        ("devices = [0]\ntensor_split = [1.0, 2.0]", "tensor_split", "2 ratios for 1 devices"),
        ("devices = [0, 1]\ntensor_split = [1.0, -2.0]", "tensor_split", "greater than 0"),
        ("calls.breaker_window_ms = 0", "calls.breaker_window_ms", "greater than 0"),
        ("timeouts.idle_ms = 700000", "timeouts.idle_ms", "600000"),
        ("timeouts.wall_ms = 0\ntimeouts.idle_ms = 0", "timeouts.wall_ms", "greater than 0"),
        (
            "admission.priorities = [{ name = \"batch\", queue_capacity = 65 }]",
            "admission.priorities[0].queue_capacity",
            "queue.capacity",
        ),
        (
            "admission.priorities = [{ name = \"batch\" }, { name = \"batch\" }]",
            "admission.priorities[1].name",
            "twice",
        ),
        (
            "admission.priorities = [{ name = \"batch\", rate_limit_rps = 0.0 }]",
            "admission.priorities[0].rate_limit_rps",
            "greater than 0",
        ),
        (
            "admission.priorities = [{ name = \"batch\", rate_limit_burst = 2 }]",
            "admission.priorities[0].rate_limit_burst",
            "give the rate too",
        ),
        (
            "admission.priorities = [{ name = \"batch\", weight = 1 }]",
            "admission.priorities[0].weight",
            "`interactive`, which has none",
        ),
        (
            "admission.priorities = [{ name = \"batch\" }, { name = \"interactive\", weight = 4 }]",
            "admission.priorities[1].weight",
            "`batch`, which has none",
        ),
        (
            "provisioning.mode = \"external\"\nprovisioning.external = { url = \"http://h:1\", replicas = [\"http://h:2\", \"http://h:1/\"] }",
            "provisioning.external.replicas[1]",
            "name each once",
        ),
        ("provisioning.mode = \"source\"", "devices", "GPUs"),
        ("devices = [0]\nprovisioning.mode = \"source\"", "provisioning.source", "`repo` and `ref`"),
        ("devices = [0]\nprovisioning.mode = \"container\"", "provisioning.container", "`image`"),
        ("devices = [0]\nprovisioning.mode = \"package\"", "provisioning.package", "`name`"),
        ("devices = [0]\nprovisioning.mode = \"binary\"", "provisioning.binary", "`url` and `checksum`"),
        ("provisioning.mode = \"external\"", "provisioning.external", "`url`"),
        (
            "devices = [0]\nprovisioning.mode = \"package\"\nprovisioning.package.name = \"x\"",
            "provisioning.allow_package_installs",
            "allow_package_installs = true",
        ),
        ("engine = \"openai\"\nprovisioning.mode = \"source\"", "provisioning.mode", "external"),
    ];
    for (lines, path, says) in cases {
        let found = problems(load_text(&pool_with(lines)));
        let path = format!("pools[0].{path}");
        let hit = found.iter().any(|problem| problem.path == path && problem.what.contains(says));
        assert!(hit, "{lines}: {found:?}");
    }
}

/// LO-CFG-20: a limit that cannot hold, or that nobody could pass, is refused by its key.
#[test]
fn limits_hold_or_are_refused() {
    let cases: &[(&str, &str)] = &[
        ("[server]\npeer_timeout_ms = 0", "server.peer_timeout_ms"),
        ("[server]\nmax_connections = 5\nmax_connections_per_address = 6", "server.max_connections_per_address"),
        ("[sessions]\ntokens_budget = 0", "sessions.tokens_budget"),
        ("[sessions]\ntime_budget_ms = 0", "sessions.time_budget_ms"),
        ("[sessions]\ncost_budget = 0.0\ncost_per_1k_tokens = 1.0", "sessions.cost_budget"),
        ("[sessions]\ncost_budget = 5.0", "sessions.cost_per_1k_tokens"),
        ("[sessions]\ncost_budget = 5.0\ncost_per_1k_tokens = 0.0", "sessions.cost_per_1k_tokens"),
        ("[sessions]\ncost_per_1k_tokens = -1.0", "sessions.cost_per_1k_tokens"),
        ("[admission]\ntoken_rate_limit_rps = 0.0", "admission.token_rate_limit_rps"),
        ("[admission]\ntoken_rate_limit_burst = 9", "admission.token_rate_limit_burst"),
        ("[policy.outbound]\nallow = [\"https://example.org\"]", "policy.outbound.allow[0]"),
        ("[policy.outbound]\nallow = [\"[::1]\", \"example.org:443\"]", "policy.outbound.allow[1]"),
        ("[policy.outbound]\nallow = [\"*.example.org\", \"example.*\"]", "policy.outbound.allow[1]"),
    ];
    for (text, path) in cases {
        let found = problems(load_text(text));
        let paths: Vec<&str> = found.iter().map(|problem| problem.path.as_str()).collect();
        assert_eq!(paths, [*path], "{text}: {found:?}");
    }
    assert!(
        load_text("[sessions]\ntokens_budget = 1\ntime_budget_ms = 1\ncost_budget = 0.5\ncost_per_1k_tokens = 0.1\n")
            .is_ok()
    );
}

/// LO-CFG-03: a number without an end is refused where it stands instead of being taken for "unset".
#[test]
fn numbers_are_finite() {
    let toml = format!("[sessions]\ncost_budget = nan\n{POOL}devices = [0, 1]\ntensor_split = [0.5, inf]\n");
    let yaml = "sessions:\n  cost_budget: .nan\nadmission:\n  token_rate_limit_rps: -.inf\n";
    for (name, text, expected) in [
        ("a.toml", toml.as_str(), [(Some(2), "sessions.cost_budget"), (Some(11), "pools[0].tensor_split[1]")]),
        ("a.yaml", yaml, [(None, "admission.token_rate_limit_rps"), (None, "sessions.cost_budget")]),
    ] {
        let found = misfits(load_named(name, text, &home()));
        let places: Vec<_> =
            found.iter().map(|misfit| (misfit.position.map(|p| p.line), misfit.error.path.as_str())).collect();
        assert_eq!(places, expected, "{found:?}");
        assert!(found.iter().all(|misfit| misfit.error.problem == "expected a finite number"), "{found:?}");
    }
}

/// A pool with these lines, and whatever else it must have unless the lines say it.
fn pool_with(lines: &str) -> String {
    let mut text = String::from("[[pools]]\n");
    for (key, value) in [("id", "\"gpu0\""), ("engine", "\"llamacpp\""), ("model", "\"m\"")] {
        if !lines.contains(&format!("{key} = ")) {
            text.push_str(&format!("{key} = {value}\n"));
        }
    }
    if !lines.contains("provisioning") {
        text.push_str("provisioning.mode = \"external\"\nprovisioning.external.url = \"http://127.0.0.1:1\"\n");
    }
    text + lines
}

/// LO-CFG-20: two pools share neither an id nor a port.
#[test]
fn pools_do_not_share_ids_and_ports() {
    let text =
        format!("{POOL}provisioning.ports = [9000]\n{POOL}provisioning.ports = [9000]\n[stream]\nmicrobatch_ms = 60\n");
    let found = problems(load_text(&text));
    let paths: Vec<&str> = found.iter().map(|problem| problem.path.as_str()).collect();
    assert_eq!(paths, ["stream.microbatch_ms", "pools[1].id", "pools[1].provisioning.ports[0]"], "{found:?}");
}

/// LO-CFG-03: formats are tight. Texts that are refused are not repeated, since they may hold a password.
#[test]
fn tight_formats() {
    let cases = [
        ("provisioning.external.url", "ftp://h"),
        ("provisioning.external.url", "http://"),
        ("provisioning.external.url", "unix:relative"),
        ("provisioning.external.url", "http://user:hunter2@host"),
        ("provisioning.source.repo", "github.com/x/y"),
        ("provisioning.source.repo", "https://user:hunter2@host/x"),
        ("provisioning.model.checksum", "sha256:XY"),
        ("provisioning.model.checksum", "md5:00"),
        ("provisioning.container.digest", "latest"),
        ("provisioning.binary.url", "file.tar"),
    ];
    for (key, value) in cases {
        let text = format!("[[pools]]\nid = \"a\"\nengine = \"llamacpp\"\nmodel = \"m\"\n{key} = \"{value}\"\n");
        let found = misfits(load_text(&text));
        let path = format!("pools[0].{key}");
        let hit = found.iter().any(|misfit| misfit.error.path == path && misfit.error.problem.starts_with("expected"));
        assert!(hit, "{key}: {found:?}");
        assert!(!format!("{found:?}").contains("hunter2"));
    }
}

/// OC-CONFIG-6032, AUTH-1002, HME-002: a wider address without a token is refused, and the message says what to set.
#[test]
fn a_wide_address_needs_a_token() {
    let text = "[server]\nbind = \"0.0.0.0:8080\"\n";
    let found = problems(load_text(text));
    assert_eq!(found[0].path, "server.bind");
    assert!(found[0].what.contains("NON_LOOPBACK_WITHOUT_TOKEN") && found[0].what.contains("AUTH_TOKEN"));
    let with_token = Variables::from([("HOME", "/h"), ("AUTH_TOKEN", "0123456789abcdef")]);
    assert!(load_named("c.toml", text, &with_token).is_ok());
}

/// A tilde without a home directory is a problem of its own, not a directory named `~`.
#[test]
fn a_tilde_needs_a_home_directory() {
    let found = problems(load_named("c.toml", POOL, &Variables::new()));
    let paths: Vec<&str> = found.iter().map(|problem| problem.path.as_str()).collect();
    assert_eq!(paths, ["server.data_dir", "catalog.models_dir", "engines.cache_dir"]);
}
