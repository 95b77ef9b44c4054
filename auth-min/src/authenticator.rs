//! The verdict on one request.

use std::net::IpAddr;

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::{BearerToken, Fingerprint, Identity, is_loopback};

/// Why a request was turned away. Its text starts with the symbolic name (LO-ERR-05).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// No bearer token came with the request.
    #[error("MISSING_TOKEN: this server wants a bearer token")]
    Missing,
    /// A token came, and it is not the right one.
    #[error("BAD_TOKEN: the bearer token is not the one this server knows")]
    Bad,
    /// The request needs the token wherever it comes from, and the server has none.
    #[error("NO_TOKEN: this server has no token, and takes no workers without one")]
    Unset,
}

impl Denied {
    /// The HTTP status of all.
    pub const STATUS: u16 = 401;

    /// Its code in the auth envelope (LO-AUTH-04).
    #[must_use]
    pub const fn code(self) -> i32 {
        match self {
            Self::Missing => 40101,
            Self::Bad => 40102,
            Self::Unset => 40103,
        }
    }

    /// What to do about it.
    #[must_use]
    pub const fn hint(self) -> &'static str {
        match self {
            Self::Missing => "send `Authorization: Bearer <token>` with the token the operator set as AUTH_TOKEN",
            Self::Bad => "compare the client's token with the operator's AUTH_TOKEN; it may have been changed",
            Self::Unset => {
                "set AUTH_TOKEN or AUTH_TOKEN_FILE on the orchestrator, start it again, and give the worker the same"
            }
        }
    }
}

/// Decides who may call. Shared by all requests; a check allocates nothing.
#[derive(Clone, Debug)]
pub struct Authenticator {
    expected: Option<Expected>,
    loopback: Loopback,
}

#[derive(Clone)]
struct Expected {
    digest: [u8; 32],
    identity: Identity,
}

impl std::fmt::Debug for Expected {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(&self.identity, f)
    }
}

/// What a caller on loopback needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Loopback {
    Open,
    Token,
    /// Any credential: the proxy in front has checked it.
    Proxied,
}

impl Authenticator {
    /// The rule for a server (contradictions C2 and C3 of the requirements, as resolved there).
    ///
    /// With `trust_proxy` (AUTH-1006) an `Authorization` header that comes over loopback is believed without being
    /// compared, and loopback callers without one are refused whatever `auth_optional` says: behind a proxy on the same
    /// machine *every* caller comes over loopback. The risk: any local process can pass as the proxy.
    #[must_use]
    pub fn new(token: Option<&BearerToken>, auth_optional: Option<bool>, trust_proxy: bool) -> Self {
        let expected = token.map(|token| Expected {
            digest: Sha256::digest(token.expose()).into(),
            identity: Identity::Token(token.fingerprint()),
        });
        let loopback = match (trust_proxy, auth_optional, &expected) {
            (true, ..) => Loopback::Proxied,
            (false, Some(true), _) | (false, None, None) => Loopback::Open,
            (false, Some(false), _) | (false, None, Some(_)) => Loopback::Token,
        };
        Self { expected, loopback }
    }

    /// The verdict on a request from `peer` with this `Authorization` header.
    ///
    /// A loopback caller who needs no token passes with any header: many client libraries insist on sending some key.
    ///
    /// # Errors
    /// [`Denied`] when a token is needed and the right one did not come.
    pub fn check(&self, peer: IpAddr, authorization: Option<&[u8]>) -> Result<Identity, Denied> {
        match self.loopback {
            _ if !is_loopback(peer) => self.compare(authorization),
            Loopback::Open => match authorization {
                Some(_) => Ok(self.compare(authorization).unwrap_or(Identity::Localhost)),
                None => Ok(Identity::Localhost),
            },
            Loopback::Token => self.compare(authorization),
            Loopback::Proxied => {
                let credential = authorization.and_then(credential).ok_or(Denied::Missing)?;
                Ok(Identity::Token(Fingerprint::of(credential)))
            }
        }
    }

    /// The verdict on a request that needs the token wherever it comes from: worker registration (AUTH-1003). Without a
    /// configured token nobody passes.
    ///
    /// # Errors
    /// [`Denied`] when the right token did not come.
    pub fn require_token(&self, authorization: Option<&[u8]>) -> Result<Identity, Denied> {
        if self.expected.is_none() {
            return Err(Denied::Unset);
        }
        self.compare(authorization)
    }

    fn compare(&self, authorization: Option<&[u8]>) -> Result<Identity, Denied> {
        let presented = authorization.and_then(bearer).ok_or(Denied::Missing)?;
        let expected = self.expected.as_ref().ok_or(Denied::Bad)?;
        // Digests have one length, so the comparison tells nothing about the token's.
        let digest: [u8; 32] = Sha256::digest(presented).into();
        if digest.ct_eq(&expected.digest).into() { Ok(expected.identity) } else { Err(Denied::Bad) }
    }
}

/// The token of a `Bearer` header; the scheme's case does not matter (RFC 9110, section 11.1).
fn bearer(header: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = split(header)?;
    scheme.eq_ignore_ascii_case(b"Bearer").then_some(token)
}

/// What a proxy sent, whatever the scheme.
fn credential(header: &[u8]) -> Option<&[u8]> {
    split(header).map(|(_, credential)| credential)
}

/// Scheme and credential, neither empty.
fn split(header: &[u8]) -> Option<(&[u8], &[u8])> {
    let header = header.trim_ascii();
    let end = header.iter().position(u8::is_ascii_whitespace)?;
    Some((&header[..end], header[end..].trim_ascii_start()))
}
