//! What must hold for any bytes: one target for each parser that reads what nsecd has not written, or has written and
//! somebody may have altered.
//!
//! Each target takes any bytes, gives them to the code that is shipped, and panics if a property does not hold. `reader`
//! and `nip01` say independently what JSON and an event are. `subject` is where the shipped code is called; with the
//! feature `planted` it lies once for each target, so that a run can show that lies are found.

// A target that panics has found something, which is what it is for.
#![allow(clippy::unwrap_used, reason = "a target fails by panicking")]

pub mod nip01;
pub mod reader;
mod scratch;
mod subject;
mod targets;
mod tree;

use targets::{canonical, config, event, frame, gate, giftwrap, journal, nip44, record, request};

/// One target.
#[derive(Clone, Copy)]
pub struct Target {
    /// Its name, and that of its corpus' directory.
    pub name: &'static str,
    /// Panics if something does not hold for these bytes.
    pub run: fn(&[u8]),
}

/// All of them.
pub const TARGETS: [Target; 10] = [
    Target { name: "frame", run: frame::run },
    Target { name: "request", run: request::run },
    Target { name: "event", run: event::run },
    Target { name: "canonical", run: canonical::run },
    Target { name: "gate", run: gate::run },
    Target { name: "journal", run: journal::run },
    Target { name: "record", run: record::run },
    Target { name: "config", run: config::run },
    Target { name: "giftwrap", run: giftwrap::run },
    Target { name: "nip44", run: nip44::run },
];

/// The target of this name.
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}
