//! Where a setting came from, and the error that says so. An error's text never repeats a private key.

use std::fmt;
use std::sync::Arc;

/// Where a setting was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nowhere: a default of nsecd's own, or the command as a whole.
    Default,
    /// A command line flag, by its name.
    Flag(&'static str),
    /// An environment variable, by its name.
    Variable(&'static str),
    /// A config file, as the operator named it, and the line, from 1.
    File(Arc<str>, usize),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("nsecd's default"),
            Origin::Flag(name) | Origin::Variable(name) => f.write_str(name),
            Origin::File(file, line) => write!(f, "{file}:{line}"),
        }
    }
}

/// A value and where it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct At<T> {
    /// The value, checked on its own (not against other settings).
    pub value: T,
    /// Where it was written.
    pub origin: Origin,
}

impl<T> At<T> {
    /// `value`, written at `origin`.
    pub fn new(value: T, origin: Origin) -> At<T> {
        At { value, origin }
    }
}

/// Why nothing starts: what is wrong, where it was written, and what was expected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    origin: Origin,
    text: String,
}

impl Error {
    /// An error about what was written at `origin`.
    pub fn at(origin: &Origin, text: impl Into<String>) -> Error {
        Error { origin: origin.clone(), text: text.into() }
    }

    /// An error that has no single place.
    pub fn new(text: impl Into<String>) -> Error {
        Error { origin: Origin::Default, text: text.into() }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.origin {
            Origin::Default => f.write_str(&self.text),
            origin => write!(f, "{origin}: {}", self.text),
        }
    }
}

impl std::error::Error for Error {}
