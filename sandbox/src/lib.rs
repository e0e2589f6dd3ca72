//! The confinement of every role: seccomp policies compiled at build time, the steps that lock a
//! process, and the frame with which a locked role reports itself.
//!
//! Part of the trusted base: the key-holder and the gate link this crate, so it uses libc and nothing else.

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
compile_error!("nsecd's sandbox policies are written for x86-64 Linux; other targets have none yet");

pub mod args;
pub mod filter;
pub mod hello;
pub mod lock;
