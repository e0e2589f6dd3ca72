//! What each running role is left with, read from the kernel: rows B1, B2, B5, B7 to B9 and B21.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

#[path = "confinement/code.rs"]
mod code;
#[path = "confinement/descriptors.rs"]
mod descriptors;
#[path = "confinement/identity.rs"]
mod identity;
#[path = "confinement/order.rs"]
mod order;
#[path = "confinement/rules.rs"]
mod rules;
#[path = "confinement/signals.rs"]
mod signals;
