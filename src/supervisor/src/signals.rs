//! Signals as events: blocked for the whole process and read from a descriptor, so no handler ever runs.

use std::cell::Cell;
use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use crate::fault::{Fault, OrFault};

/// SIGTERM, SIGINT and SIGHUP.
pub struct Signals {
    fd: SignalFd,
    /// SIGHUP has come.
    reload: Cell<bool>,
}

impl Signals {
    /// Blocks the three and opens the descriptor.
    pub fn block() -> Result<Signals, Fault> {
        let set = SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP]);
        set.thread_block().or_fault(|| "blocking signals".into())?;
        let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
        let fd = SignalFd::with_flags(&set, flags).or_fault(|| "opening a signalfd".into())?;
        Ok(Signals { fd, reload: Cell::new(false) })
    }

    /// Whether the operator has asked for the configuration to be read again, since the last call.
    pub fn reload_asked(&self) -> bool {
        self.reload.take()
    }

    /// Whether the operator has asked nsecd to stop since the last call.
    pub fn stop_asked(&self) -> bool {
        let mut stop = false;
        while let Ok(Some(signal)) = self.fd.read_signal() {
            match Signal::try_from(signal.ssi_signo as i32) {
                Ok(Signal::SIGHUP) => self.reload.set(true),
                Ok(signal) => {
                    log::info!("{signal}: stopping");
                    stop = true;
                }
                Err(_) => {}
            }
        }
        stop
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
