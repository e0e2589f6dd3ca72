//! The supervisor: reads the configuration, opens what the other processes need, starts them, replaces them.
//!
//! It never reads a key (a throw-away one it may have to make: `keysource`) and never a byte that an agent sent. One thread; unsafe code in `sys` alone.
//!
//! [`main`] → `start` (the order of the start) → `life` (the loop). Below them: `setup` (what is opened once),
//! `holders` and `service` (the roles), `spawn` and `ready` (one process), `listeners`, `securefs` (files).

#![deny(unsafe_code)]
// A test that cannot go on may say so by panicking.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod activation;
mod alertlog;
mod banner;
mod cli;
pub mod config;
mod control;
mod decisionlog;
pub mod environment;
mod fault;
mod freeze;
mod handover;
mod harden;
mod holders;
mod images;
mod journal;
mod keyring;
mod keysource;
mod life;
mod listeners;
mod lockfile;
mod logging;
mod names;
mod notify;
mod numbers;
mod orders;
mod output;
mod page;
mod ready;
mod record;
mod reload;
mod rotation;
mod securefs;
mod service;
mod services;
mod setup;
mod signals;
mod spawn;
mod start;
mod sys;
#[cfg(test)]
mod tests;
mod uids;

pub use start::main;
