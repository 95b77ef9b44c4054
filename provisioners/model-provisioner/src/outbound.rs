//! Where requests may go (`[policy.outbound]`).
//!
//! | mode | whose references | which hosts |
//! |---|---|---|
//! | `deny` | nobody's | none |
//! | `configured` | the configuration's own | those that belong to the reference's source, and those in `allow` |
//! | `allowlist` | anybody's | those in `allow` |
//! | `allow` | anybody's | all |
//!
//! In every mode an address that is not a public one is refused, unless its host is in `allow` or the configuration itself
//! spells the address (or `localhost`) as the origin of the model: a name that somebody else controls must not lead into the
//! operator's network. Plain `http:` off this machine wants an expected digest.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use catalog_core::{FetchError, ModelRef};
use config_schema::{Outbound, OutboundMode};
use url::{Host, Url};

/// What may be reached.
#[derive(Clone, Debug)]
pub struct OutboundPolicy {
    mode: OutboundMode,
    allow: Vec<String>,
}

/// Which hosts belong to a reference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Home {
    /// Where its first request goes; of this URL only scheme, host and port matter.
    pub origin: Url,
    /// Domains that its source is known to deliver from, each with all hosts below it: `hf.co` is `cdn-lfs.hf.co`, too.
    pub delivery: Vec<String>,
}

impl Home {
    /// A source that has the one host.
    #[must_use]
    pub fn new(origin: Url) -> Self {
        Self { origin, delivery: Vec::new() }
    }
}

/// What requests are made for.
#[derive(Clone, Debug)]
pub struct Errand {
    /// The reference as it may be shown.
    pub model: String,
    /// Whether the operator's own configuration names it.
    pub configured: bool,
    /// Whether what comes will be compared with a digest that is known already.
    pub pinned: bool,
    /// Where it belongs.
    pub home: Home,
}

impl Errand {
    /// Fetching `model`.
    #[must_use]
    pub fn new(model: &ModelRef, home: Home, configured: bool, pinned: bool) -> Self {
        Self { model: model.to_string(), configured, pinned, home }
    }
}

/// Which addresses a host may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Public ones only.
    Public,
    /// Any.
    Any,
}

impl OutboundPolicy {
    /// The policy of `[policy.outbound]`. Entries of `allow` are a host or an address as written, or `*.example.org` for all
    /// hosts below `example.org`.
    #[must_use]
    pub fn new(outbound: &Outbound) -> Self {
        let plain = |host: &String| host.trim().trim_matches(['[', ']']).trim_end_matches('.').to_ascii_lowercase();
        Self { mode: outbound.mode, allow: outbound.allow.iter().map(plain).collect() }
    }

    /// Whether anything at all may be asked for on this errand.
    ///
    /// # Errors
    /// [`FetchError::Denied`] with the key to change.
    pub fn check_errand(&self, errand: &Errand) -> Result<(), FetchError> {
        let why = match self.mode {
            OutboundMode::Deny => {
                "policy.outbound.mode is `deny`; set it to `configured` to fetch what the configuration names"
            }
            OutboundMode::Configured if !errand.configured => {
                "policy.outbound.mode is `configured`, and the configuration does not name this model; add it to \
                 [[catalog.models]]"
            }
            OutboundMode::Configured | OutboundMode::Allowlist | OutboundMode::Allow => return Ok(()),
        };
        Err(FetchError::Denied(format!("{} may not be fetched: {why}", errand.model)))
    }

    /// Whether a request on this errand may go to `url`, and which addresses its host may have.
    ///
    /// # Errors
    /// [`FetchError::Denied`] with the key to change.
    pub fn check(&self, errand: &Errand, url: &Url) -> Result<Reach, FetchError> {
        self.check_errand(errand)?;
        let deny = |host: &str, why: &str| {
            Err(FetchError::Denied(format!("{host} may not be reached for {}: {why}", errand.model)))
        };
        let Some(name) = host_of(url).filter(|_| matches!(url.scheme(), "http" | "https")) else {
            return deny(url.scheme(), "only https and http are spoken");
        };
        let listed = self.allow.iter().any(|pattern| matches(pattern, &name));
        match self.mode {
            OutboundMode::Configured if !listed && !errand.home.has(&name) => {
                return deny(&name, "its source is not known to use this host; add it to policy.outbound.allow");
            }
            OutboundMode::Allowlist if !listed => {
                return deny(&name, "policy.outbound.mode is `allowlist`; add the host to policy.outbound.allow");
            }
            _ => {}
        }
        if url.scheme() == "http" && !is_this_machine(url) && !errand.pinned {
            return deny(&name, "plain http can be changed on its way; use https, or give the model a checksum");
        }
        if listed || (errand.configured && errand.home.spells(url)) {
            return Ok(Reach::Any);
        }
        match address_of(url) {
            Some(address) if !is_public(address) => deny(&name, PRIVATE),
            _ => Ok(Reach::Public),
        }
    }

    /// The denial of a host whose name leads to an address that is not public.
    #[must_use]
    pub(crate) fn private(errand: &Errand, host: &str) -> FetchError {
        FetchError::Denied(format!("{host} may not be reached for {}: {PRIVATE}", errand.model))
    }
}

const PRIVATE: &str = "its address is not a public one; add the host to policy.outbound.allow if it is yours";

impl Home {
    fn has(&self, name: &str) -> bool {
        let is_below = |domain: &String| {
            name.strip_suffix(domain.as_str()).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        };
        host_of(&self.origin).is_some_and(|own| own == name) || self.delivery.iter().any(is_below)
    }

    /// Whether this is the origin, written as an address or as `localhost`, so that no name server has a say in it.
    fn spells(&self, url: &Url) -> bool {
        let is_origin =
            host_of(url) == host_of(&self.origin) && url.port_or_known_default() == self.origin.port_or_known_default();
        is_origin && (address_of(url).is_some() || is_this_machine(url))
    }
}

fn matches(pattern: &str, name: &str) -> bool {
    match pattern.strip_prefix("*.") {
        Some(domain) => name.strip_suffix(domain).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.')),
        None => pattern == name,
    }
}

/// The host as it is compared: lower case, without brackets and final dot.
pub(crate) fn host_of(url: &Url) -> Option<String> {
    Some(match url.host()? {
        Host::Domain(name) => name.trim_end_matches('.').to_ascii_lowercase(),
        Host::Ipv4(address) => address.to_string(),
        Host::Ipv6(address) => address.to_string(),
    })
    .filter(|host| !host.is_empty())
}

fn address_of(url: &Url) -> Option<IpAddr> {
    match url.host()? {
        Host::Domain(_) => None,
        Host::Ipv4(address) => Some(address.into()),
        Host::Ipv6(address) => Some(address.into()),
    }
}

/// Whether the host is written as this machine's own: a loopback address or `localhost`.
pub(crate) fn is_this_machine(url: &Url) -> bool {
    match address_of(url) {
        Some(address) => address.is_loopback(),
        None => host_of(url).is_some_and(|name| name == "localhost"),
    }
}

/// Whether an address is one of the public internet. Source: the IANA registries of special-purpose addresses.
#[must_use]
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    !matches!(
        (a, b, c),
        (0 | 10 | 127 | 224.., ..)
            | (100, 64..=127, _)
            | (169, 254, _)
            | (172, 16..=31, _)
            | (192, 0, 0 | 2)
            | (192, 88, 99)
            | (192, 168, _)
            | (198, 18 | 19, _)
            | (198, 51, 100)
            | (203, 0, 113)
    )
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let segments = address.segments();
    match segments {
        // What a NAT64 gateway translates is judged by what it leads to.
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => is_public_v4(Ipv4Addr::from((u32::from(high) << 16) | u32::from(low))),
        // Protocol assignments with Teredo, documentation, and 6to4, which hides an address of the old protocol.
        [0x2001, 0..=0x1ff, ..] | [0x2001, 0xdb8, ..] | [0x2002, ..] | [0x3fff, 0..=0xfff, ..] => false,
        [0x2000..=0x3fff, ..] => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(mode: OutboundMode, allow: &[&str]) -> OutboundPolicy {
        let allow = allow.iter().map(|host| (*host).to_owned()).collect();
        OutboundPolicy::new(&Outbound { mode, allow, ..Outbound::default() })
    }

    fn errand(origin: &str, configured: bool) -> Errand {
        let mut home = Home::new(origin.parse().unwrap());
        home.delivery = vec!["hf.co".to_owned()];
        Errand::new(&"hf:org/repo".parse().unwrap(), home, configured, false)
    }

    /// ORCH-3080: every mode, by whom the model is named and where the request goes; the denial names the key.
    #[test]
    fn modes() {
        use OutboundMode::{Allow, Allowlist, Configured, Deny};
        const MODE: &str = "policy.outbound.mode";
        const LIST: &str = "policy.outbound.allow";
        const MODELS: &str = "[[catalog.models]]";
        let hub = "https://huggingface.co";
        for (mode, allow, configured, url, denied_by) in [
            (Deny, &["huggingface.co"][..], true, "https://huggingface.co/x", Some(MODE)),
            (Configured, &[], false, "https://huggingface.co/x", Some(MODELS)),
            (Configured, &["huggingface.co"], false, "https://huggingface.co/x", Some(MODELS)),
            (Configured, &[], true, "https://huggingface.co/x", None),
            (Configured, &[], true, "https://HuggingFace.co.:443/x", None),
            (Configured, &[], true, "https://hf.co/x", None),
            (Configured, &[], true, "https://cdn-lfs.hf.co/x", None),
            (Configured, &[], true, "https://nothf.co/x", Some(LIST)),
            (Configured, &[], true, "https://huggingface.co.evil.org/x", Some(LIST)),
            (Configured, &[], true, "https://evil.org/huggingface.co", Some(LIST)),
            (Configured, &["cdn.org"], true, "https://cdn.org/x", None),
            (Allowlist, &["*.cdn.org"], true, "https://huggingface.co/x", Some(LIST)),
            (Allowlist, &["*.cdn.org"], false, "https://a.b.cdn.org/x", None),
            (Allowlist, &["*.cdn.org"], false, "https://cdn.org/x", Some(LIST)),
            (Allowlist, &["*.cdn.org"], false, "https://xcdn.org/x", Some(LIST)),
            (Allowlist, &["CDN.org."], false, "https://cdn.org/x", None),
            (Allow, &[], false, "https://anything.example/x", None),
            (Allow, &[], false, "ftp://anything.example/x", Some("only https")),
        ] {
            let found = policy(mode, allow).check(&errand(hub, configured), &url.parse().unwrap());
            match denied_by {
                None => assert!(found.is_ok(), "{mode} {url}: {found:?}"),
                Some(key) => {
                    let text = found.expect_err(url).to_string();
                    assert!(text.contains(key) && text.contains("hf:org/repo"), "{mode} {url}: {text}");
                }
            }
        }
    }

    /// ORCH-3080: an address of the operator's network needs the operator's word, however it is written.
    #[test]
    fn private_addresses() {
        use OutboundMode::{Allow, Configured};
        let denied = |mode, allow: &[&str], origin: &str, configured, url: &str| {
            policy(mode, allow).check(&errand(origin, configured), &url.parse().unwrap()).is_err()
        };
        for literal in [
            "https://127.0.0.1/x",
            "https://2130706433/x",
            "https://0x7f.1/x",
            "https://10.1.2.3/x",
            "https://169.254.169.254/latest/meta-data",
            "https://[::1]/x",
            "https://[::ffff:10.0.0.1]/x",
            "https://[fd00::1]/x",
            "https://[fe80::1]/x",
        ] {
            assert!(denied(Allow, &[], "https://example.org", true, literal), "{literal}");
            assert!(denied(Allow, &[], literal, false, literal), "a client's {literal}");
            assert!(!denied(Configured, &[], literal, true, literal), "the operator's {literal}");
        }
        assert!(!denied(Allow, &["10.1.2.3"], "https://example.org", false, "https://10.1.2.3/x"));
        assert!(!denied(Allow, &["[fd00::1]"], "https://example.org", false, "https://[fd00::1]/x"));
        // Another port of the same machine is another service.
        assert!(denied(Configured, &[], "https://10.1.2.3", true, "https://10.1.2.3:2375/x"));

        let reach = |origin: &str, url: &str| {
            policy(Configured, &[]).check(&errand(origin, true), &url.parse().unwrap()).unwrap()
        };
        assert_eq!(reach("http://localhost:9000", "http://localhost:9000/x"), Reach::Any);
        assert_eq!(reach("https://nas.example", "https://nas.example/x"), Reach::Public);
    }

    /// ORCH-3080: what comes in the clear could be anything, unless its digest is known.
    #[test]
    fn plain_http_wants_a_digest() {
        let policy = policy(OutboundMode::Configured, &[]);
        let url = "http://example.org/x".parse().unwrap();
        let mut errand = errand("http://example.org", true);
        assert!(policy.check(&errand, &url).unwrap_err().to_string().contains("checksum"));
        errand.pinned = true;
        assert!(policy.check(&errand, &url).is_ok());
    }

    /// ORCH-3080: which addresses are public.
    #[test]
    fn public_addresses() {
        for (address, public) in [
            ("1.1.1.1", true),
            ("100.63.0.1", true),
            ("100.64.0.1", false),
            ("172.15.0.1", true),
            ("172.31.0.1", false),
            ("192.0.1.1", true),
            ("192.0.2.1", false),
            ("198.19.0.1", false),
            ("223.255.255.1", true),
            ("224.0.0.1", false),
            ("255.255.255.255", false),
            ("0.0.0.0", false),
            ("2606:4700::1111", true),
            ("2001:4860:4860::8888", true),
            ("2001::1", false),
            ("2001:db8::1", false),
            ("2002:a00:1::", false),
            ("64:ff9b::101:101", true),
            ("64:ff9b::a00:1", false),
            ("::", false),
            ("::1", false),
            ("::ffff:1.1.1.1", false),
            ("fc00::1", false),
            ("fe80::1", false),
            ("fec0::1", false),
            ("ff02::1", false),
        ] {
            assert_eq!(is_public(address.parse().unwrap()), public, "{address}");
        }
    }
}
