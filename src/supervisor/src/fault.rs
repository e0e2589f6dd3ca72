//! The one error of the supervisor: a line for the operator.

use std::fmt;

/// Why nsecd cannot go on: what was being done, to what, what the kernel said, what would make it work.
///
/// Never holds anything an agent sent: the supervisor reads none of it.
#[derive(Debug)]
pub struct Fault {
    text: String,
    no_key: bool,
}

impl Fault {
    /// `what` is the whole line, without a full stop.
    pub fn new(what: impl Into<String>) -> Fault {
        Fault { text: what.into(), no_key: false }
    }

    /// The same, of a start that lacks a key: trying again does not bring it.
    pub fn for_want_of_a_key(self) -> Fault {
        Fault { no_key: true, ..self }
    }

    /// Whether a key is missing, or is none.
    pub fn is_for_want_of_a_key(&self) -> bool {
        self.no_key
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// `result.or_fault(|| "binding /run/x".into())?` puts what was being done before what the kernel said.
pub trait OrFault<T> {
    /// Turns the error into a [`Fault`] that begins with `what`.
    fn or_fault(self, what: impl FnOnce() -> String) -> Result<T, Fault>;
}

impl<T, E: fmt::Display> OrFault<T> for Result<T, E> {
    fn or_fault(self, what: impl FnOnce() -> String) -> Result<T, Fault> {
        self.map_err(|e| Fault::new(format!("{}: {e}", what())))
    }
}
