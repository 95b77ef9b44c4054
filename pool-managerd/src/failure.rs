//! What went wrong with a pool's engine, and whether trying again can help.

use std::error::Error;
use std::fmt;

use api_types::PoolFault;

/// Something that keeps a pool from serving.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Its kind.
    pub fault: PoolFault,
    /// What happened, in plain words.
    pub message: String,
    /// What to do about it, where that can be said: a command where there is one.
    pub fix: Option<String>,
}

/// What is done after a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// Another attempt after a pause that grows.
    Retry,
    /// An attempt when the devices are back; until then only they are looked at.
    AwaitDevices,
    /// None: the same attempt would fail in the same way. Somebody must change something and start the pool.
    Never,
}

impl Failure {
    /// A failure with nothing to advise.
    #[must_use]
    pub fn new(fault: PoolFault, message: impl Into<String>) -> Self {
        Self { fault, message: message.into(), fix: None }
    }

    /// What an error says: what happened, a semicolon, what to do. Its cause goes with what happened.
    #[must_use]
    pub fn of_error(fault: PoolFault, error: &dyn Error) -> Self {
        let text = error.to_string();
        let cause = error.source().map_or_else(String::new, |cause| format!(": {cause}"));
        match text.split_once("; ") {
            Some((what, fix)) => Self::new(fault, format!("{what}{cause}")).with_fix(fix),
            None => Self::new(fault, format!("{text}{cause}")),
        }
    }

    /// The same with advice.
    #[must_use]
    pub fn with_fix(self, fix: impl Into<String>) -> Self {
        Self { fix: Some(fix.into()), ..self }
    }

    /// What is done after it.
    #[must_use]
    pub const fn remedy(&self) -> Remedy {
        match self.fault {
            PoolFault::NoDriver | PoolFault::NoDevice | PoolFault::DriverLost => Remedy::AwaitDevices,
            PoolFault::NoCuda
            | PoolFault::MissingTool
            | PoolFault::NotAllowed
            | PoolFault::BuildFailed
            | PoolFault::Unsupported
            | PoolFault::ModelUnusable
            | PoolFault::TooLarge
            | PoolFault::IllegalInstruction => Remedy::Never,
            PoolFault::FetchFailed
            | PoolFault::DeviceError
            | PoolFault::ModelUnavailable
            | PoolFault::DiskFull
            | PoolFault::PortTaken
            | PoolFault::SpawnFailed
            | PoolFault::ExitedDuringLoad
            | PoolFault::StartTimeout
            | PoolFault::SelfTestFailed
            | PoolFault::Hung
            | PoolFault::Crashed
            | PoolFault::Killed
            | PoolFault::CudaError
            | PoolFault::VramExhausted
            | PoolFault::HostMemoryExhausted
            | PoolFault::ContainerFailed
            | PoolFault::WorkerAway => Remedy::Retry,
        }
    }
}

/// Message and advice in one sentence, for `last_error`.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match &self.fix {
            Some(fix) => write!(f, "; {fix}"),
            None => Ok(()),
        }
    }
}
