//! What happens to the GPUs, told to the pools that it concerns (ORCH-3053).

use std::sync::Arc;

use api_types::PoolFault;
use narration_core::{Actor, Narration, narrate};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, mpsc};
use tracing::Level;

use crate::devices::{DeviceEvent, Xid};
use crate::failure::Failure;
use crate::pool::DeviceNews;
use crate::workshop::HostWorkshop;

/// A pool that wants to know.
pub(super) struct Listener {
    pub(super) workshop: Arc<HostWorkshop>,
    pub(super) tells: mpsc::Sender<DeviceNews>,
}

/// Hands on events until there are none any more, or nobody listens.
pub(super) async fn spread(mut events: broadcast::Receiver<DeviceEvent>, listeners: Vec<Listener>) {
    loop {
        let event = tokio::select! {
            event = events.recv() => event,
            () = all_gone(&listeners) => return,
        };
        let event = match event {
            Ok(event) => event,
            // What was missed shows in the next look at the devices, which every start takes.
            Err(RecvError::Lagged(_)) => continue,
            Err(RecvError::Closed) => return,
        };
        let Some((gpu, news)) = told(&event) else { continue };
        for listener in &listeners {
            let mask = listener.workshop.mask();
            let concerned = gpu.is_none_or(|gpu| mask.is_none_or(|mask| mask.uses_gpu(gpu)));
            if concerned {
                // A pool that is not driven any more has no engine to lose.
                let _ended = listener.tells.send(news.clone()).await;
            }
        }
    }
}

/// Waits until no pool is driven any more.
async fn all_gone(listeners: &[Listener]) {
    for listener in listeners {
        listener.tells.closed().await;
    }
}

/// What pools make of an event: the GPU that it is about, if it is about one, and the news. Tells the log of every event.
fn told(event: &DeviceEvent) -> Option<(Option<&str>, DeviceNews)> {
    match event {
        DeviceEvent::Lost { reason } => {
            note(Level::ERROR, "driver_lost", format_args!("the GPUs cannot be used any more: {reason}"));
            let lost = Failure::new(PoolFault::DriverLost, format!("the NVIDIA driver was lost: {reason}"));
            Some((None, DeviceNews::Lost(lost.with_fix("pools come back with it; see `nvidia-smi` and `dmesg`"))))
        }
        DeviceEvent::Back => {
            note(Level::INFO, "driver_back", format_args!("the GPUs can be used again"));
            Some((None, DeviceNews::Back))
        }
        DeviceEvent::DeviceFailed { uuid, reason } => {
            note(Level::ERROR, "device_lost", format_args!("GPU {uuid} does not answer: {reason}"));
            let lost = Failure::new(PoolFault::DriverLost, format!("GPU {uuid} does not answer: {reason}"));
            let lost = lost
                .with_fix("see `dmesg` for Xid errors; reset the GPU: `nvidia-smi --gpu-reset`, or restart the host");
            Some((Some(uuid), DeviceNews::Lost(lost)))
        }
        DeviceEvent::DeviceBack { uuid } => {
            note(Level::INFO, "device_back", format_args!("GPU {uuid} answers again"));
            Some((Some(uuid), DeviceNews::Back))
        }
        DeviceEvent::EccUncorrected { uuid, count } => {
            note(
                Level::ERROR,
                "ecc",
                format_args!("GPU {uuid} reports {count} memory errors that could not be corrected"),
            );
            let message = format!("GPU {uuid} reported {count} memory errors that could not be corrected");
            let fault = Failure::new(PoolFault::DeviceError, message).with_fix(
                "the engine is started anew; if it comes back, see `nvidia-smi -q -d ECC` and exchange the card",
            );
            Some((Some(uuid), DeviceNews::Fault(fault)))
        }
        DeviceEvent::Xid { uuid, code } => {
            let known = Xid::explain(*code);
            let gpu = uuid.as_deref().unwrap_or("?");
            let meaning = known.map_or("nothing that concerns engines is known of it", |xid| xid.meaning);
            note(Level::WARN, "xid", format_args!("GPU {gpu} reports Xid {code}: {meaning}"));
            // An error that hit one program leaves the others alone; the one that was hit says so itself.
            let xid = known.filter(|xid| !xid.remedy.gpu_usable())?;
            let fault = Failure::new(PoolFault::DeviceError, format!("GPU {gpu} reported Xid {code}: {}", xid.meaning));
            Some((uuid.as_deref(), DeviceNews::Fault(fault.with_fix(xid.remedy.advice()))))
        }
    }
}

fn note(level: Level, action: &'static str, human: std::fmt::Arguments<'_>) {
    narrate(level, &Narration { error_kind: Some(&action), ..Narration::new(Actor::PoolManager, action, human) });
}
