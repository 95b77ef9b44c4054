//! The one gate to the network.

use http_util::Secret;
use url::Url;

/// A request that is about to leave.
#[derive(Clone, Debug)]
pub struct Request {
    /// Where to. May hold a signature: never show it whole.
    pub url: Url,
    /// Headers with credentials; sent to the origin of `url` only, never on to where a redirect leads.
    pub secret_headers: Vec<(&'static str, Secret)>,
    /// Further headers, such as `Accept`.
    pub headers: Vec<(&'static str, String)>,
}

/// Lets requests out that the policy lets out.
#[derive(Debug)]
pub struct Web {}
