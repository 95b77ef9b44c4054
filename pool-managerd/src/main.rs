//! `pool-managerd`: parse flags, load the configuration, run until told to stop.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::LazyLock;

use api_types::{API_VERSION, WORKER_PROTOCOL};
use clap::Parser;
use config_schema::{Config, ConfigError, Loaded, LogFormat, Overrides, ProcessEnvironment, Sources};
use pool_managerd::startup::{log_config, log_format};
use pool_managerd::worker;

/// Runs engines on this host for an orchestrator on another one.
#[derive(Parser)]
#[command(name = "pool-managerd", version = VERSION.as_str(), after_help = HELP)]
struct Flags {
    /// Configuration file, TOML or YAML. Default: $LLAMA_ORCH_CONFIG, ./llama-orch.toml, ~/.config/llama-orch/config.toml
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Directory for catalog, logs and run files
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// How log lines look: auto, json or pretty
    #[arg(long, value_name = "FORMAT", value_parser = log_format)]
    log_format: Option<LogFormat>,
    /// Write the address of the relay to this file, once it accepts connections
    #[arg(long, value_name = "FILE")]
    port_file: Option<PathBuf>,
    /// Check the configuration, say what would be used, and exit
    #[arg(long)]
    check_config: bool,
}

static VERSION: LazyLock<String> =
    LazyLock::new(|| format!("{} (API {API_VERSION}, workers' protocol {WORKER_PROTOCOL})", env!("CARGO_PKG_VERSION")));

const HELP: &str = "\
The file needs a [worker] table with the orchestrator's address; the pools stand in the orchestrator's own file, each with the
name of its worker. [server].data_dir, [engines], [catalog] and [policy] are this host's own.

Environment: LLAMA_ORCH_CONFIG, AUTH_TOKEN or AUTH_TOKEN_FILE (the orchestrator's token), RUST_LOG. For fetching models:
HF_TOKEN, HF_ENDPOINT, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, AWS_REGION, AWS_ENDPOINT_URL_S3,
OCI_REGISTRY, OCI_USERNAME, OCI_PASSWORD; SSL_CERT_FILE names certificates to trust instead of the system's.

The relay speaks plain HTTP: prompts and answers cross the network between the two hosts as they are. Use it in a network that
you trust, or over a VPN.

SIGTERM and SIGINT stop it: running tasks have server.shutdown_grace_ms, then its engines end; a second signal ends them now.

Exit codes: 0 stopped as asked, 1 could not start or failed, 2 wrong flags or configuration.";

const EXIT_CONFIG: u8 = 2;

fn main() -> ExitCode {
    // An engine's guard is this program too, and has nothing else of it: no configuration, no thread, no log.
    if let Some(code) = pool_managerd::guard::run_if_asked() {
        return code;
    }
    let mut flags = Flags::parse();
    let port_file = flags.port_file.take();
    let check_only = flags.check_config;
    let loaded = match load(flags) {
        Ok(loaded) => loaded,
        Err(error) => return refuse(&anyhow::Error::from(error)),
    };
    match worker::check(&loaded) {
        Err(error) => return refuse(&error),
        Ok((worker, _)) if check_only => {
            let (id, orchestrator, bind) = (worker.id(), &worker.orchestrator, worker.bind);
            println!("{}: worker {id} of {orchestrator}, would listen on {bind}", loaded.origin);
            return ExitCode::SUCCESS;
        }
        Ok(_) => {}
    }
    run(loaded, port_file)
}

fn refuse(error: &anyhow::Error) -> ExitCode {
    eprintln!("pool-managerd: {error:#}");
    ExitCode::from(EXIT_CONFIG)
}

fn load(flags: Flags) -> Result<Loaded, ConfigError> {
    let mut sources = Sources::new(&ProcessEnvironment);
    sources.file = flags.config;
    sources.overrides = Overrides { data_dir: flags.data_dir, log_format: flags.log_format, ..Overrides::default() };
    Config::load(&sources)
}

fn run(loaded: Loaded, port_file: Option<PathBuf>) -> ExitCode {
    let _log = match narration_core::init(&log_config(&loaded)) {
        Ok(guard) => guard,
        Err(error) => return refuse(&error.into()),
    };
    for warning in &loaded.warnings {
        tracing::warn!(human = warning.as_str(), actor = "pool-managerd", action = "load_config");
    }
    match worker::run(loaded, port_file) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("pool-managerd: {error:#}");
            ExitCode::FAILURE
        }
    }
}
