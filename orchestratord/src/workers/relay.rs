//! The way to what another host runs.

use std::net::IpAddr;

use api_types::PoolId;
use config_schema::{BearerToken, EngineUrl, Unfit};
use http_util::{Control, ControlConfig, ControlError, Endpoint, Secret};

/// A worker's relay.
#[derive(Clone, Debug)]
pub struct Relay {
    /// `host:port`.
    pub(super) authority: String,
    /// What it wants as a bearer token.
    pub(super) secret: BearerToken,
}

impl Relay {
    /// Where a worker's relay is reached: as it says, else where it called from.
    pub(super) fn new(advertise: Option<&str>, port: u16, peer: IpAddr, secret: BearerToken) -> Self {
        let peer = peer.to_canonical();
        let bare = |host: IpAddr| if host.is_ipv6() { format!("[{host}]") } else { host.to_string() };
        let authority = match advertise {
            None => format!("{}:{port}", bare(peer)),
            Some(host) => match host.parse::<IpAddr>() {
                Ok(host) => format!("{}:{port}", bare(host)),
                Err(_) if has_port(host) => host.to_owned(),
                Err(_) => format!("{host}:{port}"),
            },
        };
        Self { authority, secret }
    }

    /// Where a pool's engine is reached.
    pub(super) fn engine(&self, pool: &PoolId) -> Result<EngineUrl, Unfit> {
        format!("http://{}/engines/{pool}", self.authority).parse()
    }

    /// A client for what the relay itself tells.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn control(&self) -> Result<Control, ControlError> {
        let endpoint: Endpoint =
            format!("http://{}", self.authority).parse().map_err(|error| ControlError::Setup(Box::new(error)))?;
        let api_key = Some(Secret::from(self.secret.expose()));
        Control::new(&ControlConfig { api_key, ..ControlConfig::new(endpoint) })
    }
}

/// Whether a host that is no bare address has a port behind it.
fn has_port(host: &str) -> bool {
    host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok())
}

#[cfg(test)]
mod tests {
    use config_schema::BearerToken;

    use super::Relay;

    /// LO-HST-06: the relay is where its host says, else where it calls from.
    #[test]
    fn where_a_relay_is_reached() {
        for (advertise, peer, authority) in [
            (None, "10.0.0.2", "10.0.0.2:8085"),
            (None, "::ffff:10.0.0.2", "10.0.0.2:8085"),
            (None, "fe80::1", "[fe80::1]:8085"),
            (Some("box2.lan"), "10.0.0.2", "box2.lan:8085"),
            (Some("box2.lan:9000"), "10.0.0.2", "box2.lan:9000"),
            (Some("192.168.1.7"), "10.0.0.2", "192.168.1.7:8085"),
            (Some("fd00::7"), "10.0.0.2", "[fd00::7]:8085"),
            (Some("[fd00::7]:9000"), "10.0.0.2", "[fd00::7]:9000"),
        ] {
            let secret = BearerToken::parse("s").expect("a token");
            let relay = Relay::new(advertise, 8085, peer.parse().expect("an address"), secret);
            assert_eq!(relay.authority, authority, "{advertise:?}");
            relay.engine(&"gpu0".into()).expect("a URL");
        }
    }
}
