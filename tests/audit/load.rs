//! Brokers, gates and daemons killed under load, files rotated meanwhile: every row has its intent, and the reverse.
//!
//! Checked: with a broker that asks before it writes, one that begins a chain of its own, and one whose new file does not name the
//! line before it, this fails; with a supervisor that does not count the rows of the record, too.

use super::{OPEN, audit, clean, files, of, strike};
use crate::support::Client;
use crate::support::daemon::Setup;
use nix::sys::signal::Signal;
use serde_json::json;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

const CLIENTS: usize = 4;
/// Daemons killed; before each of them two brokers and two gates.
const ROUNDS: usize = 6;
/// Signatures at least.
const MOST: usize = 5000;

/// Signs and encrypts until all is over, whoever dies; the same event several times over, so that rows are not told apart by id.
fn agent(socket: &Path, n: usize, over: &AtomicBool, signed: &AtomicUsize) {
    for i in 0_usize.. {
        if over.load(Ordering::Relaxed) {
            return;
        }
        let Ok(mut client) = Client::try_connect(socket) else { continue };
        let request = if i % 4 == 3 {
            crate::support::client::line("nip44_encrypt", json!({"plaintext": "x", "peer_pubkey": super::PEER}))
        } else {
            let content = format!("{n}: {}", i / 3);
            crate::support::client::line("sign_event", json!({"kind": 1 + 6 * (i % 40 / 39), "content": content}))
        };
        // Some do not wait for the reply.
        if client.try_send(&request).is_ok() && i % 7 > 0 {
            client.half_close();
            signed.fetch_add(usize::from(client.rest().contains("\"sig\"")), Ordering::Relaxed);
        }
    }
}

#[test]
fn after_kills_of_broker_gate_and_daemon_under_load_and_rotations_everything_is_accounted_for() {
    let setup = Setup::new(OPEN);
    let socket = setup.socket.clone();
    let (over, signed) = (AtomicBool::new(false), AtomicUsize::new(0));
    let mut nsecd = setup.start();
    let state = nsecd.dir.join("state");
    let nsecd = thread::scope(|scope| {
        let (socket, over, signed) = (&socket, &over, &signed);
        for n in 0..CLIENTS {
            scope.spawn(move || agent(socket, n, over, signed));
        }
        let end = End(over);
        let mut round = 0;
        while round < ROUNDS || signed.load(Ordering::Relaxed) < MOST {
            for role in ["nsecd-broker", "nsecd-gate"].repeat(2) {
                nsecd.serves();
                // Between two of them, so that there is one gate.
                strike(&nsecd, role);
                // Beside the running daemon, whatever it is doing.
                clean(&nsecd.dir.join("state"));
            }
            if round < ROUNDS {
                nsecd = nsecd.restarted(if round % 2 == 0 { Signal::SIGKILL } else { Signal::SIGTERM });
            }
            round += 1;
        }
        drop(end);
        nsecd
    });
    nsecd.serves();
    // The directory has moved with each restart's setup, if at all.
    let state = if state.exists() { state } else { nsecd.dir.join("state") };
    let before = clean(&state);
    let exit = {
        nsecd.signal(Signal::SIGTERM);
        nsecd.wait()
    };
    let state = exit.dir.join("state");
    let report = clean(&state);
    let gate = of(&report, "default");
    assert!(gate["matched"].as_u64().unwrap() >= MOST as u64, "{report:#}");
    assert_eq!(gate["rows"], gate["matched"], "{report:#}");
    assert!(gate["refused"].as_u64().unwrap() == 0 && of(&report, "default.ecdh")["matched"].as_u64().unwrap() > 0);
    let rotated = ["decisions.log", "default.record"].map(|name| files(&state, name).len());
    assert!(rotated.iter().all(|files| *files > 3), "control: {rotated:?}");
    assert!(before["log"]["lines"].as_u64().unwrap() > 10_000, "{before:#}");
    // An earlier head is still there, and what it stood before.
    let head = format!("{}:{}", before["log"]["head"]["n"], before["log"]["head"]["chain"].as_str().unwrap());
    let (code, text) = audit(&state, &["verify", "--head", &head]);
    assert_eq!(code, 0, "{text}");
}

/// Ends the clients when it goes, also where the test fails.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
