//! Settings that the configuration file knows and this version does not carry out yet. None of them is passed over in
//! silence: each is a warning at start.

use config_schema::{Activation, Config};

/// Settings that have no effect and do no harm.
pub fn ignored(config: &Config) -> Vec<&'static str> {
    let on_demand = config.pools.iter().any(|pool| pool.activation == Activation::OnDemand);
    let wishes = [
        (!config.server.cors_origins.is_empty(), "server.cors_origins"),
        (
            on_demand,
            "loading pools when a task asks for them (pools.activation = \"on_demand\"; start them with `llama-orch pools start`)",
        ),
    ];
    wishes.iter().filter(|(wished, _)| *wished).map(|(_, name)| *name).collect()
}
