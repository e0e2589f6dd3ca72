//! A container with a Node client lives on while everything behind its socket is killed and started anew.
//!
//! Checked: with a broker that forgets its journal, and with a listening socket that the daemon binds anew (the control), the client
//! ends with an error.

use crate::support::client::refusal;
use crate::support::container::{AGENT, Agent, SHARED, SOCKET, no_containers};
use crate::support::{Nsecd, Podman, Setup, held, node};
use nix::sys::signal::Signal;
use std::fs;
use std::process::Command;

/// One socket for the agents' user; as often as one likes.
const CONFIG: &str = r#"
[key]
ceiling = "none"
ecdh_ceiling = "none"
[[socket]]
path = "/run/replaced.sock"
peer_uids = [1000]
kinds = [1, 7]
tokenless = [7]
methods = ["sign_event", "dm"]
limits = "none"
total = "none"
dm = "none"
"#;

/// Begins the client's life.
fn begin(agent: &mut Agent) {
    agent.begin("-", &format!("node /node/scripts/agent.js {SOCKET} {SHARED}/stop"));
}

/// Waits until it has done this much from its beginning to its end.
fn cycles(agent: &mut Agent, count: usize) {
    for _ in 0..=count {
        agent.progress();
    }
}

#[test]
fn a_node_client_in_a_container_goes_on_with_its_session_while_broker_gate_and_daemon_are_restarted() {
    if no_containers() {
        return;
    }
    let Some(modules) = node::modules() else { return };
    let setup = Setup::new(CONFIG);
    let socket = setup.socket.clone();
    let mut nsecd = setup.held(&[&socket], Some(AGENT)).start();
    let file = held::inode(&socket);
    let podman = Podman::new();
    let mut agent = podman.container_with("agent", &socket, &node::volumes(&modules));
    begin(&mut agent);
    let kill = |nsecd: Nsecd, role: &str| {
        nsecd.kill(role);
        nsecd
    };
    let (broker, gate) = ("nsecd-broker", "nsecd-gate");
    let strikes: [&dyn Fn(Nsecd) -> Nsecd; 6] = [
        &|nsecd| kill(nsecd, broker),
        &|nsecd| nsecd.restarted(Signal::SIGTERM),
        &|nsecd| kill(nsecd, gate),
        &|nsecd| nsecd.restarted(Signal::SIGKILL),
        &|nsecd| kill(nsecd, broker),
        &|nsecd| nsecd.restarted(Signal::SIGTERM),
    ];
    for strike in strikes {
        cycles(&mut agent, 1);
        // In the middle of the next one.
        nsecd = strike(nsecd);
    }
    cycles(&mut agent, 1);
    fs::write(podman.shared().join("stop"), "").unwrap();
    let (code, counts) = agent.answer();
    assert_eq!(code, 0, "{}", agent.complaints());
    assert!(counts["cycles"].as_u64().unwrap() > 2 * strikes.len() as u64, "{counts}");
    // Each of them took the connection that it keeps.
    assert_eq!(counts["lost"], strikes.len(), "{counts}");
    assert_eq!(held::inode(&socket), file, "the socket's file is another one");
    assert!(nsecd.alerts().contains("Event kind 7 not in session scope [1]"), "{}", nsecd.alerts());
    let mut audit = Command::new(env!("CARGO_BIN_EXE_nsecctl"));
    let output = audit.args(["audit", "verify", "--state-dir"]).arg(nsecd.dir.join("state")).output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

/// Why systemd, or whoever starts nsecd, has to hold the socket: otherwise the next nsecd makes another file.
#[test]
fn control_a_mounted_file_of_a_socket_that_nsecd_made_itself_is_dead_after_a_restart() {
    if no_containers() {
        return;
    }
    let Some(modules) = node::modules() else { return };
    let nsecd = Nsecd::start(&CONFIG.replace("peer_uids", &format!("owner = \"{AGENT}\"\npeer_uids")));
    let file = held::inode(&nsecd.socket);
    let podman = Podman::new();
    let mut agent = podman.container_with("agent", &nsecd.socket, &node::volumes(&modules));
    begin(&mut agent);
    cycles(&mut agent, 1);
    let nsecd = nsecd.restarted(Signal::SIGTERM);
    let (code, last) = agent.answer();
    assert_eq!((code, last["dead"].as_str()), (3, Some("ECONNREFUSED")), "{}", agent.complaints());
    assert_ne!(held::inode(&nsecd.socket), file, "the same file");
    // Outside it is found under its name, and is this user's alone.
    assert_eq!(refusal(&nsecd.connect().ask("get_public_key", serde_json::json!({}))), "uid 0 may not use this socket");
}
