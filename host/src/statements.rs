//! What statements cost inside SQLite, by their text: for tests of what must not grow with the data.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use rusqlite::StatementStatus;

/// The dearest run of a statement. What its triggers do is part of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    pub runs: u64,
    /// Steps of SQLite's virtual machine.
    pub steps: u64,
    /// Rows passed in scans of whole tables.
    pub scanned: u64,
}

/// The statements that the components of an application have run. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Statements(Arc<Mutex<BTreeMap<String, Cost>>>);

impl Statements {
    /// All of them so far.
    #[must_use]
    pub fn seen(&self) -> BTreeMap<String, Cost> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes the figures of a run that has just ended.
    pub(crate) fn note(&self, text: &str, prepared: &rusqlite::Statement<'_>) {
        let figure = |status| u64::try_from(prepared.reset_status(status)).unwrap_or_default();
        let (steps, scanned) = (figure(StatementStatus::VmStep), figure(StatementStatus::FullscanStep));
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let cost = all.entry(text.to_owned()).or_default();
        *cost = Cost { runs: cost.runs + 1, steps: cost.steps.max(steps), scanned: cost.scanned.max(scanned) };
    }
}
