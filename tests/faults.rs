//! A start of which one system call fails, or which has too few descriptors: row B6.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

#[path = "faults/calls.rs"]
mod calls;
#[path = "faults/descriptors.rs"]
mod descriptors;
