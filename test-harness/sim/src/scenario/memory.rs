//! Memory that models share, and how they come and go.

/// The memory that a scenario's models share.
#[derive(Clone, Copy, Debug)]
pub struct Swap {
    /// The devices.
    pub devices: &'static [Device],
    /// Longest that a task is to wait because other models are loaded, in milliseconds.
    pub age_limit_ms: u64,
    /// Whether the load can be done within that limit: then it holds for every task.
    pub is_sustainable: bool,
}

/// A device's memory.
#[derive(Clone, Copy, Debug)]
pub struct Device {
    /// Memory in all, in MiB.
    pub total_mib: u64,
    /// What is left to other programs, in MiB.
    pub reserve_mib: u64,
    /// The driver tells what each program holds.
    pub tells: bool,
    /// Another program that uses it.
    pub others: Option<Others>,
}

/// A program that is none of ours. It takes what is free, up to its own limit, and gives it back.
#[derive(Clone, Copy, Debug)]
pub struct Others {
    /// Most that it holds, in MiB.
    pub most_mib: u64,
    /// Time from one change to the next, in milliseconds on average.
    pub every_ms: f64,
}

/// How a pool's model is loaded and unloaded.
#[derive(Clone, Copy, Debug)]
pub struct OnDemand {
    /// What is thought to be needed, by device, in MiB.
    pub need_mib: &'static [(usize, u64)],
    /// What is really taken, as a share of that.
    pub truth: f64,
    /// Time of a load from the promise of memory until it serves, in milliseconds; by the median.
    pub load_ms: f64,
    /// How unlike two loads are: the standard deviation of the logarithm.
    pub load_noise: f64,
    /// Time from the order to end until the engine has ended, in milliseconds; by the median.
    pub stop_ms: f64,
    /// Time from then until its memory has come back, in milliseconds on average; in parts.
    pub back_ms: f64,
}
