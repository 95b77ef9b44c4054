//! Which file is read, and what wins over it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use api_types::{DeterminismLevel, Engine, Priority};
use config_schema::{
    Config, ConfigError, EngineUrl, LogFormat, Origin, Overrides, PlacementOverride, ProvisioningMode, RateLimit,
    Sources,
};

use crate::support::{POOL, Variables, home, load_named, load_text};

/// DESIGN section 4: flag, variable, working directory, home directory, defaults.
#[test]
fn the_order_of_files() {
    let root = tempfile::tempdir().expect("a directory");
    let write = |name: &str| {
        let path = root.path().join(name);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("created");
        std::fs::write(&path, POOL).expect("written");
        path
    };
    let variable = |path: &Path| -> &'static str { path.display().to_string().leak() };
    let home = variable(root.path());
    let origin = |file: Option<PathBuf>, variables: Variables| {
        let directory = root.path().join("here");
        Config::load(&Sources { file, directory, ..Sources::new(&variables) }).expect("loads").origin
    };
    let only_home = || Variables::from([("HOME", home)]);
    assert_eq!(origin(None, only_home()), Origin::Defaults);
    let in_home = write(".config/llama-orch/config.toml");
    assert_eq!(origin(None, only_home()), Origin::Home(in_home));
    let here = write("here/llama-orch.toml");
    assert_eq!(origin(None, only_home()), Origin::WorkingDirectory(here));
    let named = write("named.toml");
    let both = || Variables::from([("HOME", home), ("LLAMA_ORCH_CONFIG", "~/named.toml")]);
    assert_eq!(origin(None, both()), Origin::Environment(named));
    let flag = write("flag.toml");
    assert_eq!(origin(Some(flag.clone()), both()), Origin::Flag(flag));
}

/// A file that was named must exist; falling back to another one would run the wrong pools.
#[test]
fn a_named_file_must_exist() {
    let variables = Variables::from([("HOME", "/h"), ("LLAMA_ORCH_CONFIG", "/nowhere/c.toml")]);
    let result = Config::load(&Sources::new(&variables));
    assert!(matches!(result, Err(ConfigError::Read { .. })), "{result:?}");
}

/// LO-CFG-01, LO-CFG-10, LO-SSE-30: flags win over the environment, which wins over the file.
#[test]
fn flags_then_environment_then_file() {
    let text = "[server]\nbind = \"127.0.0.1:1\"\nauth_optional = true\n[stream]\nchannel_cap = 1\nnarration = true\n";
    let mut variables = home();
    let file = load_named("c.toml", text, &variables).expect("loads").config;
    assert_eq!(file.server.bind.port(), 1);
    variables.extend([
        ("ORCHD_ADDR", "localhost:2"),
        ("AUTH_OPTIONAL", "false"),
        ("TRUST_PROXY_AUTH", "1"),
        ("ORCHD_SSE_CHANNEL_CAP", "64"),
        ("ORCHD_SSE_MICROBATCH", "true"),
        ("ORCHD_SSE_HEARTBEAT_MS", "15000"),
        ("ORCHD_SSE_LOGS_ENABLED", "off"),
        ("ORCHD_SSE_LOGS_PERIOD_MS", "500"),
        ("CANCEL_ON_DISCONNECT", "no"),
    ]);
    let config = load_named("c.toml", text, &variables).expect("loads").config;
    assert_eq!(config.server.bind.to_string(), "127.0.0.1:2");
    assert_eq!((config.server.auth_optional, config.server.trust_proxy_auth), (Some(false), true));
    assert_eq!(config.stream.channel_cap.get(), 64);
    assert!(config.stream.microbatch().is_some_and(|window| window <= Duration::from_millis(50)));
    assert_eq!(config.stream.heartbeat(), Some(Duration::from_secs(15)));
    assert_eq!(config.stream.narration_period(), Some(Duration::from_millis(500)));
    assert!(!config.stream.narration && !config.stream.cancel_on_disconnect);

    let overrides = Overrides {
        bind: Some("127.0.0.1:3".parse().expect("an address")),
        data_dir: Some("~/elsewhere".into()),
        log_format: Some(LogFormat::Pretty),
        ..Overrides::default()
    };
    let config = Config::load(&Sources { overrides, ..Sources::new(&variables) }).expect("loads").config;
    assert_eq!(config.server.bind.port(), 3);
    assert_eq!(config.server.data_dir, Path::new("/home/someone/elsewhere"));
    assert_eq!(config.log.format, LogFormat::Pretty);
}

/// C4: `BIND_ADDR` is an alias; when both are set and differ, `ORCHD_ADDR` wins and the operator is told.
#[test]
fn the_alias_of_the_address() {
    let load = |pairs: &[(&'static str, &'static str)]| {
        let mut variables = home();
        variables.extend(pairs.iter().copied());
        let loaded = load_named("c.toml", "", &variables).expect("loads");
        (loaded.config.server.bind.port(), loaded.warnings.len())
    };
    assert_eq!(load(&[("BIND_ADDR", "127.0.0.1:5")]), (5, 0));
    assert_eq!(load(&[("BIND_ADDR", "127.0.0.1:5"), ("ORCHD_ADDR", "127.0.0.1:5")]), (5, 0));
    assert_eq!(load(&[("BIND_ADDR", "127.0.0.1:5"), ("ORCHD_ADDR", "127.0.0.1:6")]), (6, 1));
}

/// Variables are held to their types like the file; every bad one is reported.
#[test]
fn bad_variables_are_problems() {
    let mut variables = home();
    variables.extend([
        ("ORCHD_ADDR", "nowhere"),
        ("AUTH_OPTIONAL", "maybe"),
        ("ORCHD_SSE_CHANNEL_CAP", "0"),
        ("AUTH_TOKEN", ""),
    ]);
    let Err(ConfigError::Invalid(problems)) = load_named("c.toml", "", &variables) else { panic!("expected problems") };
    let paths: Vec<&str> = problems.iter().map(|problem| problem.path.as_str()).collect();
    assert_eq!(paths, ["ORCHD_ADDR", "AUTH_OPTIONAL", "ORCHD_SSE_CHANNEL_CAP", "AUTH_TOKEN"]);
}

/// HME-003, AUTH-1008: tokens come from the environment or a file named there, and no Debug output shows them.
#[test]
fn tokens_stay_out_of_the_file_and_of_debug_output() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("token");
    std::fs::write(&path, "hunter2-hunter2-hunter2\n").expect("written");
    let mut variables = home();
    variables.insert("AUTH_TOKEN_FILE", path.display().to_string().leak());
    let loaded = load_named("c.toml", "", &variables).expect("loads");
    assert_eq!(loaded.token.as_ref().map(|token| token.expose()), Some("hunter2-hunter2-hunter2"));
    assert!(!format!("{loaded:?}").contains("hunter2"));

    variables.insert("AUTH_TOKEN", "short");
    let loaded = load_named("c.toml", "", &variables).expect("loads");
    assert_eq!(loaded.token.as_ref().map(|token| token.expose()), Some("short"));
    assert_eq!(loaded.warnings.len(), 2, "which one counts, and that it is short: {:?}", loaded.warnings);

    let missing = Variables::from([("HOME", "/h"), ("AUTH_TOKEN_FILE", "/nowhere/token")]);
    assert!(matches!(load_named("c.toml", "", &missing), Err(ConfigError::Invalid(_))));
}

/// Keys of engines are read once, from the variables that the file names.
#[test]
fn engine_keys_come_from_named_variables() {
    let text = format!("{POOL}provisioning.external.api_key_env = \"ENGINE_KEY\"\n");
    let mut variables = home();
    assert_eq!(load_named("c.toml", &text, &variables).expect("loads").warnings.len(), 1);
    variables.insert("ENGINE_KEY", "sk-123");
    let loaded = load_named("c.toml", &text, &variables).expect("loads");
    assert_eq!(loaded.engine_keys["gpu0"].expose(), "sk-123");
    assert!(loaded.warnings.is_empty());
}

/// DESIGN sections 4 and 8: a pool that says nothing of determinism is strict with one slot and best effort with more.
#[test]
fn slots_decide_determinism() {
    let with_slots = |slots: u32| load_text(&POOL.replace("[[pools]]", &format!("[[pools]]\nslots = {slots}")));
    let determinism = |slots| with_slots(slots).expect("loads").config.pools[0].determinism();
    assert_eq!(determinism(1), DeterminismLevel::Strict);
    assert_eq!(determinism(2), DeterminismLevel::BestEffort);
}

/// LO-CFG-20, DESIGN sections 4 and 8: the defaults.
#[test]
fn defaults() {
    let config = load_text(POOL).expect("loads").config;
    assert_eq!(config.server.bind.to_string(), "127.0.0.1:8080");
    assert_eq!(config.server.data_dir, Path::new("/home/someone/.local/share/llama-orch"));
    assert_eq!(config.catalog.models_dir, Path::new("/home/someone/.cache/models"));
    assert_eq!((config.sessions.ttl_ms.get(), config.sessions.max_turns.get()), (600_000, 8));
    assert_eq!(
        (config.stream.channel_cap.get(), config.stream.microbatch(), config.stream.heartbeat()),
        (32, None, None)
    );
    assert_eq!(config.admission.placement_overrides, PlacementOverride::ALL);
    assert_eq!(config.admission.token_rate_limit(), None);
    assert_eq!((config.history.retain_days, config.history.max_tasks), (30, 100_000));
    let pool = &config.pools[0];
    assert_eq!((pool.slots.get(), pool.determinism(), pool.queue.capacity.get()), (1, DeterminismLevel::Strict, 64));
    assert_eq!((pool.timeouts.wall_ms, pool.timeouts.idle_ms), (600_000, 30_000));
    assert!(pool.is_kept() && pool.require_same_engine_version && pool.idle_unload().is_none());
    assert!(!config.allows_package_installs(pool) && !config.allows_binary_downloads(pool));
}

/// A burst that is not given is one second's tasks, and one at least.
#[test]
fn the_rate_decides_the_burst() {
    for (settings, per_second, burst) in [
        ("rate_limit_rps = 0.25", 0.25, 1),
        ("rate_limit_rps = 2.5", 2.5, 3),
        ("rate_limit_rps = 1e12", 1e12, u32::MAX),
        ("rate_limit_rps = 2.5, rate_limit_burst = 10", 2.5, 10),
    ] {
        let text = format!("{POOL}admission.priorities = [{{ name = \"batch\", {settings} }}]\n");
        let pool = load_text(&text).expect("loads").config.pools.remove(0);
        let limit = pool.admission.limits(Priority::Batch).and_then(|limits| limits.rate_limit());
        let expected = RateLimit { per_second, burst: burst.try_into().expect("at least one") };
        assert_eq!(limit, Some(expected), "{settings}");
    }
}

/// The engines of an external pool, the first one first.
#[test]
fn a_pool_lists_its_replicas() {
    let text = format!("{POOL}provisioning.external.replicas = [\"http://127.0.0.1:2\", \"unix:/run/b.sock\"]\n");
    let pool = load_text(&text).expect("loads").config.pools.remove(0);
    let urls: Vec<&str> =
        pool.provisioning.external.iter().flat_map(|external| external.urls()).map(EngineUrl::as_str).collect();
    assert_eq!(urls, ["http://127.0.0.1:18080", "http://127.0.0.1:2", "unix:/run/b.sock"]);
}

/// ORCH-3800: the mode follows the engine unless it is set.
#[test]
fn the_usual_mode_of_an_engine() {
    let mut pool = load_text(POOL).expect("loads").config.pools.remove(0);
    pool.provisioning.mode = None;
    let usual = [
        (Engine::Llamacpp, ProvisioningMode::Source),
        (Engine::Vllm, ProvisioningMode::Container),
        (Engine::Tgi, ProvisioningMode::Container),
        (Engine::Triton, ProvisioningMode::Container),
        (Engine::Openai, ProvisioningMode::External),
        (Engine::Mock, ProvisioningMode::External),
    ];
    for (engine, mode) in usual {
        pool.engine = engine;
        assert_eq!(pool.mode(), mode, "{engine}");
    }
}
