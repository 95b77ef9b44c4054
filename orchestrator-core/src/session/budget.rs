//! What a session may use, has used and has reserved, and why a task does not fit. All of it is whole numbers; cost is a
//! rate times tokens, in billionths of the operator's unit, so that parts always add up.

use api_types::{ErrorKind, PolicyLabel};

use super::{Ask, Budgets, SessionLimits, Used};
use crate::Refusal;

/// Decode time reserved for a task whose decode time nobody can predict, in milliseconds.
const UNPREDICTED_MS: u64 = 1_000;

const BILLION: f64 = 1e9;

/// What is charged: everything else follows from it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Amount {
    pub(super) tokens: u64,
    pub(super) decode_ms: u64,
}

impl Amount {
    const fn plus(self, other: Self) -> Self {
        Self {
            tokens: self.tokens.saturating_add(other.tokens),
            decode_ms: self.decode_ms.saturating_add(other.decode_ms),
        }
    }
}

/// One session's books.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Account {
    pub(super) spent: Amount,
    pub(super) reserved: Amount,
}

impl Account {
    pub(super) const fn reserve(&mut self, amount: Amount) {
        self.reserved = self.reserved.plus(amount);
    }

    /// Undoes a reservation.
    pub(super) const fn release(&mut self, amount: Amount) {
        self.reserved.tokens -= amount.tokens;
        self.reserved.decode_ms -= amount.decode_ms;
    }

    pub(super) const fn charge(&mut self, amount: Amount) {
        self.spent = self.spent.plus(amount);
    }

    /// Forgets what was spent.
    pub(super) const fn forgive(&mut self) {
        self.spent = Amount { tokens: 0, decode_ms: 0 };
    }
}

/// The budgets of every session; `None` is no limit.
#[derive(Clone, Copy, Debug)]
pub(super) struct Allowance {
    tokens: Option<u64>,
    decode_ms: Option<u64>,
    /// In billionths.
    cost: Option<u128>,
    /// In billionths; millionths per thousand tokens.
    cost_per_token: u128,
}

/// What is neither spent nor reserved, in the units of [`Allowance`].
struct Left {
    tokens: Option<u64>,
    decode_ms: Option<u64>,
    cost: Option<u128>,
}

impl Allowance {
    pub(super) fn new(limits: &SessionLimits) -> Self {
        Self {
            tokens: limits.tokens_budget,
            decode_ms: limits.time_budget_ms,
            cost: limits.cost_budget.map(|cost| (cost * BILLION).round() as u128),
            cost_per_token: limits.cost_per_1k_tokens.map_or(0, |cost| (cost * 1e6).round() as u128),
        }
    }

    /// What has to be reserved for a task.
    pub(super) fn cover(&self, account: &Account, ask: Ask) -> Result<Amount, Refusal> {
        let left = self.left(account);
        let lacks = self
            .lacks_tokens(&left, ask)
            .or_else(|| self.lacks_cost(&left, ask))
            .or_else(|| self.lacks_time(&left, ask));
        if let Some(lack) = lacks {
            return Err(self.refusal(&lack, account, &left, ask));
        }
        let unpredicted_ms = if ask.max_tokens == 0 { 0 } else { UNPREDICTED_MS };
        let decode_ms = left.decode_ms.map_or(0, |left_ms| ask.decode_ms.unwrap_or(unpredicted_ms).min(left_ms));
        Ok(Amount { tokens: u64::from(ask.max_tokens), decode_ms })
    }

    pub(super) fn budgets(&self, account: &Account) -> Budgets {
        let left = self.left(account);
        Budgets {
            tokens_used: account.spent.tokens,
            tokens_remaining: left.tokens,
            time_remaining_ms: left.decode_ms,
            cost_remaining: left.cost.map(in_units),
        }
    }

    /// What tokens cost, in the operator's unit.
    pub(super) fn cost(&self, tokens: u64) -> f64 {
        in_units(self.cost_of(tokens))
    }

    pub(super) fn overrun(&self, used: Used, reserved: Amount) -> Used {
        let tokens = u64::from(used.tokens_out).saturating_sub(reserved.tokens);
        Used {
            tokens_out: u32::try_from(tokens).unwrap_or(u32::MAX),
            decode_ms: self.decode_ms.map_or(0, |_| used.decode_ms.saturating_sub(reserved.decode_ms)),
        }
    }

    fn left(&self, account: &Account) -> Left {
        let taken = account.spent.plus(account.reserved);
        Left {
            tokens: self.tokens.map(|budget| budget.saturating_sub(taken.tokens)),
            decode_ms: self.decode_ms.map(|budget| budget.saturating_sub(taken.decode_ms)),
            cost: self.cost.map(|budget| budget.saturating_sub(self.cost_of(taken.tokens))),
        }
    }

    fn cost_of(&self, tokens: u64) -> u128 {
        self.cost_per_token.saturating_mul(u128::from(tokens))
    }

    fn lacks_tokens(&self, left: &Left, ask: Ask) -> Option<String> {
        let (budget, left, asked) = (self.tokens?, left.tokens?, ask.max_tokens);
        (u64::from(asked) > left)
            .then(|| format!("the task may generate {asked} tokens and the session has {left} of its {budget}"))
    }

    fn lacks_cost(&self, left: &Left, ask: Ask) -> Option<String> {
        let (budget, left, asked) = (self.cost?, left.cost?, self.cost_of(u64::from(ask.max_tokens)));
        (asked > left).then(|| {
            let [asked, left, budget] = [asked, left, budget].map(in_units);
            format!("the task may cost {asked} and the session has {left} of its {budget}")
        })
    }

    fn lacks_time(&self, left: &Left, ask: Ask) -> Option<String> {
        let (budget, left) = (self.decode_ms?, left.decode_ms?);
        let asked = match ask.decode_ms {
            Some(asked) => (asked > left).then(|| format!("is predicted to decode for {asked} ms")),
            None => (ask.max_tokens > 0 && left == 0).then(|| "has to decode".to_owned()),
        };
        asked.map(|asked| format!("the task {asked} and the session has {left} ms of its {budget}"))
    }

    fn refusal(&self, lack: &str, account: &Account, left: &Left, ask: Ask) -> Refusal {
        let besides =
            if account.reserved == Amount::default() { "" } else { " besides what its running tasks reserve" };
        let advice = match self.affordable(left, ask) {
            0 => String::new(),
            tokens => format!("ask for at most {tokens} tokens, or "),
        };
        let message = format!("{lack} left{besides}; {advice}start a new session_id to go on");
        Refusal::backpressure(ErrorKind::AdmissionReject, PolicyLabel::SessionBudget, 0, message).with_retriable(false)
    }

    /// Tokens that every budget covers, decode time taken as proportional to them.
    fn affordable(&self, left: &Left, ask: Ask) -> u64 {
        let asked = u128::from(ask.max_tokens);
        let by_tokens = left.tokens.map(u128::from);
        let by_cost = left.cost.and_then(|cost| cost.checked_div(self.cost_per_token));
        let by_time = match (left.decode_ms, ask.decode_ms) {
            (Some(left), Some(ms)) => (u128::from(left) * asked).checked_div(u128::from(ms)),
            (Some(0), None) => Some(0),
            _ => None,
        };
        let tokens = [by_tokens, by_cost, by_time].into_iter().flatten().fold(asked, u128::min);
        u64::try_from(tokens).unwrap_or(u64::MAX)
    }
}

/// Billionths in the operator's unit.
fn in_units(cost: u128) -> f64 {
    cost as f64 / BILLION
}
