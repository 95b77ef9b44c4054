//! Adapter for llama.cpp's HTTP server.
//!
//! Prompts go to the engine's own `/completion`, chats to `/v1/chat/completions`, always as streams: only a streaming request
//! notices that its client has gone. It knows this one wire format and nothing else: no queues, no placement, no model
//! files. Source of the protocol: llama.cpp `tools/server/README.md`, and the recorded answers in `tests/transcripts`.

mod adapter;
mod chat;
mod completion;
mod config;
mod describe;
mod request;
mod slot_file;
mod vectors;
mod wire;

pub use adapter::LlamaCpp;
pub use chat::ChatDecoder;
pub use completion::CompletionDecoder;
pub use config::{LlamaCppConfig, SetupError, Timeouts};
