//! `[sessions]` and `[policy]`: what clients may use up, and where the daemon itself may connect to.

use std::num::{NonZeroU32, NonZeroU64};
use std::time::Duration;

use api_types::words;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `[sessions]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Sessions {
    /// Time a session lives, in milliseconds.
    pub ttl_ms: NonZeroU64,
    /// Most tasks in one session.
    pub max_turns: NonZeroU32,
    /// Most tokens in one session, prompts and output together; unset is unlimited.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens_budget: Option<u64>,
    /// Most decode time in one session, in milliseconds; unset is unlimited.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_budget_ms: Option<u64>,
    /// Most cost in one session, in the unit of `cost_per_1k_tokens`; unset is unlimited.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost_budget: Option<f64>,
    /// Cost of 1,000 generated tokens; unset costs nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
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
    /// Host names, for `allowlist`.
    pub allow: Vec<String>,
    /// Whether engines may be installed through the system's package manager; a pool can say otherwise for itself.
    pub allow_package_installs: bool,
    /// Whether ready-made engine programs may be downloaded; a pool can say otherwise for itself.
    pub allow_binary_downloads: bool,
}
