//! What the driver's error numbers mean for an engine.
//!
//! Source: NVIDIA's "Xid Errors" document, its table of numbers and the actions it recommends.

/// An error that the driver reports of a GPU, as far as it matters for engines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Xid {
    /// Its number.
    pub code: u64,
    /// What happened.
    pub meaning: &'static str,
    /// What makes the GPU usable again.
    pub remedy: Remedy,
}

/// What makes a GPU usable again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Remedy {
    /// The engine that was hit is started again; the GPU is as good as before.
    RestartEngine,
    /// The GPU works on, and is reset when that suits.
    ResetLater,
    /// The GPU is reset before anything else runs on it.
    ResetGpu,
    /// The host is restarted.
    RestartHost,
}

impl Remedy {
    /// What to do, with the command.
    #[must_use]
    pub const fn advice(self) -> &'static str {
        match self {
            Self::RestartEngine => {
                "nothing but a new start of the engine; if it comes back, look for a bug or a bad card"
            }
            Self::ResetLater => "reset the GPU when nothing runs on it: `nvidia-smi --gpu-reset -i INDEX`",
            Self::ResetGpu => "reset the GPU: `nvidia-smi --gpu-reset -i INDEX`, or restart the host",
            Self::RestartHost => "restart the host; if it comes back, check power and seating of the card",
        }
    }

    /// Whether engines may go on using the GPU before anybody has done something.
    #[must_use]
    pub const fn gpu_usable(self) -> bool {
        matches!(self, Self::RestartEngine | Self::ResetLater)
    }
}

impl Xid {
    /// What a number means; `None` when it says nothing about whether engines can go on.
    #[must_use]
    pub fn explain(code: u64) -> Option<&'static Self> {
        KNOWN.iter().find(|xid| xid.code == code)
    }
}

const fn xid(code: u64, meaning: &'static str, remedy: Remedy) -> Xid {
    Xid { code, meaning, remedy }
}

static KNOWN: [Xid; 13] = [
    xid(13, "a program did something that the GPU's compute engine cannot do", Remedy::RestartEngine),
    xid(31, "a program used an address of GPU memory that is not its own", Remedy::RestartEngine),
    xid(43, "a program's work on the GPU was stopped after a fault of its own", Remedy::RestartEngine),
    xid(45, "work on the GPU was removed because its program ended or an earlier error hit it", Remedy::RestartEngine),
    xid(48, "GPU memory had an error of two bits, which ECC cannot correct", Remedy::ResetGpu),
    xid(63, "a bad place in GPU memory is set aside; that takes effect with the next reset", Remedy::ResetLater),
    xid(64, "a bad place in GPU memory could not be set aside", Remedy::ResetGpu),
    xid(74, "an NVLink connection of the GPU failed", Remedy::ResetGpu),
    xid(79, "the GPU has fallen off the bus", Remedy::RestartHost),
    xid(94, "an error in GPU memory hit one program and was kept from others", Remedy::ResetLater),
    xid(95, "an error in GPU memory may have hit every program on the GPU", Remedy::ResetGpu),
    xid(119, "the GPU's own processor (GSP) does not answer the driver", Remedy::ResetGpu),
    xid(120, "the GPU's own processor (GSP) has failed", Remedy::ResetGpu),
];

#[cfg(test)]
mod tests {
    use super::{KNOWN, Remedy, Xid};

    /// ORCH-3053: a GPU that engines may not go on using is told from one that a bad program has only passed by.
    #[test]
    fn numbers_say_what_to_do() {
        let usable = |code| Xid::explain(code).map(|xid| xid.remedy.gpu_usable());
        for code in [13, 31, 43, 45, 63, 94] {
            assert_eq!(usable(code), Some(true), "{code}");
        }
        for code in [48, 64, 74, 79, 95, 119, 120] {
            assert_eq!(usable(code), Some(false), "{code}");
        }
        assert_eq!(usable(1), None);
        assert_eq!(Xid::explain(79).expect("known").remedy, Remedy::RestartHost);
        assert!(KNOWN.is_sorted_by_key(|xid| xid.code));
    }
}
