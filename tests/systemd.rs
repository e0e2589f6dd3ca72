//! The package in a real systemd: a fresh Debian, booted by systemd-nspawn (root, debootstrap, systemd-container, debhelper).
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

#[path = "systemd/install.rs"]
mod install;
#[path = "systemd/service.rs"]
mod service;
#[path = "systemd/upgrade.rs"]
mod upgrade;
#[path = "systemd/user.rs"]
mod user;
