//! The one error of the supervisor: a line for the operator.

use std::fmt;

/// Why nsecd cannot go on: what was being done, to what, what the kernel said, what would make it work.
///
/// Never holds anything an agent sent: the supervisor reads none of it.
#[derive(Debug)]
pub struct Fault(String);

impl Fault {
    /// `what` is the whole line, without a full stop.
    pub fn new(what: impl Into<String>) -> Fault {
        Fault(what.into())
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// `result.or_fault(|| "binding /run/x".into())?` puts what was being done before what the kernel said.
pub trait OrFault<T> {
    /// Turns the error into a [`Fault`] that begins with `what`.
    fn or_fault(self, what: impl FnOnce() -> String) -> Result<T, Fault>;
}

impl<T, E: fmt::Display> OrFault<T> for Result<T, E> {
    fn or_fault(self, what: impl FnOnce() -> String) -> Result<T, Fault> {
        self.map_err(|e| Fault(format!("{}: {e}", what())))
    }
}
