//! The command as people and scripts run it, against a scripted server.

mod bench;
mod command;
mod explain;
mod failures;
mod run;
#[path = "../../../../tools/openapi-client/tests/it/server.rs"]
mod server;
mod tasks;
mod tls;
mod views;
