//! B10, B28 in the form that they are promised for: agents in real OCI containers (podman, runc) of one uid, on one
//! socket that is mounted into each.
//!
//! Checked: with every peer's cgroup taken to be 0 (`Principal::of`), the five about containers fail; with the peer's pid in
//! its place, the control about processes outside them does; with the first signer left unbound, three; without the alert
//! of a foreign token, the two about tokens; without the socket's total, the one about windows; with the listening
//! socket bound anew for each broker, the one about the mount; without podman's --rm, what is left is found.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

#[path = "containers/restarts.rs"]
mod restarts;

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use support::client::{code, refusal};
use support::container::{AGENT, SHARED, SOCKET, no_containers};
use support::{Client, Nsecd, PUBLIC_KEY, Podman, event, sys};

/// nsecd with a socket for the agents' user alone: who is served has that uid outside its container too.
fn start(lines: &str) -> Nsecd {
    let owned = format!("path = \"/run/x.sock\"\nmode = \"0600\"\nowner = \"{AGENT}\"\npeer_uids = [{AGENT}]");
    Nsecd::start(&format!("[[socket]]\n{owned}\nkinds = [1]\ntokenless = [1]\n{lines}\n"))
}

/// What the alert log says since `before`.
fn since(before: &str, nsecd: &Nsecd) -> String {
    nsecd.alerts().strip_prefix(before).unwrap().into()
}

/// The reply is the refusal of a token, and the alert log says whose session it was.
fn refused_as_anothers(reply: &serde_json::Value, alerts: &str) {
    assert_eq!((refusal(reply), code(reply)), ("Invalid session token", "no_session"));
    assert!(alerts.contains("sign_event") && alerts.contains("the session is another principal's"), "alerts: {alerts}");
}

#[test]
fn a_token_used_in_one_container_is_refused_in_another_with_an_alert() {
    if no_containers() {
        return;
    }
    let (nsecd, podman) = (start("bind = \"first_use\""), Podman::new());
    let [mut a, mut b] = ["a", "b"].map(|name| podman.container(name, &nsecd.socket));
    let token = a.session();
    event::signed(&a.sign(Some(&token)), PUBLIC_KEY);
    let before = nsecd.alerts();
    refused_as_anothers(&b.sign(Some(&token)), &since(&before, &nsecd));
    event::signed(&a.sign(Some(&token)), PUBLIC_KEY);
}

#[test]
fn an_unused_token_is_of_the_container_that_signs_with_it_first() {
    if no_containers() {
        return;
    }
    let (nsecd, podman) = (start("bind = \"first_use\""), Podman::new());
    let [mut a, mut b] = ["a", "b"].map(|name| podman.container(name, &nsecd.socket));
    let token = a.session();
    event::signed(&b.sign(Some(&token)), PUBLIC_KEY);
    let before = nsecd.alerts();
    refused_as_anothers(&a.sign(Some(&token)), &since(&before, &nsecd));
    event::signed(&b.sign(Some(&token)), PUBLIC_KEY);
}

#[test]
fn each_container_has_its_own_windows_and_all_of_them_the_sockets_total() {
    if no_containers() {
        return;
    }
    let nsecd = start("limits = { burst = 3, burst_window = \"1h\" }\ntotal = { burst = 7, burst_window = \"1h\" }");
    let podman = Podman::new();
    let [mut a, mut b] = ["a", "b"].map(|name| podman.container(name, &nsecd.socket));
    assert_eq!([&mut a, &mut b].map(|agent| agent.signatures(5)), [3, 3]);
    // A container made anew is a principal of its own, also under the name of one that is gone, but of the same total.
    drop(a);
    for signed in [1, 0] {
        let mut again = podman.container("a", &nsecd.socket);
        assert_eq!(again.signatures(5), signed);
        let token = again.session();
        assert_eq!(code(&again.sign(Some(&token))), "rate_limited");
    }
    assert_eq!(code(&b.sign(None)), "rate_limited");
}

/// SECURITY.md says so: who passes a connection lends its identity.
#[test]
fn a_connection_passed_out_of_a_container_stays_that_containers() {
    if no_containers() {
        return;
    }
    let nsecd = start("bind = \"starter\"\nlimits = { burst = 2, burst_window = \"1h\" }\ntotal = \"none\"");
    let podman = Podman::new();
    podman.compile("tests/containers/lend.c", "lend");
    let path = podman.shared().join("borrower");
    let listener = UnixListener::bind(&path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
    let [mut a, mut b] = ["a", "b"].map(|name| podman.container(name, &nsecd.socket));
    let mut outside = podman.process(&nsecd.socket);
    let tokens = [a.session(), b.session(), outside.session()];

    a.begin("-", &format!("lend {SOCKET} {SHARED}/borrower"));
    assert_eq!(sys::wait_any(&[listener.as_fd()]), [0], "nothing is lent");
    let (lender, _) = listener.accept().unwrap();
    let mut lent = Client::over(sys::passed(&lender)).unwrap();
    // We are neither of that uid nor of any container.
    let served = tokens.each_ref().map(|token| lent.sign(1, Some(token)).get("event").is_some());
    assert_eq!(served, [true, false, false], "a's token alone");
    // The identity outlives the process that connected, and so do its windows.
    drop(lender);
    assert_eq!(a.answer().0, 0);
    event::signed(&lent.sign(1, None), PUBLIC_KEY);
    assert_eq!(code(&lent.sign(1, None)), "rate_limited");
    assert_eq!([&mut a, &mut b, &mut outside].map(|agent| agent.signatures(3)), [0, 2, 2], "a's window is full");
}

#[test]
fn the_socket_mounted_as_a_file_outlives_the_broker() {
    if no_containers() {
        return;
    }
    let (nsecd, podman) = (start(""), Podman::new());
    let [mut a, mut b] = ["a", "b"].map(|name| podman.container(name, &nsecd.socket));
    for _ in 0..2 {
        for agent in [&mut a, &mut b] {
            event::signed(&agent.sign(None), PUBLIC_KEY);
        }
        nsecd.kill("nsecd-broker");
    }
    event::signed(&a.sign(None), PUBLIC_KEY);
    // The new broker tells them apart as the first did.
    let token = b.session();
    event::signed(&b.sign(Some(&token)), PUBLIC_KEY);
    assert_eq!(refusal(&a.sign(Some(&token))), "Invalid session token");
}

/// What separates the agents above is their containers: the same two without them are one.
#[test]
fn control_two_processes_outside_containers_are_one_principal() {
    if no_containers() {
        return;
    }
    let nsecd = start("bind = \"starter\"\nlimits = { burst = 3, burst_window = \"1h\" }\ntotal = \"none\"");
    let podman = Podman::new();
    let [mut a, mut b] = [(); 2].map(|()| podman.process(&nsecd.socket));
    let token = a.session();
    event::signed(&b.sign(Some(&token)), PUBLIC_KEY);
    assert_eq!([&mut a, &mut b].map(|agent| agent.signatures(3)), [2, 0]);
}

/// What the other tests leave to the end of their agents.
#[test]
fn control_nothing_is_left_of_a_container_even_after_a_panic() {
    if no_containers() {
        return;
    }
    let (nsecd, podman) = (start(""), Podman::new());
    let panics = || {
        let _agent = podman.container("a", &nsecd.socket);
        let traces = podman.traces();
        assert!(traces.iter().all(|(_, count)| *count > 0), "{traces:?}");
        std::panic::resume_unwind(Box::new("as a failed assertion does"));
    };
    let payload = std::panic::catch_unwind(std::panic::AssertUnwindSafe(panics)).unwrap_err();
    assert_eq!(payload.downcast_ref(), Some(&"as a failed assertion does"));
    let traces = podman.traces();
    assert!(traces.iter().all(|(_, count)| *count == 0), "{traces:?}");
}
