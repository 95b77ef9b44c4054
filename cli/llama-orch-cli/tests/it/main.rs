//! The command as people and scripts run it, against a scripted server.

mod artifacts;
mod bench;
mod command;
mod explain;
mod failures;
mod machine;
mod models;
mod pools;
mod run;
#[path = "../../../../tools/openapi-client/tests/it/server.rs"]
mod server;
mod tasks;
mod tls;
mod verify;
mod views;
