//! `logs`: what a pool's engine has written.

use api_types::LogQuery;
use openapi_client::{Client, Download};

use crate::args::LogsArgs;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::interrupts::Interrupts;
use crate::output;

/// Prints the last lines, and goes on if that is wanted. Ctrl-C is how that ends.
pub(crate) async fn logs(client: &Client, args: &LogsArgs) -> Result<Exit, Failure> {
    let mut interrupts = Interrupts::listen()?;
    let query = LogQuery { lines: Some(args.lines), follow: args.follow.then_some(true) };
    tokio::select! {
        biased;
        () = interrupts.next() => Ok(if args.follow { Exit::Ok } else { Exit::Canceled }),
        printed = async { print(client.get_pool_logs(&args.pool, &query).await?).await } => printed,
    }
}

async fn print(mut log: Download) -> Result<Exit, Failure> {
    while let Some(piece) = log.next().await? {
        output::write_bytes(&piece)?;
    }
    Ok(Exit::Ok)
}
