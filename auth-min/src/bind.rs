//! Which addresses may be listened on.

use std::net::{IpAddr, SocketAddr};

/// An address beyond loopback was to be opened without a token (AUTH-1002).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "NON_LOOPBACK_WITHOUT_TOKEN: refusing to listen on {addr} without a token; set AUTH_TOKEN or AUTH_TOKEN_FILE, or bind to \
     127.0.0.1"
)]
pub struct BindRefused {
    /// The address that was asked for.
    pub addr: SocketAddr,
}

impl BindRefused {
    /// Its code in the auth envelope (LO-ERR-05).
    pub const CODE: i32 = 40301;
    /// Its HTTP status.
    pub const STATUS: u16 = 403;
}

/// Whether an address is reachable from this machine only: 127.0.0.0/8, `::1`, and the former mapped into IPv6.
#[must_use]
pub fn is_loopback(addr: IpAddr) -> bool {
    addr.to_canonical().is_loopback()
}

/// The bind-address rule: loopback, or a token.
///
/// # Errors
/// [`BindRefused`], which says what to set.
pub fn check_bind(addr: SocketAddr, has_token: bool) -> Result<(), BindRefused> {
    if has_token || is_loopback(addr.ip()) { Ok(()) } else { Err(BindRefused { addr }) }
}
