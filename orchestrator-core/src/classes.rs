//! One value per queue class.

use api_types::Priority;
use serde::{Deserialize, Serialize};

/// One value per queue class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PerClass<T> {
    /// Of the interactive class.
    pub interactive: T,
    /// Of the batch class.
    pub batch: T,
}

impl<T> PerClass<T> {
    /// The value of a class.
    pub const fn of(&self, priority: Priority) -> &T {
        match priority {
            Priority::Interactive => &self.interactive,
            Priority::Batch => &self.batch,
        }
    }

    /// The value of a class, to change it.
    pub const fn of_mut(&mut self, priority: Priority) -> &mut T {
        match priority {
            Priority::Interactive => &mut self.interactive,
            Priority::Batch => &mut self.batch,
        }
    }
}
