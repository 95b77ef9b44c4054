//! What the log is shared with. A model test compiles the rest of this crate against other primitives of the same names.

pub(crate) use std::sync::{Mutex, MutexGuard};
