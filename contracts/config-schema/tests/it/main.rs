//! The configuration file from outside: examples, schema, refusals, precedence.

mod examples;
mod precedence;
mod refusals;
mod support;
mod workers;
