//! The file as its one user sees it.

mod closing;
mod crash;
mod damage;
mod full_disk;
mod history;
mod journal;
mod model;
mod refusal;
mod support;
