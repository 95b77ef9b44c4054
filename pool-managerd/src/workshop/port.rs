//! A port for an engine.

use std::net::{Ipv4Addr, TcpListener};
use std::num::NonZeroU16;

use api_types::PoolFault;

use crate::failure::Failure;

/// A port that nobody listens on: of those that the pool may use, or any. Somebody may take it before the engine does, which
/// shows when the engine starts.
///
/// # Errors
/// All that it may use are taken.
pub(super) fn choose(allowed: &[NonZeroU16]) -> Result<u16, Failure> {
    if allowed.is_empty() {
        return free(0).map_err(|error| Failure::new(PoolFault::PortTaken, format!("no port is to be had: {error}")));
    }
    let mut last = None;
    for port in allowed {
        match free(port.get()) {
            Ok(port) => return Ok(port),
            Err(error) => last = Some((port, error)),
        }
    }
    let taken: Vec<_> = allowed.iter().map(ToString::to_string).collect();
    let why = last.map_or_else(String::new, |(port, error)| format!(" (port {port}: {error})"));
    let message = format!("every port that the engine may use is taken: {}{why}", taken.join(", "));
    Err(Failure::new(PoolFault::PortTaken, message).with_fix(format!(
        "see who listens there: ss -ltnp 'sport = :{}'; or allow other ports with provisioning.ports",
        taken[0]
    )))
}

fn free(port: u16) -> std::io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, port))?.local_addr()?.port())
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};
    use std::num::NonZeroU16;

    use api_types::PoolFault;

    use super::choose;

    /// ORCH-3804: a port that is taken is passed over, and if all are, they are named.
    #[test]
    fn taken_ports_are_passed_over() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let port = NonZeroU16::new(taken.local_addr().expect("it is bound").port()).expect("not 0");
        let error = choose(&[port]).expect_err("it is taken");
        assert_eq!(error.fault, PoolFault::PortTaken);
        assert!(error.to_string().contains(&port.to_string()), "{error}");
        let other = NonZeroU16::new(choose(&[]).expect("there is one")).expect("not 0");
        assert_eq!(choose(&[port, other]), Ok(other.get()));
    }
}
