//! The adapter against answers recorded from a real llama.cpp server.

mod control;
mod live;
mod refusals;
mod replay;
mod requests;
mod slots;
mod streams;
