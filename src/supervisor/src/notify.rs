//! The service manager's protocol: sd_notify(3) and its watchdog. Without NOTIFY_SOCKET every call does nothing.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

use crate::environment::Environment;
use crate::fault::{Fault, OrFault};

/// A connection to the service manager.
pub struct Notify {
    socket: Option<UnixDatagram>,
    /// Half of WATCHDOG_USEC.
    every: Option<Duration>,
    next: Instant,
}

impl Notify {
    /// Connects to NOTIFY_SOCKET, if it is set.
    ///
    /// # Errors
    /// It is set and nothing listens there: the service manager would wait in vain.
    pub fn open(environment: &Environment) -> Result<Notify, Fault> {
        let socket = match &environment.notify_socket {
            Some(name) => Some(connect(name).or_fault(|| format!("connecting to NOTIFY_SOCKET {}", name.display()))?),
            None => None,
        };
        let me = std::process::id();
        let meant = environment.watchdog_pid.is_none_or(|pid| pid == me);
        let every = environment.watchdog_usec.filter(|&us| meant && us > 0 && socket.is_some());
        Ok(Notify { socket, every: every.map(|us| Duration::from_micros(us / 2)), next: Instant::now() })
    }

    /// Whether a service manager listens.
    pub fn is_connected(&self) -> bool {
        self.socket.is_some()
    }

    /// Sends assignments, one a line, e.g. `READY=1`. A manager that does not read is not waited for.
    pub fn tell(&self, assignments: &str) {
        if let Some(socket) = &self.socket {
            let _ = socket.send(assignments.as_bytes());
        }
    }

    /// Says that the configuration is being read again: `READY=1` ends that (sd_notify(3), Type=notify-reload).
    pub fn reloading(&self) {
        let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).map_or(Duration::ZERO, Duration::from);
        self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={}", now.as_micros()));
    }

    /// Feeds the watchdog if it is due.
    pub fn feed(&mut self) {
        if let Some(every) = self.every
            && Instant::now() >= self.next
        {
            self.tell("WATCHDOG=1");
            self.next = Instant::now() + every;
        }
    }

    /// When [`Notify::feed`] has something to do next.
    pub fn due(&self) -> Option<Instant> {
        self.every.map(|_| self.next)
    }
}

fn connect(name: &OsStr) -> io::Result<UnixDatagram> {
    let address = match name.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(name)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    socket.connect_addr(&address)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manager_hears_of_readiness_and_the_watchdog_and_never_blocks_us() {
        let name = format!("nsecd-test-notify-{}", std::process::id());
        let manager = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        let environment = Environment {
            notify_socket: Some(format!("@{name}").into()),
            watchdog_usec: Some(1),
            ..Default::default()
        };
        let mut notify = Notify::open(&environment).unwrap();
        notify.tell("READY=1");
        notify.feed();
        let mut got = [0; 64];
        let mut next = || manager.recv(&mut got).map(|n| String::from_utf8_lossy(&got[..n]).into_owned()).unwrap();
        assert_eq!((next(), next()), ("READY=1".into(), "WATCHDOG=1".into()));
        for _ in 0..10_000 {
            notify.tell("STATUS=nobody reads this");
        }
    }

    #[test]
    fn a_watchdog_of_another_process_is_not_fed() {
        let environment = Environment { watchdog_usec: Some(2), watchdog_pid: Some(1), ..Default::default() };
        assert!(Notify::open(&environment).unwrap().due().is_none());
    }
}
