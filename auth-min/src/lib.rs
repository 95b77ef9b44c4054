//! Minimal auth: one static bearer token, who a caller is, and which addresses may be listened on.
//!
//! A leaf: plain types, no HTTP library, no configuration file, no logging. Servers, workers, the CLI and tests share it,
//! so that the rule exists once. It is not for users, roles, sessions or certificates; every caller who passes has the same
//! rights (AUTH-1005).
//!
//! The rule, in full:
//! - off loopback every request needs the token, and without a token such an address is not listened on ([`check_bind`]);
//! - from loopback, no token configured and `auth_optional` unset: open; `auth_optional = true`: open; else the token;
//! - from loopback the `Host` header must name loopback ([`check_host`]), or a web page could reach us by DNS rebinding;
//! - with `trust_proxy` a loopback caller is a reverse proxy that has already authenticated its own caller.

mod authenticator;
mod bind;
mod host;
mod identity;
mod token;

#[cfg(test)]
mod tests;

pub use authenticator::{Authenticator, Denied};
pub use bind::{BindRefused, check_bind, is_loopback};
pub use host::{ForeignHost, check_host};
pub use identity::{Fingerprint, Identity};
pub use token::{BearerToken, TokenError};
