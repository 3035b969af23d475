//! What was tried to hook into the kernel, what was taken, and what is missing by it.
//!
//! Refuses: deciding; the hooks' owners try and report here.

use std::fmt::Display;

/// One purpose for which the kernel is hooked.
#[derive(Clone, Debug)]
pub struct Hook {
    /// What it is for.
    pub purpose: &'static str,
    /// What was tried, in order.
    pub attempts: Vec<Attempt>,
    /// What is missing while no attempt works.
    pub missing_without: &'static str,
}

/// One way to hook, tried.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// The way, in the kernel's terms.
    pub way: String,
    /// Why it did not work; `None` if it did.
    pub error: Option<String>,
}

impl Hook {
    /// A hook that has not been tried yet.
    pub fn new(purpose: &'static str, missing_without: &'static str) -> Self {
        Self { purpose, attempts: Vec::new(), missing_without }
    }

    /// Tries one way unless an earlier one worked; the value of the first that works is returned.
    pub fn attempt<T, E: Display>(
        &mut self,
        way: impl Into<String>,
        action: impl FnOnce() -> Result<T, E>,
    ) -> Option<T> {
        if self.taken().is_some() {
            return None;
        }
        let result = action();
        let error = result.as_ref().err().map(|error| format!("{error:#}"));
        self.attempts.push(Attempt { way: way.into(), error });
        result.ok()
    }

    /// The way that worked.
    pub fn taken(&self) -> Option<&str> {
        self.attempts.iter().find(|attempt| attempt.error.is_none()).map(|attempt| attempt.way.as_str())
    }

    /// Whether the first choice did not work but another one did.
    pub fn is_fallback(&self) -> bool {
        self.taken().is_some() && self.attempts.len() > 1
    }
}
