//! `session ID`.

use api_types::SessionId;
use openapi_client::{Budgets, Client};

use crate::exit::Exit;
use crate::failure::Failure;
use crate::output;
use crate::show::{budgets, facts, millis};

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
    pairs.extend(budgets(Budgets::from(&session)));
    output::write(&facts(&pairs))?;
    Ok(Exit::Ok)
}
