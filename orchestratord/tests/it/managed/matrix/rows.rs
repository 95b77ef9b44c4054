//! The rows, as data.

use serde_json::Value;

use crate::managed::model::Model;

/// What is done to an engine, and what must come of it.
pub(super) struct Row {
    pub(super) what: &'static str,
    /// Its pool.
    pub(super) id: &'static str,
    pub(super) gpu: usize,
    pub(super) env: &'static [(&'static str, &'static str)],
    /// Lines of `[pools.supervision]` instead of the usual.
    pub(super) supervision: &'static str,
    pub(super) model: Model,
    /// Faults of the engine from the start, as JSON.
    pub(super) faults: &'static str,
    pub(super) blow: Blow,
    /// `PoolState` and `PoolFault` that the pool must be seen with.
    pub(super) state: &'static str,
    pub(super) fault: &'static str,
    /// What the last error must mention, and what its fix.
    pub(super) says: &'static [&'static str],
    pub(super) fix: &'static [&'static str],
    pub(super) cure: Cure,
}

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Blow {
    /// The serving engine gets this signal.
    Signal(&'static str),
    /// The serving engine gets these faults.
    Faults(&'static str),
    /// Somebody else takes the GPU's memory before the pool is started.
    EatMemory,
    /// The pool is started.
    Start,
    /// The serving pool is stopped.
    Stop,
}

impl Blow {
    pub(super) fn needs_engine(self) -> bool {
        !matches!(self, Self::EatMemory | Self::Start)
    }
}

/// What brings the pool back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cure {
    /// Nothing is needed.
    Itself,
    /// It is as it should be already.
    Stays,
    /// The engine's faults are taken away.
    ClearFaults,
    /// Whoever has the memory gives it back.
    FreeMemory,
    /// Whoever has the port lets go of it.
    FreePort,
    /// The model's file is put in place.
    WriteModel,
    /// The same, and somebody starts the pool.
    ByHand,
    /// Time, which no test has.
    Rests,
    /// Nothing.
    Never,
}

impl Row {
    /// Whether its engine takes memory of the GPU.
    pub(super) fn takes_memory(&self) -> bool {
        self.env.iter().any(|(name, _)| *name == "MOCK_ENGINE_VRAM_MB")
    }

    /// Whether it is tried again without being asked.
    pub(super) fn retries(&self) -> bool {
        self.state == "backing_off" || self.cure == Cure::Rests || self.fault == "no_device"
    }
}

pub(super) fn parse(faults: &str) -> Value {
    serde_json::from_str(faults).expect("the row's faults are JSON")
}

const ROW: Row = Row {
    what: "",
    id: "",
    gpu: 0,
    env: &[],
    supervision: "",
    model: Model::Tiny,
    faults: "[]",
    blow: Blow::Start,
    state: "backing_off",
    fault: "",
    says: &[],
    fix: &[],
    cure: Cure::ClearFaults,
};

pub(super) const SERVING: &[Row] = &[
    Row {
        what: "engine SIGKILL",
        id: "sigkill",
        blow: Blow::Signal("-KILL"),
        fault: "killed",
        says: &["SIGKILL"],
        fix: &["journalctl"],
        cure: Cure::Itself,
        ..ROW
    },
    Row {
        what: "engine SIGKILL, most of a card",
        id: "sigkill-large",
        env: &[("MOCK_ENGINE_VRAM_MB", "16000")],
        model: Model::Large,
        blow: Blow::Signal("-KILL"),
        fault: "killed",
        says: &["SIGKILL"],
        fix: &["journalctl"],
        cure: Cure::Itself,
        ..ROW
    },
    Row {
        what: "engine SIGSTOP (hang)",
        id: "sigstop",
        supervision: "restart_backoff_ms = 100\nprobe_interval_ms = 200\nprobe_timeout_ms = 1500\nprobe_failures = 2",
        blow: Blow::Signal("-STOP"),
        fault: "hung",
        says: &["2 health checks in a row"],
        fix: &["llama-orch logs"],
        cure: Cure::Itself,
        ..ROW
    },
    Row {
        what: "engine SIGABRT",
        id: "sigabrt",
        blow: Blow::Signal("-ABRT"),
        fault: "crashed",
        says: &["SIGABRT"],
        fix: &["engine's log"],
        cure: Cure::Itself,
        ..ROW
    },
    Row {
        what: "somebody else's SIGTERM",
        id: "sigterm",
        blow: Blow::Signal("-TERM"),
        fault: "crashed",
        says: &["ended by itself", "exit code 0"],
        fix: &["engine's log"],
        cure: Cure::Itself,
        ..ROW
    },
    Row {
        what: "CUDA error, process dies",
        id: "cuda-dies",
        blow: Blow::Faults(r#"[{"fault": {"in_life": {"end": "cuda_error"}}}]"#),
        fault: "cuda_error",
        says: &["CUDA error", "illegal memory access"],
        fix: &["dmesg"],
        ..ROW
    },
    Row {
        what: "CUDA error on stderr, process lives",
        id: "cuda-lives",
        blow: Blow::Faults(
            r#"[{"fault": {"in_life": {"stderr": "CUDA error: unspecified launch failure", "end": "nothing"}}}]"#,
        ),
        fault: "cuda_error",
        says: &["CUDA error", "unspecified launch failure"],
        fix: &["dmesg"],
        ..ROW
    },
    Row {
        what: "the same, SIGTERM ignored",
        id: "cuda-deaf",
        supervision: "restart_backoff_ms = 100\nstop_grace_ms = 400",
        blow: Blow::Faults(
            r#"[{"fault": {"in_life": {"stderr": "CUDA error: unspecified launch failure", "end": "nothing"}}},
                {"fault": "ignore_sigterm"}]"#,
        ),
        fault: "cuda_error",
        says: &["CUDA error"],
        fix: &["dmesg"],
        ..ROW
    },
    Row {
        what: "VRAM OOM while serving",
        id: "vram-serving",
        blow: Blow::Faults(r#"[{"fault": {"in_life": {"end": "cuda_out_of_memory"}}}]"#),
        fault: "vram_exhausted",
        says: &["too little memory", "out of memory"],
        fix: &["smaller ctx", "nvidia-smi"],
        ..ROW
    },
    Row {
        what: "host OOM (bad_alloc)",
        id: "host-oom",
        blow: Blow::Faults(r#"[{"fault": {"in_life": {"end": "bad_alloc"}}}]"#),
        fault: "host_memory_exhausted",
        says: &["host has too little memory"],
        fix: &["free -h"],
        ..ROW
    },
    Row {
        what: "stop, SIGTERM ignored",
        id: "deaf",
        supervision: "stop_grace_ms = 400",
        faults: r#"[{"fault": "ignore_sigterm"}]"#,
        blow: Blow::Stop,
        state: "stopped",
        cure: Cure::Stays,
        ..ROW
    },
];

pub(super) const STARTING: &[Row] = &[
    Row {
        what: "exit during load",
        id: "exits",
        faults: r#"[{"fault": {"in_load": {"at_percent": 50, "stderr": "unhappy with layer 7", "end": {"exit": 3}}}}]"#,
        fault: "exited_during_load",
        says: &["while it loaded", "exit code 3", "unhappy with layer 7"],
        fix: &["engine's log"],
        ..ROW
    },
    Row {
        what: "crash loop",
        id: "loop",
        supervision: "restart_backoff_ms = 400\nrestart_backoff_max_ms = 10000\ncircuit_restarts = 3\ncircuit_window_ms = 600000",
        faults: r#"[{"fault": {"in_load": {"end": {"exit": 1}}}}]"#,
        state: "failed",
        fault: "exited_during_load",
        says: &["exit code 1"],
        fix: &["engine's log"],
        cure: Cure::Rests,
        ..ROW
    },
    Row {
        what: "VRAM OOM (a stranger has it)",
        id: "vram-eaten",
        gpu: 1,
        env: &[("MOCK_ENGINE_VRAM_MB", "2048")],
        blow: Blow::EatMemory,
        fault: "vram_exhausted",
        says: &["GPU 0 has not the 2048.00 MiB"],
        fix: &["smaller ctx", "nvidia-smi"],
        cure: Cure::FreeMemory,
        ..ROW
    },
    Row {
        what: "model larger than the card",
        id: "huge",
        state: "failed",
        model: Model::Huge,
        fault: "too_large",
        says: &["needs about", "MiB of GPU memory", "RTX 3090 has", "MiB in all"],
        fix: &["smaller ctx", "llama-orch models fit"],
        cure: Cure::Never,
        ..ROW
    },
    Row {
        what: "host OOM while it loads",
        id: "host-oom-load",
        faults: r#"[{"fault": {"in_load": {"at_percent": 50, "end": "bad_alloc"}}}]"#,
        fault: "host_memory_exhausted",
        says: &["host has too little memory"],
        fix: &["free -h"],
        ..ROW
    },
    Row {
        what: "port taken",
        id: "port",
        fault: "port_taken",
        says: &["taken"],
        fix: &["ss -ltnp", "provisioning.ports"],
        cure: Cure::FreePort,
        ..ROW
    },
    Row {
        what: "model file missing",
        id: "missing",
        model: Model::Missing,
        fault: "model_unavailable",
        says: &["model.gguf"],
        cure: Cure::WriteModel,
        ..ROW
    },
    Row {
        what: "model is no GGUF",
        id: "html",
        model: Model::Text,
        state: "failed",
        fault: "model_unusable",
        says: &["model.gguf cannot be loaded", "no GGUF"],
        fix: &["whole GGUF file"],
        cure: Cure::ByHand,
        ..ROW
    },
    Row {
        what: "model truncated",
        id: "truncated",
        model: Model::Truncated,
        state: "failed",
        fault: "model_unusable",
        says: &["model.gguf cannot be loaded"],
        fix: &["whole GGUF file"],
        cure: Cure::ByHand,
        ..ROW
    },
    Row {
        what: "engine refuses the model",
        id: "refuses",
        faults: r#"[{"fault": {"in_load": {
            "stderr": "llama_model_load: error loading model: unknown model architecture: 'llama9'", "end": {"exit": 1}}}}]"#,
        state: "failed",
        fault: "model_unusable",
        says: &["unknown model architecture"],
        fix: &["newer version of the engine"],
        cure: Cure::Stays,
        ..ROW
    },
    Row {
        what: "start never finishes",
        id: "stuck",
        supervision: "restart_backoff_ms = 100\nstart_timeout_ms = 1500",
        faults: r#"[{"fault": {"in_load": {"at_percent": 20, "end": "hang"}}}]"#,
        fault: "start_timeout",
        says: &["no progress for 1500 ms"],
        fix: &["llama-orch logs", "start_timeout_ms"],
        ..ROW
    },
    Row {
        what: "slow start that makes progress",
        id: "slow",
        env: &[("MOCK_ENGINE_LOAD_MS", "8000"), ("MOCK_ENGINE_VRAM_MB", "800")],
        supervision: "start_timeout_ms = 4000",
        state: "ready",
        cure: Cure::Stays,
        ..ROW
    },
    Row {
        what: "engine lies (completions fail)",
        id: "liar",
        faults: r#"[{"fault": {"refuse": {"status": 500}}}]"#,
        fault: "self_test_failed",
        says: &["says that it is ready", "decode"],
        fix: &["llama-orch logs", "supervision.self_test"],
        ..ROW
    },
    Row {
        what: "device index that does not exist",
        id: "no-device",
        gpu: 7,
        state: "failed",
        fault: "no_device",
        says: &["there is no device 7", "0: NVIDIA GeForce RTX 3090"],
        fix: &["llama-orch devices"],
        cure: Cure::Never,
        ..ROW
    },
];
