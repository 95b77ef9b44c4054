//! The HTTP surface: thin handlers that translate between requests and the application.

mod artifacts;
mod body;
mod catalog;
mod elsewhere;
mod engines;
mod events;
mod gate;
mod meta;
mod operate;
mod pools;
mod respond;
mod router;
mod server;
mod sessions;
mod stream;
mod tasks;
mod workers;

pub use gate::Gate;
pub use router::{ROUTES, router};
pub use server::{Server, Tls, bind, run};
