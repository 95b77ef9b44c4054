//! `orchestratord`: parse flags, load the configuration, run until told to stop.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::LazyLock;

use api_types::API_VERSION;
use clap::{Parser, Subcommand};
use config_schema::{Config, ConfigError, Loaded, LogFormat, Overrides, ProcessEnvironment, Sources};
use orchestratord::{backup, daemon};
use pool_managerd::startup::{log_config, log_format};

/// The orchestrator daemon: one front door for the LLM engines of a GPU workstation.
#[derive(Parser)]
#[command(name = "orchestratord", version = VERSION.as_str(), after_help = HELP)]
struct Flags {
    /// Configuration file, TOML or YAML. Default: $LLAMA_ORCH_CONFIG, ./llama-orch.toml, ~/.config/llama-orch/config.toml
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    /// Address and port to listen on; port 0 takes a free one
    #[arg(long, value_name = "ADDR")]
    bind: Option<SocketAddr>,
    /// Directory for catalog, artifacts, journal and run files
    #[arg(long, value_name = "DIR", global = true)]
    data_dir: Option<PathBuf>,
    /// How log lines look: auto, json or pretty
    #[arg(long, value_name = "FORMAT", value_parser = log_format)]
    log_format: Option<LogFormat>,
    /// Write the address that was bound to this file, once it accepts connections
    #[arg(long, value_name = "FILE")]
    port_file: Option<PathBuf>,
    /// Check the configuration, say what would be used, and exit
    #[arg(long)]
    check_config: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Copy the data directory, also while the daemon runs: journal, history, catalog and artifacts. Models are not copied.
    /// To restore, start with --data-dir on the copy, or put it where the data directory was
    Backup {
        /// Where to; a directory that does not exist, or is empty
        target: PathBuf,
    },
}

static VERSION: LazyLock<String> = LazyLock::new(|| format!("{} (API {API_VERSION})", env!("CARGO_PKG_VERSION")));

const HELP: &str = "\
Environment: LLAMA_ORCH_CONFIG, ORCHD_ADDR (alias BIND_ADDR), AUTH_TOKEN or AUTH_TOKEN_FILE, AUTH_OPTIONAL, TRUST_PROXY_AUTH,
ORCHD_SSE_CHANNEL_CAP, ORCHD_SSE_MICROBATCH, ORCHD_SSE_HEARTBEAT_MS, CANCEL_ON_DISCONNECT, RUST_LOG. For fetching models:
HF_TOKEN, HF_ENDPOINT, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, AWS_REGION, AWS_ENDPOINT_URL_S3,
OCI_REGISTRY, OCI_USERNAME, OCI_PASSWORD; SSL_CERT_FILE names certificates to trust instead of the system's.
Order: flags, environment, file, defaults.

SIGTERM and SIGINT stop it: no new connections, waiting tasks end at once, running ones have server.shutdown_grace_ms; a second
signal ends them now. SIGHUP reads the certificate of server.tls_cert and server.tls_key again.

Exit codes: 0 stopped as asked, 1 could not start or failed, 2 wrong flags or configuration.";

const EXIT_CONFIG: u8 = 2;

fn main() -> ExitCode {
    // An engine's guard is this program too, and has nothing else of it: no configuration, no thread, no log.
    if let Some(code) = pool_managerd::guard::run_if_asked() {
        return code;
    }
    let mut flags = Flags::parse();
    let port_file = flags.port_file.clone();
    let check_only = flags.check_config;
    let command = flags.command.take();
    let loaded = match load(flags) {
        Ok(loaded) => loaded,
        Err(error) => {
            eprintln!("orchestratord: {:#}", anyhow::Error::from(error));
            return ExitCode::from(EXIT_CONFIG);
        }
    };
    if let Some(Command::Backup { target }) = command {
        return backup(&loaded, &target);
    }
    if let Err(error) = daemon::check(&loaded) {
        eprintln!("orchestratord: {error:#}");
        return ExitCode::from(EXIT_CONFIG);
    }
    if check_only {
        println!(
            "{}: {} pools, would listen on {}",
            loaded.origin,
            loaded.config.pools.len(),
            loaded.config.server.bind
        );
        return ExitCode::SUCCESS;
    }
    run(loaded, port_file)
}

fn backup(loaded: &Loaded, target: &Path) -> ExitCode {
    match backup::run(&loaded.config, target) {
        Ok(copied) => {
            println!("{}: {} files, {} bytes", target.display(), copied.files, copied.bytes);
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("orchestratord: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn load(flags: Flags) -> Result<Loaded, ConfigError> {
    let mut sources = Sources::new(&ProcessEnvironment);
    sources.file = flags.config;
    sources.overrides =
        Overrides { bind: flags.bind, data_dir: flags.data_dir, log_format: flags.log_format, ..Overrides::default() };
    Config::load(&sources)
}

fn run(loaded: Loaded, port_file: Option<PathBuf>) -> ExitCode {
    let _log = match narration_core::init(&log_config(&loaded)) {
        Ok(guard) => guard,
        Err(error) => {
            eprintln!("orchestratord: {error}");
            return ExitCode::from(EXIT_CONFIG);
        }
    };
    for warning in &loaded.warnings {
        tracing::warn!(human = warning.as_str(), actor = "orchestratord", action = "load_config");
    }
    match daemon::run(loaded, port_file) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("orchestratord: {error:#}");
            ExitCode::FAILURE
        }
    }
}
