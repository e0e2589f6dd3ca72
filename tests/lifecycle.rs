//! How nsecd starts, refuses to start, replaces its roles and stops; where its keys come from.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

#[path = "lifecycle/doctor.rs"]
mod doctor;
#[path = "lifecycle/encryption.rs"]
mod encryption;
#[path = "lifecycle/keys.rs"]
mod keys;
#[path = "lifecycle/records.rs"]
mod records;
#[path = "lifecycle/replacement.rs"]
mod replacement;
#[path = "lifecycle/startup.rs"]
mod startup;
#[path = "lifecycle/stop.rs"]
mod stop;
