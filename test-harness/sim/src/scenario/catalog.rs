//! The scenarios.

use api_types::Priority::{Batch, Interactive};
use orchestrator_core::queue::FullPolicy;

use super::{Arrivals, Fault, FaultKind, Placement, Pool, Replica, Scenario, Share, Size, Source, swapped};

/// All of them.
pub const SCENARIOS: &[Scenario] = &[
    INTERACTIVE_BEHIND_BATCH,
    UNLIKE_POOLS,
    STEADY,
    MIXED,
    STORM,
    FAILURES,
    WEIGHTS,
    REPLICAS,
    swapped::TRACE,
    swapped::HOUSEHOLD,
    swapped::OVERLOAD,
    swapped::THRASH,
];

/// Long enough for every task, in milliseconds.
const AMPLE: Size = Size::Fixed(24 * 60 * 60 * 1_000);

/// A 24 GB card with an 8B model.
pub(super) const POOL: Pool = Pool {
    id: "gpu0",
    model: "sim:model",
    on_demand: None,
    replicas: &[REPLICA],
    prefill_tokens_per_s: 2_400.0,
    decode_tokens_per_s: 90.0,
    overhead_ms: 30.0,
    crowding: 0.15,
    noise: 0.05,
    capacity: 64,
    batch_capacity: None,
    full_policy: FullPolicy::Reject,
    weights: None,
    batch_rate: None,
    ctx: 8_192,
    device_mask: None,
};

pub(super) const REPLICA: Replica = Replica { slots: 1, speed: 1.0, vram_gib: 24 };

/// A person at a chat: short answers, some of which run into the limit.
pub(super) const CHAT: Source = Source {
    class: Interactive,
    model: "sim:model",
    arrivals: Arrivals::Poisson { per_s: 0.1, clients: 8 },
    prompt: Size::Within(50, 3_000),
    limit: Size::OneOf(&[256, 512, 1_024]),
    output: Share::Capped { full: 0.15, beta: (2.0, 4.0) },
    announced: 0.0,
    deadline_ms: AMPLE,
    placement: Placement::Auto,
    canceled: 0.0,
    cancel_after_ms: 5_000.0,
    patience: 20,
};

/// A program that works through a list.
pub(super) const BULK: Source = Source {
    class: Batch,
    arrivals: Arrivals::Poisson { per_s: 0.1, clients: 4 },
    prompt: Size::Within(200, 6_000),
    limit: Size::OneOf(&[256, 512, 1_024]),
    output: Share::Capped { full: 0.3, beta: (3.0, 3.0) },
    announced: 0.2,
    ..CHAT
};

const INTERACTIVE_BEHIND_BATCH: Scenario = Scenario {
    name: "interactive-behind-batch",
    shows: "with the batch queue of a one-slot pool kept full, an interactive task waits for one running task at most",
    pools: &[Pool { capacity: 16, batch_capacity: Some(12), ..POOL }],
    sources: &[
        Source { arrivals: Arrivals::Closed { clients: 16, think_ms: 0.0 }, patience: u32::MAX, ..BULK },
        Source { arrivals: Arrivals::Closed { clients: 1, think_ms: 10_000.0 }, ..CHAT },
    ],
    faults: &[],
    tasks: 4_000,
    saturated: true,
    swap: None,
};

const UNLIKE_POOLS: Scenario = Scenario {
    name: "unlike-pools",
    shows: "a 24 GB card and a 12 GB card of a third of its speed, always with work: both together give what they can",
    pools: &[
        POOL,
        Pool {
            id: "gpu1",
            replicas: &[Replica { vram_gib: 12, ..REPLICA }],
            prefill_tokens_per_s: 800.0,
            decode_tokens_per_s: 30.0,
            ..POOL
        },
    ],
    sources: &[
        Source { arrivals: Arrivals::Closed { clients: 12, think_ms: 500.0 }, ..BULK },
        Source { arrivals: Arrivals::Closed { clients: 3, think_ms: 10_000.0 }, ..CHAT },
    ],
    faults: &[],
    tasks: 4_000,
    saturated: true,
    swap: None,
};

const STEADY: Scenario = Scenario {
    name: "steady",
    shows: "one slot at four fifths of what it can do, outputs of hidden length: how well waits and chances are predicted",
    pools: &[Pool { capacity: 256, ..POOL }],
    sources: &[
        Source { arrivals: Arrivals::Poisson { per_s: 0.12, clients: 8 }, output: Share::Beta(3.0, 3.0), ..CHAT },
        // Few enough to miss their deadlines without taking the load away.
        Source {
            arrivals: Arrivals::Poisson { per_s: 0.12, clients: 8 },
            output: Share::Beta(3.0, 3.0),
            deadline_ms: Size::Within(4_000, 100_000),
            ..CHAT
        },
    ],
    faults: &[],
    tasks: 40_000,
    saturated: false,
    swap: None,
};

const MIXED: Scenario = Scenario {
    name: "mixed",
    shows: "both classes with deadlines on three pools, some tasks pinned, preferring, avoiding or asking for a device",
    pools: &[
        Pool { replicas: &[Replica { slots: 2, ..REPLICA }], device_mask: Some("0"), ..POOL },
        Pool {
            id: "gpu1",
            replicas: &[Replica { vram_gib: 12, ..REPLICA }],
            prefill_tokens_per_s: 1_200.0,
            decode_tokens_per_s: 40.0,
            device_mask: Some("1"),
            ..POOL
        },
        Pool {
            id: "gpu2",
            replicas: &[Replica { slots: 4, vram_gib: 48, ..REPLICA }],
            decode_tokens_per_s: 60.0,
            batch_rate: Some((0.2, 4)),
            device_mask: Some("2,3"),
            ..POOL
        },
    ],
    sources: &[
        Source {
            arrivals: Arrivals::Poisson { per_s: 0.25, clients: 12 },
            deadline_ms: Size::Within(5_000, 60_000),
            canceled: 0.05,
            ..CHAT
        },
        Source {
            arrivals: Arrivals::Poisson { per_s: 0.05, clients: 2 },
            placement: Placement::Prefer("gpu0"),
            deadline_ms: Size::Within(5_000, 60_000),
            ..CHAT
        },
        Source { arrivals: Arrivals::Poisson { per_s: 0.03, clients: 2 }, placement: Placement::Mask("1"), ..CHAT },
        Source {
            arrivals: Arrivals::Closed { clients: 4, think_ms: 1_000.0 },
            deadline_ms: Size::Within(30_000, 300_000),
            ..BULK
        },
        Source { arrivals: Arrivals::Poisson { per_s: 0.02, clients: 1 }, placement: Placement::Pin("gpu2"), ..BULK },
        Source { arrivals: Arrivals::Poisson { per_s: 0.02, clients: 1 }, placement: Placement::Avoid("gpu1"), ..BULK },
        Source {
            arrivals: Arrivals::Trace {
                at_ms: &[0, 200, 250, 400, 3_000, 3_100, 40_000],
                every_ms: 300_000,
                clients: 3,
            },
            placement: Placement::PreferOnly("gpu0"),
            ..BULK
        },
    ],
    faults: &[],
    tasks: 10_000,
    saturated: false,
    swap: None,
};

const STORM: Scenario = Scenario {
    name: "storm",
    shows: "bursts far beyond capacity, many canceled: one pool refuses, the other drops its oldest, and both stay in order",
    pools: &[
        Pool { capacity: 24, ..POOL },
        Pool {
            id: "gpu1",
            replicas: &[Replica { slots: 2, ..REPLICA }],
            capacity: 16,
            full_policy: FullPolicy::DropLru,
            ..POOL
        },
    ],
    sources: &[
        Source {
            arrivals: Arrivals::Bursts { every_ms: 120_000, clients: 60 },
            deadline_ms: Size::Within(10_000, 300_000),
            canceled: 0.3,
            cancel_after_ms: 15_000.0,
            patience: 3,
            ..CHAT
        },
        Source {
            arrivals: Arrivals::Bursts { every_ms: 180_000, clients: 60 },
            canceled: 0.2,
            cancel_after_ms: 60_000.0,
            patience: 5,
            ..BULK
        },
    ],
    faults: &[],
    tasks: 6_000,
    saturated: false,
    swap: None,
};

const FAILURES: Scenario = Scenario {
    name: "failures",
    shows: "workers die, connections break, pools close, fall silent and are drained: no task is lost, none runs twice",
    pools: &[
        Pool { replicas: &[Replica { slots: 2, ..REPLICA }, Replica { slots: 2, vram_gib: 16, ..REPLICA }], ..POOL },
        Pool { id: "gpu1", replicas: &[REPLICA], decode_tokens_per_s: 45.0, ..POOL },
    ],
    sources: &[
        Source {
            arrivals: Arrivals::Poisson { per_s: 0.3, clients: 12 },
            deadline_ms: Size::Within(20_000, 200_000),
            canceled: 0.05,
            ..CHAT
        },
        Source { arrivals: Arrivals::Closed { clients: 6, think_ms: 5_000.0 }, ..BULK },
        Source { arrivals: Arrivals::Poisson { per_s: 0.02, clients: 2 }, placement: Placement::Pin("gpu1"), ..CHAT },
    ],
    faults: &[
        Fault { every_ms: 300_000.0, lasts_ms: 20_000.0, ..CRASH },
        Fault { every_ms: 300_000.0, lasts_ms: 20_000.0, replica: 1, ..CRASH },
        Fault { pool: "gpu1", ..CRASH },
        Fault { kind: FaultKind::Reset, every_ms: 60_000.0, ..CRASH },
        Fault { kind: FaultKind::Reset, every_ms: 60_000.0, pool: "gpu1", ..CRASH },
        Fault { kind: FaultKind::Unready, every_ms: 240_000.0, ..CRASH },
        Fault { kind: FaultKind::Silent, every_ms: 240_000.0, lasts_ms: 10_000.0, replica: 1, ..CRASH },
        Fault { kind: FaultKind::Silent, lasts_ms: 10_000.0, pool: "gpu1", ..CRASH },
        Fault { kind: FaultKind::Drain, every_ms: 900_000.0, lasts_ms: 60_000.0, ..CRASH },
        Fault { kind: FaultKind::Drain, every_ms: 700_000.0, lasts_ms: 60_000.0, pool: "gpu1", ..CRASH },
    ],
    tasks: 8_000,
    saturated: false,
    swap: None,
};

const CRASH: Fault =
    Fault { pool: "gpu0", replica: 0, kind: FaultKind::Crash, every_ms: 600_000.0, lasts_ms: 30_000.0 };

const WEIGHTS: Scenario = Scenario {
    name: "weights",
    shows: "with shares of 4 to 1 and both classes always waiting, one start in five is a batch task's",
    pools: &[Pool { weights: Some((4, 1)), ..POOL }],
    sources: &[
        Source { arrivals: Arrivals::Closed { clients: 12, think_ms: 0.0 }, ..CHAT },
        Source { arrivals: Arrivals::Closed { clients: 12, think_ms: 0.0 }, ..BULK },
    ],
    faults: &[],
    tasks: 4_000,
    saturated: true,
    swap: None,
};

const REPLICAS: Scenario = Scenario {
    name: "replicas",
    shows: "one pool of four replicas with uneven memory under one queue, always with work",
    pools: &[Pool {
        replicas: &[
            Replica { slots: 2, vram_gib: 24, ..REPLICA },
            Replica { slots: 2, vram_gib: 24, ..REPLICA },
            Replica { slots: 2, vram_gib: 16, ..REPLICA },
            Replica { slots: 1, speed: 0.7, vram_gib: 12 },
        ],
        ..POOL
    }],
    sources: &[
        Source { arrivals: Arrivals::Closed { clients: 20, think_ms: 1_000.0 }, ..BULK },
        Source { arrivals: Arrivals::Closed { clients: 6, think_ms: 8_000.0 }, ..CHAT },
    ],
    faults: &[],
    tasks: 6_000,
    saturated: true,
    swap: None,
};
