//! Who is killed when: brokers and gates every two seconds or so, now and then the whole daemon or a process with the key, which
//! ends the daemon; then it is started again, as a service manager does. Each round ends with a while without deaths.

use super::link::Watch;
use crate::support::{Nsecd, process, sys};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fmt;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

/// Between two deaths, on average.
const PAUSE: Duration = Duration::from_millis(2000);

#[derive(Clone, Copy, PartialEq)]
enum Victim {
    Broker,
    Gate,
    Stopped,
    Killed,
    KeyHolder,
    Ecdh,
}

use Victim::{Broker, Ecdh, Gate, KeyHolder, Killed, Stopped};
/// With their names in the report.
const VICTIMS: [(Victim, &str); 6] = [
    (Broker, "brokers"),
    (Gate, "gates"),
    (Stopped, "daemons stopped"),
    (Killed, "daemons killed"),
    (KeyHolder, "key-holders"),
    (Ecdh, "ECDH holders"),
];

pub struct Strikes {
    begun: Instant,
    /// A round: deaths for four fifths of it, then quiet.
    round: Duration,
    /// Of so many deaths the last one ends the daemon.
    every: usize,
    next: Instant,
    done: Vec<Victim>,
    /// The broker that was seen last.
    broker: i32,
}

impl Strikes {
    pub fn new(seconds: u64) -> Strikes {
        let round = Duration::from_secs(seconds.min(300));
        let every = if seconds < 300 { 3 } else { 40 };
        let now = Instant::now();
        Strikes { begun: now, round, every, next: now + PAUSE, done: Vec::new(), broker: 0 }
    }

    /// Whether deaths have paused.
    pub fn quiet(&self) -> bool {
        self.begun.elapsed().as_nanos() % self.round.as_nanos() > (self.round * 4 / 5).as_nanos()
    }

    /// Kills whoever's turn it is, waits for the replacement, and keeps the watch up to date.
    pub fn turn(&mut self, nsecd: Nsecd, watch: &Watch) -> Nsecd {
        let nsecd = if !self.quiet() && Instant::now() >= self.next {
            let victim = self.victim();
            self.done.push(victim);
            watch.turn();
            let nsecd = struck(nsecd, victim);
            nsecd.serves();
            watch.turn();
            // Not at regular moments: 0.6 to 1.4 of the pause.
            self.next = Instant::now() + PAUSE * (6 + (self.done.len() as u32 * 7) % 9) / 10;
            self.broker = 0;
            nsecd
        } else {
            nsecd
        };
        let broker = named(&nsecd, "nsecd-broker");
        if let Some(broker) = broker.filter(|pid| *pid != self.broker) {
            // Replaced by the supervisor itself, as when a record is put aside.
            if self.broker != 0 {
                (0..2).for_each(|_| watch.turn());
            }
            self.broker = broker;
        }
        nsecd
    }

    fn victim(&self) -> Victim {
        let n = self.done.len() + 1;
        match n / self.every {
            ends if n.is_multiple_of(self.every) => [Stopped, Killed, KeyHolder, Ecdh][(ends - 1) % 4],
            _ if n.is_multiple_of(2) => Broker,
            _ => Gate,
        }
    }

    /// Panics if somebody was spared.
    pub fn judge(&self) {
        for (victim, name) in VICTIMS.into_iter().take(3) {
            assert!(self.done.contains(&victim), "no {name}");
        }
    }
}

impl fmt::Display for Strikes {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = |victim| self.done.iter().filter(|done| **done == victim).count();
        let all: Vec<String> = VICTIMS.iter().map(|(victim, name)| format!("{} {name}", count(*victim))).collect();
        write!(out, "{}", all.join(", "))
    }
}

fn struck(nsecd: Nsecd, victim: Victim) -> Nsecd {
    match victim {
        Broker | Gate => {
            replaced(&nsecd, if victim == Broker { "nsecd-broker" } else { "nsecd-gate" });
            nsecd
        }
        Stopped => nsecd.restarted(Signal::SIGTERM),
        Killed => nsecd.restarted(Signal::SIGKILL),
        KeyHolder | Ecdh => {
            let role = if victim == KeyHolder { "nsecd-keyholder" } else { "nsecd-ecdh" };
            kill(Pid::from_raw(nsecd.role(role)), Signal::SIGKILL).unwrap();
            let (setup, status) = nsecd.ended();
            assert_eq!(status.code(), Some(1), "{role} has died, and nsecd has not failed");
            setup.start()
        }
    }
}

/// Kills broker or gate, and waits until both are gone.
fn replaced(nsecd: &Nsecd, role: &str) {
    let pair = ["nsecd-broker", "nsecd-gate"].map(|name| named(nsecd, name));
    let going: Vec<_> = pair.into_iter().flatten().filter_map(|pid| sys::pidfd(pid).ok()).collect();
    if let Some(pid) = named(nsecd, role) {
        // One that a rotation has just replaced is gone as well.
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
    for process in going {
        assert!(!sys::wait_any(&[process.as_fd()]).is_empty(), "not replaced: {role}");
    }
}

fn named(nsecd: &Nsecd, role: &str) -> Option<i32> {
    process::descendants(nsecd.pid()).into_iter().find(|pid| process::name(*pid) == role)
}
