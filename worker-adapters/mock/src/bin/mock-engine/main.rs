//! `mock-engine`: a simulated engine that speaks llama-server's HTTP, for tests and benchmarks.

mod args;
mod ending;
mod faults_file;
mod gpu;
mod header;
mod listen;
mod load;
mod memory;

use std::io::Write as _;
use std::time::Duration;

use anyhow::Result;
use mock::server::{Connection, Listener, deal, handle, serve};
use mock::{FaultKind, Faults, Simulation};
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::args::Args;
use crate::faults_file::FaultsFile;
use crate::load::{Load, Loaded};

fn main() -> Result<()> {
    let args = Args::read();
    if args.version {
        let (number, commit) = args.build().split_once('-').unwrap_or((args.build(), ""));
        eprintln!("version: {number} ({commit})\nbuilt with cc (mock) for x86_64-linux-gnu");
        return Ok(());
    }
    let sim = Simulation::new(args.config()?);
    sim.on_crash(ending::die);
    let faults = args.faults_file.clone().map(FaultsFile::open).transpose()?;
    if let Some(file) = &faults {
        sim.set_faults(file.faults()?);
    }
    let load = Load::begin(&args, sim.clone());
    let runtime = runtime()?;
    runtime.block_on(async {
        if let Some(file) = faults {
            tokio::spawn(file.watch(sim.clone()));
        }
        end_when_asked(sim.clone(), load.talks())?;
        let (listener, url) = listen::listen(&args).await?;
        if load.is_instant() {
            // Nobody is told of it before it is ready.
            tokio::spawn(live(sim.clone(), load.run(&url).await));
            listen::announce(&url)?;
        } else {
            listen::announce(&url)?;
            let sim = sim.clone();
            tokio::spawn(async move { live(sim, load.run(&url).await).await });
        }
        serve_all(listener, &sim, args.threads()).await
    })
}

async fn serve_all(listener: Listener, sim: &Simulation, threads: usize) -> Result<()> {
    if threads == 1 {
        return Ok(serve(listener, sim.clone()).await?);
    }
    let workers = (0..threads).map(|_| worker(sim.clone())).collect::<std::io::Result<Vec<_>>>()?;
    Ok(deal(listener, &workers).await?)
}

/// Ends without an error when it is asked to, as llama-server does, unless a fault keeps it from that.
fn end_when_asked(sim: Simulation, talks: bool) -> Result<()> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if sim.faults().faults.iter().any(|fault| fault.fault == FaultKind::IgnoreSigterm) {
                continue;
            }
            if talks {
                // Whoever read it may be gone, and that is no reason to stay.
                let _unread = writeln!(std::io::stderr(), "srv    operator(): operator(): cleaning up before exit...");
            }
            std::process::exit(0);
        }
    });
    Ok(())
}

/// Holds what is loaded, and lets faults strike that need no request.
async fn live(sim: Simulation, _loaded: Loaded) {
    let mut seen = 0;
    let mut faults = sim.faults();
    loop {
        tokio::select! {
            biased;
            replaced = sim.faults_after(seen) => (faults, seen) = replaced,
            () = strike_in_life(&faults) => {}
        }
    }
}

/// Never returns: what has struck and left the process alive does not strike again.
async fn strike_in_life(faults: &Faults) {
    for fault in &faults.faults {
        if let FaultKind::InLife { after_ms, stderr, end } = &fault.fault {
            tokio::time::sleep(Duration::from_millis(*after_ms)).await;
            ending::strike(stderr.as_deref(), *end);
        }
    }
    std::future::pending::<()>().await;
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
