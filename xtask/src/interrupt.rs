//! Ctrl-C and SIGTERM end a command the ordinary way, so that everything it started is taken down.
//!
//! A flag instead of a handler: whoever waits looks at it and returns an error, and destructors do the rest. Daemons and
//! engines run in process groups of their own, out of the terminal's reach; other children get the Ctrl-C themselves.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};

use signal_hook::consts::{SIGINT, SIGTERM};

/// The signal that came last; 0 before any.
static PENDING: LazyLock<Arc<AtomicUsize>> = LazyLock::new(Arc::default);

/// Starts listening for the two signals.
pub(crate) fn install() -> std::io::Result<()> {
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register_usize(signal, Arc::clone(&PENDING), signal.cast_unsigned() as usize)?;
    }
    Ok(())
}

/// An error once one of them has come.
pub(crate) fn check() -> anyhow::Result<()> {
    anyhow::ensure!(PENDING.load(Ordering::Relaxed) == 0, "interrupted");
    Ok(())
}

/// Whether SIGTERM has come, which unlike a Ctrl-C reaches only us and none of our children.
pub(crate) fn must_be_passed_on() -> bool {
    PENDING.load(Ordering::Relaxed) == SIGTERM.cast_unsigned() as usize
}
