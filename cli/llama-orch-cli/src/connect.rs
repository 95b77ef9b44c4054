//! From the connection's options to a client.

use openapi_client::{BearerToken, Client, ClientConfig, Server};

use crate::args::Connection;
use crate::failure::Failure;

/// The environment's second name for a token, looked at after `AUTH_TOKEN`.
const TOKEN_VARIABLE: &str = "LLORCH_API_TOKEN";

/// A client of the server that the options name.
pub(crate) fn client(connection: &Connection) -> Result<Client, Failure> {
    let mut config = ClientConfig::new(server(&connection.server)?);
    config.token = token(connection)?;
    Ok(Client::new(config)?)
}

/// `host:port` means plain HTTP there.
fn server(text: &str) -> Result<Server, Failure> {
    let has_scheme = text.contains("://") || text.starts_with("unix:");
    let address = if has_scheme { text.to_owned() } else { format!("http://{text}") };
    address.parse().map_err(|error: openapi_client::ServerError| {
        Failure::usage(error.to_string(), "give --server or LLAMA_ORCH_SERVER such an address")
    })
}

/// The token that the options or the environment name.
pub(crate) fn token(connection: &Connection) -> Result<Option<BearerToken>, Failure> {
    let given = connection.auth_token.clone().or_else(|| std::env::var(TOKEN_VARIABLE).ok());
    // An empty variable is how a script says "none".
    given.filter(|text| !text.is_empty()).map(|text| BearerToken::parse(&text)).transpose().map_err(|error| {
        Failure::usage(error.to_string(), format!("check --auth-token, AUTH_TOKEN and {TOKEN_VARIABLE}"))
    })
}
