//! Settings that the configuration file knows and this version does not carry out yet. None of them is passed over in silence:
//! a limit or a protection that would not hold keeps the daemon from starting, a comfort that is missing is a warning.

use config_schema::{Activation, Config};

/// Settings without which the operator's wish would be broken.
pub fn refused(config: &Config) -> Vec<&'static str> {
    let server = &config.server;
    let wishes = [(server.tls_cert.is_some() || server.tls_key.is_some(), "server.tls_cert, server.tls_key: TLS")];
    named(&wishes)
}

/// Settings that have no effect and do no harm.
pub fn ignored(config: &Config) -> Vec<&'static str> {
    let on_demand = config.pools.iter().any(|pool| pool.activation == Activation::OnDemand);
    let wishes = [
        (!config.server.cors_origins.is_empty(), "server.cors_origins"),
        (on_demand, "pools.activation = \"on_demand\""),
    ];
    named(&wishes)
}

fn named(wishes: &[(bool, &'static str)]) -> Vec<&'static str> {
    wishes.iter().filter(|(wished, _)| *wished).map(|(_, name)| *name).collect()
}
