//! Engines, prepared with the real programs: git, CMake, a compiler, podman.

mod binary;
mod container;
mod package;
mod plans;
mod removal;
mod source;
mod support;
