//! The defence against DNS rebinding.

use std::net::IpAddr;

use crate::is_loopback;

/// A loopback request whose `Host` header names something else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("FOREIGN_HOST: a request over loopback must name localhost, 127.0.0.1 or [::1] as its host")]
pub struct ForeignHost;

impl ForeignHost {
    /// Its code in the auth envelope.
    pub const CODE: i32 = 40302;
    /// Its HTTP status.
    pub const STATUS: u16 = 403;
    /// What to do about it.
    pub const HINT: &'static str = "use the address http://localhost:PORT; a reverse proxy must send `Host: localhost`";
}

/// Refuses a request that came over loopback under a foreign name: a web page whose own name was made to resolve to
/// 127.0.0.1 reaches us that way, from a browser on this machine.
///
/// `host` is the `Host` header or, in HTTP/2, the authority. A request without either passes: no browser sends one.
/// `over_loopback` is whether the *peer* is on loopback, which holds for every peer of a loopback address and for local
/// callers of a wider one. Other peers are let through, since they need the token anyway.
///
/// # Errors
/// [`ForeignHost`] for any name but `localhost` and loopback addresses.
pub fn check_host(host: Option<&[u8]>, over_loopback: bool) -> Result<(), ForeignHost> {
    match host {
        Some(host) if over_loopback && !names_loopback(host) => Err(ForeignHost),
        _ => Ok(()),
    }
}

fn names_loopback(host: &[u8]) -> bool {
    let Ok(host) = std::str::from_utf8(host) else { return false };
    let Some(name) = without_port(host) else { return false };
    if let Some(v6) = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return v6.parse().is_ok_and(|ip| is_loopback(IpAddr::V6(ip)));
    }
    name.eq_ignore_ascii_case("localhost") || name.parse().is_ok_and(|ip| is_loopback(IpAddr::V4(ip)))
}

/// `host` before its port; `None` when what stands after the colon is no port.
fn without_port(host: &str) -> Option<&str> {
    match host.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => port.bytes().all(|b| b.is_ascii_digit()).then_some(name),
        _ => Some(host),
    }
}
