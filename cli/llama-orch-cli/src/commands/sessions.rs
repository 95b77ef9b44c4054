//! `session ID`.

use api_types::SessionId;
use openapi_client::Client;

use crate::exit::Exit;
use crate::failure::Failure;
use crate::output;
use crate::show::{facts, millis};

/// Shows a session, or ends it.
pub(crate) async fn session(client: &Client, id: SessionId, end: bool, json: bool) -> Result<Exit, Failure> {
    if end {
        client.delete_session(id).await?;
        return Ok(Exit::Ok);
    }
    let session = client.get_session(id).await?;
    if json {
        output::json(&session)?;
        return Ok(Exit::Ok);
    }
    let mut pairs = vec![
        ("session", id.to_string()),
        ("expires in", millis(session.ttl_ms_remaining)),
        ("turns", session.turns.to_string()),
        ("cache", if session.kv_warmth { "warm" } else { "cold" }.to_owned()),
    ];
    let budgets = [
        ("tokens left", session.tokens_budget_remaining.map(|tokens| tokens.to_string())),
        ("time left", session.time_budget_remaining_ms.map(millis)),
        ("cost left", session.cost_budget_remaining.map(|cost| cost.to_string())),
    ];
    pairs.extend(budgets.into_iter().filter_map(|(name, value)| Some((name, value?))));
    output::write(&facts(&pairs))?;
    Ok(Exit::Ok)
}
