//! `[admission]`, `[sessions]` and `[policy]`: what clients may ask for and use up, and where the daemon itself may connect to.

use std::num::{NonZeroU32, NonZeroU64};
use std::time::Duration;

use api_types::words;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

words! {
    /// A field of a task's `placement`, by which a client has a say in where its task runs.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
    PlacementOverride {
        /// `pin_pool_id`: this pool and no other.
        Pin = "pin",
        /// `prefer_pools`: these pools first.
        Prefer = "prefer",
        /// `avoid_pools`: not these pools.
        Avoid = "avoid",
        /// `require_device_mask`: only pools on these devices.
        RequireDeviceMask = "require_device_mask",
    }
}

/// `[admission]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AdmissionPolicy {
    /// Most tasks admitted per second from one API token; callers on loopback without a token count as one. Unset is
    /// unlimited.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub token_rate_limit_rps: Option<f64>,
    /// Tasks of one token that are admitted at once before the rate applies. Unset: the rate rounded up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_rate_limit_burst: Option<NonZeroU32>,
    /// The overrides that clients may use; a task with another one is refused.
    pub placement_overrides: Vec<PlacementOverride>,
}

impl Default for AdmissionPolicy {
    fn default() -> Self {
        Self {
            token_rate_limit_rps: None,
            token_rate_limit_burst: None,
            placement_overrides: PlacementOverride::ALL.to_vec(),
        }
    }
}

impl AdmissionPolicy {
    /// The throttle on each API token.
    #[must_use]
    pub fn token_rate_limit(&self) -> Option<RateLimit> {
        Some(RateLimit::new(self.token_rate_limit_rps?, self.token_rate_limit_burst))
    }

    /// Whether clients may use this override.
    #[must_use]
    pub fn allows(&self, placement_override: PlacementOverride) -> bool {
        self.placement_overrides.contains(&placement_override)
    }
}

/// A throttle.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RateLimit {
    /// Most tasks admitted per second in the long run; finite and greater than 0.
    pub per_second: f64,
    /// Tasks that are admitted at once before the rate applies.
    pub burst: NonZeroU32,
}

impl RateLimit {
    pub(crate) fn new(per_second: f64, burst: Option<NonZeroU32>) -> Self {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "`as` stays within the range")]
        let rounded_up = per_second.ceil() as u32;
        Self { per_second, burst: burst.or(NonZeroU32::new(rounded_up)).unwrap_or(NonZeroU32::MIN) }
    }
}

/// `[sessions]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Sessions {
    /// Time a session lives, in milliseconds.
    pub ttl_ms: NonZeroU64,
    /// Most tasks in one session.
    pub max_turns: NonZeroU32,
    /// Most tokens generated in one session; unset is unlimited.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub tokens_budget: Option<u64>,
    /// Most decode time in one session, in milliseconds; unset is unlimited.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub time_budget_ms: Option<u64>,
    /// Most cost in one session, in the unit of `cost_per_1k_tokens`, which it needs; unset is unlimited.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub cost_budget: Option<f64>,
    /// Price of 1,000 generated tokens, in any unit you like, such as cents; charged to the session by the token. Unset:
    /// tokens cost nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub cost_per_1k_tokens: Option<f64>,
}

impl Default for Sessions {
    fn default() -> Self {
        Self {
            ttl_ms: NonZeroU64::new(600_000).expect("600000 is not zero"),
            max_turns: NonZeroU32::new(8).expect("8 is not zero"),
            tokens_budget: None,
            time_budget_ms: None,
            cost_budget: None,
            cost_per_1k_tokens: None,
        }
    }
}

impl Sessions {
    /// Time a session lives.
    #[must_use]
    pub fn ttl(&self) -> Duration {
        Duration::from_millis(self.ttl_ms.get())
    }
}

/// `[policy]`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Policy {
    /// `[policy.outbound]`.
    pub outbound: Outbound,
}

words! {
    /// Where the daemon may connect to.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
    OutboundMode {
        /// Nowhere but to its engines.
        Deny = "deny",
        /// What this file names, and nothing that a client asks for.
        #[default]
        Configured = "configured",
        /// The hosts in `allow`.
        Allowlist = "allowlist",
        /// Anywhere.
        Allow = "allow",
    }
}

/// `[policy.outbound]`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Outbound {
    /// Where the daemon may connect to.
    pub mode: OutboundMode,
    /// Host names or addresses; `*.example.org` is every host below `example.org`. The only ones for `allowlist`; further ones
    /// for `configured`, besides those that a model's source is known to use. In every mode only these may have an address
    /// that is not a public one.
    pub allow: Vec<String>,
    /// Whether engines may be installed through the system's package manager; a pool can say otherwise for itself.
    pub allow_package_installs: bool,
    /// Whether ready-made engine programs may be downloaded; a pool can say otherwise for itself.
    pub allow_binary_downloads: bool,
}
