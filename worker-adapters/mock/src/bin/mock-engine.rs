//! `mock-engine`: a simulated engine that speaks llama-server's HTTP, for tests and benchmarks.

use std::io::Write as _;
use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use clap::Parser;
use mock::server::{Connection, Listener, deal, handle, serve};
use mock::{Config, Death, Faults, OutputLength, SeedBehaviour, Simulation};
use tokio::net::{TcpListener, UnixListener};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// A simulated engine that speaks llama-server's HTTP. Prints `listening URL` once it does.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// Address to listen on; port 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Unix socket to listen on instead
    #[arg(long, value_name = "PATH", conflicts_with = "listen")]
    unix: Option<PathBuf>,
    /// File to write the port to
    #[arg(long, value_name = "PATH", conflicts_with = "unix")]
    port_file: Option<PathBuf>,
    /// Threads that serve connections
    #[arg(long, default_value_t = NonZeroUsize::MIN)]
    threads: NonZeroUsize,
    /// Name of the model
    #[arg(long, default_value = "mock-model")]
    model: String,
    /// Requests served at the same time
    #[arg(long, default_value_t = NonZeroU32::MIN)]
    slots: NonZeroU32,
    /// Context of one slot, in tokens
    #[arg(long, default_value_t = 8192)]
    ctx: u32,
    /// Time the model takes to load, in milliseconds
    #[arg(long, default_value_t = 0)]
    load_ms: u64,
    /// Prompt tokens read per second; 0 reads any prompt at once
    #[arg(long, default_value_t = 0.0)]
    prefill_speed: f64,
    /// Prompt tokens between two progress events
    #[arg(long, default_value = "512")]
    prefill_batch: NonZeroU32,
    /// Time from one token to the next, in milliseconds; 0 decodes flat out
    #[arg(long, default_value_t = 0.0, conflicts_with = "tokens_per_second")]
    token_interval_ms: f64,
    /// Tokens per second instead of the interval; 0 decodes flat out
    #[arg(long)]
    tokens_per_second: Option<f64>,
    /// Tokens that one write may carry when several are due
    #[arg(long, default_value_t = NonZeroU32::MIN)]
    burst: NonZeroU32,
    /// The model is done after MIN to MAX tokens, drawn from prompt and seed
    #[arg(long, value_name = "MIN..MAX", value_parser = parse_range)]
    eos_after: Option<(u32, u32)>,
    /// The model is done after MIN to MAX percent of the tokens asked for, drawn from prompt and seed
    #[arg(long, value_name = "MIN..MAX", value_parser = parse_range, conflicts_with = "eos_after")]
    eos_percent: Option<(u32, u32)>,
    /// Draw a seed for each request, whatever it asks for
    #[arg(long)]
    ignore_seed: bool,
    /// Let output differ when part of the prompt came from the cache
    #[arg(long)]
    cache_sensitive: bool,
    /// Spell characters of several bytes in byte tokens, several to an event
    #[arg(long)]
    split_characters: bool,
    /// Length of embedding vectors; without it embeddings are refused
    #[arg(long, value_name = "LENGTH")]
    embedding_width: Option<NonZeroUsize>,
    /// Faults as JSON, or @FILE
    #[arg(long, value_parser = parse_faults)]
    faults: Option<Faults>,
    /// File with faults as JSON; they are set again whenever it changes
    #[arg(long, value_name = "PATH", conflicts_with = "faults")]
    faults_file: Option<PathBuf>,
}

/// Gap between two looks at a file of faults.
const LOOK_GAP: Duration = Duration::from_millis(50);

fn main() -> Result<()> {
    let args = Args::parse();
    let sim = Simulation::new(config(&args)?);
    sim.on_crash(die);
    let faults = args.faults_file.clone().map(FaultsFile::open).transpose()?;
    if let Some(file) = &faults {
        sim.set_faults(parse_faults(&file.text)?);
    }
    let runtime = runtime()?;
    let listener = runtime.block_on(listen(&args))?;
    runtime.block_on(async {
        if let Some(file) = faults {
            tokio::spawn(file.watch(sim.clone()));
        }
        if args.threads.get() == 1 {
            return serve(listener, sim).await;
        }
        let workers = (0..args.threads.get()).map(|_| worker(sim.clone())).collect::<std::io::Result<Vec<_>>>()?;
        deal(listener, &workers).await
    })?;
    Ok(())
}

fn config(args: &Args) -> Result<Config> {
    let interval = match args.tokens_per_second {
        Some(speed) if speed > 0.0 => Duration::try_from_secs_f64(1.0 / speed),
        Some(_) => Ok(Duration::ZERO),
        None => Duration::try_from_secs_f64(args.token_interval_ms / 1000.0),
    };
    Ok(Config {
        model: args.model.clone(),
        slots: args.slots,
        ctx: args.ctx,
        load_time: Duration::from_millis(args.load_ms),
        prefill_tokens_per_second: args.prefill_speed,
        prefill_batch: args.prefill_batch,
        token_interval: interval.context("the time between tokens is no time")?,
        burst: args.burst,
        output: output_length(args),
        seeds: if args.ignore_seed { SeedBehaviour::Ignored } else { SeedBehaviour::Honoured },
        cache_sensitive: args.cache_sensitive,
        split_characters: args.split_characters,
        embedding_width: args.embedding_width,
        faults: args.faults.clone().unwrap_or_default(),
    })
}

/// As llama.cpp dies of a CUDA error, or as asked for.
fn die(death: Death) {
    match death {
        Death::Exit(code) => std::process::exit(code.into()),
        Death::CudaError => {
            let mut stderr = std::io::stderr();
            // A report that nobody can read changes nothing.
            let _unread = stderr.write_all(CUDA_REPORT.as_bytes());
            std::process::abort();
        }
    }
}

/// Source: `ggml_cuda_error` and `ggml_abort` of llama.cpp.
const CUDA_REPORT: &str = "\
/src/llama.cpp/ggml/src/ggml-cuda/ggml-cuda.cu:98: CUDA error
CUDA error: an illegal memory access was encountered
  current device: 0, in function ggml_backend_cuda_synchronize at /src/llama.cpp/ggml/src/ggml-cuda/ggml-cuda.cu:2780
  cudaStreamSynchronize(cuda_ctx->stream())
";

/// A file of faults, as it was read last.
struct FaultsFile {
    path: PathBuf,
    text: String,
}

impl FaultsFile {
    fn open(path: PathBuf) -> Result<Self> {
        let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(Self { path, text })
    }

    /// Sets the faults whenever the file changes; what cannot be read or understood leaves them as they are.
    async fn watch(mut self, sim: Simulation) {
        loop {
            tokio::time::sleep(LOOK_GAP).await;
            let Ok(now) = Self::open(self.path.clone()) else { continue };
            if now.text == self.text {
                continue;
            }
            self = now;
            match parse_faults(&self.text) {
                Ok(faults) => sim.set_faults(faults),
                Err(problem) => eprintln!("{}: {problem:#}", self.path.display()),
            }
        }
    }
}

fn output_length(args: &Args) -> OutputLength {
    match (args.eos_after, args.eos_percent) {
        (Some((low, high)), _) => OutputLength::Between(low, high),
        (None, Some((low, high))) => OutputLength::Percent(low, high),
        (None, None) => OutputLength::AsAsked,
    }
}

async fn listen(args: &Args) -> Result<Listener> {
    if let Some(path) = &args.unix {
        if path.exists() {
            std::fs::remove_file(path).with_context(|| format!("cannot replace {}", path.display()))?;
        }
        let listener = UnixListener::bind(path).with_context(|| format!("cannot listen on {}", path.display()))?;
        announce(&format!("unix:{}", path.display()))?;
        return Ok(Listener::Unix(listener));
    }
    let listener = TcpListener::bind(args.listen).await.with_context(|| format!("cannot listen on {}", args.listen))?;
    let address = listener.local_addr()?;
    if let Some(path) = &args.port_file {
        std::fs::write(path, address.port().to_string()).with_context(|| format!("cannot write {}", path.display()))?;
    }
    announce(&format!("http://{address}"))?;
    Ok(Listener::Tcp(listener))
}

fn announce(url: &str) -> Result<()> {
    let mut stdout = std::io::stdout();
    writeln!(stdout, "listening {url}")?;
    Ok(stdout.flush()?)
}

fn runtime() -> std::io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}

/// A thread with its own runtime: a connection stays on one core, which is cheaper than any work stealing.
fn worker(sim: Simulation) -> std::io::Result<UnboundedSender<Connection>> {
    // Unbounded, since what waits in it is a connection the system has accepted already.
    let (sender, receiver) = unbounded_channel();
    let runtime = runtime()?;
    std::thread::Builder::new().spawn(move || runtime.block_on(work(receiver, sim)))?;
    Ok(sender)
}

async fn work(mut connections: UnboundedReceiver<Connection>, sim: Simulation) {
    while let Some(connection) = connections.recv().await {
        tokio::spawn(handle(connection, sim.clone()));
    }
}

fn parse_range(text: &str) -> Result<(u32, u32)> {
    let (low, high) = text.split_once("..").ok_or_else(|| anyhow!("expected MIN..MAX"))?;
    let (low, high) = (low.parse()?, high.parse()?);
    if low > high { Err(anyhow!("MIN is above MAX")) } else { Ok((low, high)) }
}

fn parse_faults(text: &str) -> Result<Faults> {
    let json = match text.strip_prefix('@') {
        Some(path) => std::fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?,
        None => text.to_owned(),
    };
    Ok(serde_json::from_str(&json)?)
}
