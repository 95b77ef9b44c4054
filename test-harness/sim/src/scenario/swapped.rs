//! Scenarios of models that do not all fit into memory. Their clients do not wait for answers, so that every order of work has
//! the same arrivals.

use api_types::Priority::{Batch, Interactive};

use super::catalog::{BULK, CHAT, POOL, REPLICA};
use super::{Arrivals, Device, OnDemand, Others, Pool, Replica, Scenario, Share, Size, Source, Swap};

/// As configured by default, in milliseconds.
const AGE_LIMIT_MS: u64 = 120_000;

/// A 24 GB card that holds one of the models of [`ONE`].
const CARD: Device = Device { total_mib: 24 << 10, reserve_mib: 256, tells: true, others: None };

/// A model that takes the card for itself and 20 s to load.
const ONE: OnDemand = OnDemand {
    need_mib: &[(0, 18 << 10)],
    truth: 0.96,
    load_ms: 20_000.0,
    load_noise: 0.05,
    stop_ms: 300.0,
    back_ms: 400.0,
};

const ON_DEMAND: Pool = Pool { on_demand: Some(ONE), capacity: 256, ..POOL };

/// A task of about a second.
const SHORT: Source = Source {
    class: Batch,
    prompt: Size::Fixed(100),
    limit: Size::Fixed(80),
    output: Share::Fixed(1.0),
    announced: 0.0,
    ..BULK
};

/// One of the places of A B A A C A B C, one task each 5 s.
const fn traced(model: &'static str, at_ms: &'static [u64]) -> Source {
    Source { model, arrivals: Arrivals::Trace { at_ms, every_ms: 40_000, clients: 1 }, ..SHORT }
}

pub(super) const TRACE: Scenario = Scenario {
    name: "swap-trace",
    // Three loads of 20 s and the work of a round that lasts P are 63 s + P/5 of P: a round of 79 s is enough, and nobody waits
    // for longer than a round. In order of arrival seven of eight tasks wait for a load: 155 s of work come each 40 s.
    shows: "A B A A C A B C, one task each 5 s, on a card that holds one of the three models, each 20 s to load: \
            a round of all three in 79 s keeps up, order of arrival would take 155 s for each 40 s",
    pools: &[
        Pool { id: "a", model: "a", ..ON_DEMAND },
        Pool { id: "b", model: "b", ..ON_DEMAND },
        Pool { id: "c", model: "c", ..ON_DEMAND },
    ],
    sources: &[
        traced("a", &[0, 10_000, 15_000, 25_000]),
        traced("b", &[5_000, 30_000]),
        traced("c", &[20_000, 35_000]),
    ],
    faults: &[],
    tasks: 800,
    saturated: false,
    swap: Some(Swap { devices: &[CARD], age_limit_ms: AGE_LIMIT_MS, is_sustainable: true }),
};

/// A desktop and a browser, which come and go within the reserve.
const DESKTOP: Option<Others> = Some(Others { most_mib: 1 << 10, every_ms: 20_000.0 });

const LARGE: Device = Device { total_mib: 24 << 10, reserve_mib: 1 << 10, tells: true, others: DESKTOP };
/// Whose driver does not tell who holds what.
const SMALL: Device = Device { total_mib: 12 << 10, tells: false, ..LARGE };

pub(super) const HOUSEHOLD: Scenario = Scenario {
    name: "swap-household",
    shows: "six models of unlike sizes on 24 GB and 12 GB: an agent in bursts, persons, and programs that work through lists",
    pools: &[
        Pool {
            id: "coder-32b",
            model: "coder-32b",
            replicas: &[Replica { slots: 2, ..REPLICA }],
            decode_tokens_per_s: 40.0,
            on_demand: Some(OnDemand { need_mib: &[(0, 20 << 10)], truth: 0.97, load_ms: 16_000.0, ..HOME }),
            ..ON_DEMAND
        },
        Pool {
            id: "chat-8b",
            model: "chat-8b",
            on_demand: Some(OnDemand { need_mib: &[(1, 7 << 10)], load_ms: 5_000.0, ..HOME }),
            ..ON_DEMAND
        },
        Pool {
            id: "vision-12b",
            model: "vision-12b",
            decode_tokens_per_s: 60.0,
            on_demand: Some(OnDemand { need_mib: &[(1, 10 << 10)], truth: 0.99, load_ms: 8_000.0, ..HOME }),
            ..ON_DEMAND
        },
        Pool {
            id: "summary-14b",
            model: "summary-14b",
            replicas: &[Replica { slots: 4, ..REPLICA }],
            on_demand: Some(OnDemand { need_mib: &[(0, 11 << 10)], truth: 0.9, load_ms: 9_000.0, ..HOME }),
            ..ON_DEMAND
        },
        Pool {
            id: "tags-3b",
            model: "tags-3b",
            replicas: &[Replica { slots: 4, ..REPLICA }],
            decode_tokens_per_s: 160.0,
            on_demand: Some(OnDemand { need_mib: &[(0, 3 << 10)], load_ms: 2_500.0, ..HOME }),
            ..ON_DEMAND
        },
        Pool {
            id: "big-70b",
            model: "big-70b",
            decode_tokens_per_s: 20.0,
            on_demand: Some(OnDemand { need_mib: &[(0, 21 << 10), (1, 9 << 10)], load_ms: 28_000.0, ..HOME }),
            ..ON_DEMAND
        },
    ],
    sources: &[
        Source {
            model: "coder-32b",
            class: Interactive,
            arrivals: Arrivals::Sessions { clients: 1, pause_ms: 150_000.0, tasks: 20, gap_ms: 6_000.0 },
            limit: Size::Within(40, 300),
            ..CHAT
        },
        Source {
            model: "chat-8b",
            arrivals: Arrivals::Sessions { clients: 2, pause_ms: 120_000.0, tasks: 8, gap_ms: 20_000.0 },
            limit: Size::Within(100, 600),
            ..CHAT
        },
        Source {
            model: "vision-12b",
            arrivals: Arrivals::Sessions { clients: 1, pause_ms: 240_000.0, tasks: 3, gap_ms: 30_000.0 },
            limit: Size::Within(50, 300),
            ..CHAT
        },
        Source {
            model: "summary-14b",
            arrivals: Arrivals::Poisson { per_s: 0.1, clients: 1 },
            limit: Size::Within(100, 500),
            ..BULK
        },
        Source {
            model: "tags-3b",
            arrivals: Arrivals::Sessions { clients: 1, pause_ms: 200_000.0, tasks: 30, gap_ms: 300.0 },
            limit: Size::Within(10, 60),
            ..BULK
        },
        Source {
            model: "big-70b",
            arrivals: Arrivals::Poisson { per_s: 0.002, clients: 1 },
            limit: Size::Within(100, 300),
            ..BULK
        },
    ],
    faults: &[],
    tasks: 1_500,
    saturated: false,
    swap: Some(Swap { devices: &[LARGE, SMALL], age_limit_ms: AGE_LIMIT_MS, is_sustainable: true }),
};

/// A model of a household, with memory that comes back when it likes.
const HOME: OnDemand = OnDemand { truth: 0.95, load_noise: 0.15, stop_ms: 300.0, back_ms: 900.0, ..ONE };

/// Poisson arrivals of short tasks for one of the models.
const fn steady(model: &'static str, per_s: f64) -> Source {
    Source { model, arrivals: Arrivals::Poisson { per_s, clients: 1 }, patience: 0, ..SHORT }
}

pub(super) const OVERLOAD: Scenario = Scenario {
    name: "swap-overload",
    shows: "three models on a card that holds one, twice the work that can be done, most of it for one model: queues fill and \
            refuse, and every model has its turns",
    pools: &[
        Pool { id: "a", model: "a", capacity: 32, ..ON_DEMAND },
        Pool { id: "b", model: "b", capacity: 32, ..ON_DEMAND },
        Pool { id: "c", model: "c", capacity: 32, ..ON_DEMAND },
    ],
    sources: &[steady("a", 1.2), steady("b", 0.4), Source { class: Interactive, ..steady("c", 0.1) }],
    faults: &[],
    tasks: 3_000,
    saturated: false,
    swap: Some(Swap { devices: &[CARD], age_limit_ms: AGE_LIMIT_MS, is_sustainable: false }),
};

/// A client that asks without end at this pace, on average.
const fn asks(model: &'static str, gap_ms: f64) -> Source {
    Source {
        model,
        arrivals: Arrivals::Poisson { per_s: 1_000.0 / gap_ms, clients: 1 },
        limit: Size::Fixed(30),
        ..SHORT
    }
}

pub(super) const THRASH: Scenario = Scenario {
    name: "swap-thrash",
    shows: "two clients ask for two models in turns, each every 2.5 s, on a card that holds one: a model that is asked for \
            again and again is not given up in the pause between two tasks",
    pools: &[Pool { id: "a", model: "a", ..ON_DEMAND }, Pool { id: "b", model: "b", ..ON_DEMAND }],
    sources: &[asks("a", 2_500.0), asks("b", 2_500.0)],
    faults: &[],
    tasks: 1_000,
    saturated: false,
    swap: Some(Swap { devices: &[CARD], age_limit_ms: AGE_LIMIT_MS, is_sustainable: true }),
};
