//! B2: signals without end, as no handler runs anywhere that they could interrupt (CVE-2024-6387): each role has them blocked or
//! ignored, and the supervisor reads its own from a descriptor.
//!
//! Checked: with no signal blocked before the exec, or with SIGHUP not among those that the supervisor reads, this fails.

use crate::support::daemon::{DM, ROLES};
use crate::support::{Finally, Nsecd, PUBLIC_KEY, event, not_root};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

/// Blocked in a role, ignored by it, and of no effect unless there is a handler.
const TO_ROLES: [Signal; 12] = [
    Signal::SIGTERM,
    Signal::SIGINT,
    Signal::SIGHUP,
    Signal::SIGQUIT,
    Signal::SIGTSTP,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGPIPE,
    Signal::SIGCHLD,
    Signal::SIGURG,
    Signal::SIGWINCH,
    Signal::SIGCONT,
];
/// SIGHUP has the configuration read again.
const TO_THE_SUPERVISOR: [Signal; 6] =
    [Signal::SIGHUP, Signal::SIGPIPE, Signal::SIGCHLD, Signal::SIGURG, Signal::SIGWINCH, Signal::SIGCONT];
/// Rounds of all of them that are awaited, and signatures in each.
const ROUNDS: usize = 20;
const EACH: usize = 10;

#[test]
fn a_storm_of_signals_ends_no_role_and_loses_no_request() {
    if not_root("signalling processes of other uids") {
        return;
    }
    let nsecd = Nsecd::start(DM);
    let pids = ROLES.map(|role| nsecd.role(role));
    let supervisor = nsecd.pid();
    let (over, rounds) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Relaxed) {
                for signal in TO_ROLES {
                    // One that has ended shows below.
                    pids.iter().for_each(|pid| _ = kill(Pid::from_raw(*pid), signal));
                }
                for signal in TO_THE_SUPERVISOR {
                    _ = kill(Pid::from_raw(supervisor), signal);
                }
                rounds.fetch_add(1, Relaxed);
            }
        });
        let _over = Finally(|| over.store(true, Relaxed));
        let mut client = nsecd.connect();
        let mut signed = 0;
        while signed < ROUNDS * EACH || rounds.load(Relaxed) < ROUNDS {
            let content = format!("{signed}");
            let reply = client.ask("sign_event", json!({"kind": 1, "content": content}));
            event::signed(&reply, PUBLIC_KEY);
            assert_eq!(reply["event"]["content"], content);
            signed += 1;
        }
    });
    nsecd.serves();
    assert_eq!(ROLES.map(|role| nsecd.role(role)), pids, "a role was replaced");
    // Control: what came to the supervisor was read.
    assert!(nsecd.stderr().contains("the configuration was reloaded, asked by SIGHUP"), "{}", nsecd.stderr());
}
