//! The package in a real systemd: a fresh Debian, booted by systemd-nspawn (root, debootstrap, systemd-container, debhelper).
//!
//! Checked, a test turns red: without RestartPreventExitStatus= (the one without a key), without StartLimitIntervalSec=0 (the deaths: systemd
//! gives up after the fifth), with a socket that an upgrade restarts (the upgrade: another inode).
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

#[path = "systemd/adopt.rs"]
mod adopt;
#[path = "systemd/install.rs"]
mod install;
#[path = "systemd/service.rs"]
mod service;
#[path = "systemd/standin.rs"]
mod standin;
#[path = "systemd/upgrade.rs"]
mod upgrade;
#[path = "systemd/user.rs"]
mod user;
