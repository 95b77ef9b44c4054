//! Containers, with clients that say what a test wants, and with real ones.

mod detection;
mod docker;
mod images;
mod lives;
mod preflight;
mod real;
mod resident;
mod running;
mod scripted;
