//! Who is told how far the preparing of an engine is.

use crate::StepKind;

/// Told how far it is. Calls come from several tasks: be quick.
pub trait EngineProgress: Send + Sync {
    /// A step begins.
    fn step(&self, kind: StepKind, detail: &str);
    /// So much of the step is done, from 0 to 1; never told for a step whose end nobody can foresee.
    fn share(&self, _share: f64) {}
    /// A line that a program of the step has written, without secrets.
    fn output(&self, _line: &str) {}
    /// Somebody else prepares the same, and this waits for it.
    fn waiting(&self) {}
}

/// Tells nobody.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl EngineProgress for Silent {
    fn step(&self, _: StepKind, _: &str) {}
}
