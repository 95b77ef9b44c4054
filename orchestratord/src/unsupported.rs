//! Settings that the configuration file knows and this version does not carry out yet. None of them is passed over in
//! silence: each is a warning at start.

use config_schema::Config;

/// Settings that have no effect and do no harm.
pub fn ignored(config: &Config) -> Vec<&'static str> {
    let wishes = [
        (config.worker.is_some(), "worker (it is for pool-managerd, which this host runs instead of orchestratord)"),
        (!config.server.cors_origins.is_empty(), "server.cors_origins"),
    ];
    wishes.iter().filter(|(wished, _)| *wished).map(|(_, name)| *name).collect()
}
