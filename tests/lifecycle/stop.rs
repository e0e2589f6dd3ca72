//! SIGTERM finishes what is in flight and leaves the file system as it was but for state and logs.

use crate::support::daemon::{OPEN, Setup, walk};
use crate::support::{Nsecd, PUBLIC_KEY, client, event, process};
use nix::sys::signal::Signal;
use serde_json::json;
use std::fs;
use std::os::unix::net::{UnixListener, UnixStream};

#[test]
fn sigterm_answers_what_has_begun_and_cuts_no_reply() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let nsecd = Nsecd::start(OPEN);
        let mut client = nsecd.connect();
        let request = client::line("sign_event", json!({"kind": 1, "content": "z".repeat(2_000)}));
        client.send(request.repeat(20));
        let mut replies = vec![client.line().unwrap()];
        nsecd.signal(signal);
        let rest = client.rest();
        assert!(rest.is_empty() || rest.ends_with('\n'), "a reply was cut: …{}", &rest[rest.len() - 100..]);
        replies.extend(rest.lines().map(String::from));
        for reply in &replies {
            event::signed(&serde_json::from_str(reply).unwrap(), PUBLIC_KEY);
        }
        let exit = nsecd.wait();
        assert_eq!(exit.code, Some(0), "{}", exit.stderr);
    }
}

#[test]
fn a_request_that_was_read_before_sigterm_is_signed_after_it() {
    let nsecd = Nsecd::start(
        "[[socket]]\npath = \"/run/x.sock\"\nkinds = [1]\ntokenless = [1]\ntokenless_on_limit = \"wait 20s\"\n\
         limits = { burst = 1, burst_window = \"1s\" }\ntotal = \"none\"\n",
    );
    event::signed(&nsecd.connect().sign(1, None), PUBLIC_KEY);
    let mut waiting = nsecd.connect();
    waiting.send(client::line("sign_event", json!({"kind": 1, "content": "in the queue"})));
    // Served by the same loop after the request above was read.
    nsecd.serves();
    nsecd.signal(Signal::SIGTERM);
    let reply = waiting.reply();
    assert!(reply.get("event").is_some() || reply["code"].is_string(), "{reply}");
    assert_eq!(waiting.line(), None);
    assert_eq!(nsecd.wait().code, Some(0));
}

#[test]
fn an_orderly_stop_removes_its_own_socket_and_leaves_only_state_and_logs() {
    let setup = Setup::new(OPEN);
    let neighbour = UnixListener::bind(setup.dir.join("other.sock")).unwrap();
    let nsecd = setup.start();
    nsecd.serves();
    let pids: Vec<i32> = nsecd.processes().into_iter().map(|(_, pid)| pid).collect();
    nsecd.signal(Signal::SIGTERM);
    let exit = nsecd.wait();
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);
    let mut left = Vec::new();
    walk(exit.dir.path(), &mut |p| left.push(p.strip_prefix(exit.dir.path()).unwrap().display().to_string()));
    left.retain(|p| !p.starts_with("state/"));
    left.sort();
    assert_eq!(left, ["credentials/nsec", "notify", "nsecd.toml", "other.sock", "stderr"]);
    let _client = UnixStream::connect(exit.dir.join("other.sock")).unwrap();
    neighbour.accept().unwrap();
    for pid in pids {
        assert!(!process::name(pid).starts_with("nsecd"), "{pid} is still there");
    }
}

#[test]
fn a_socket_that_somebody_else_put_in_our_place_is_not_removed() {
    let nsecd = Nsecd::start(OPEN);
    fs::remove_file(&nsecd.socket).unwrap();
    let _foreign = UnixListener::bind(&nsecd.socket).unwrap();
    let socket = nsecd.socket.clone();
    nsecd.signal(Signal::SIGTERM);
    let exit = nsecd.wait();
    assert_eq!(exit.code, Some(0));
    assert!(socket.exists(), "{}", exit.stderr);
}

#[test]
fn an_nsecd_that_was_killed_leaves_a_socket_that_the_next_one_replaces() {
    let first = Nsecd::start(OPEN);
    first.serves();
    let socket = first.socket.clone();
    first.signal(Signal::SIGKILL);
    let exit = first.wait();
    assert!(socket.exists(), "control: a killed nsecd cleans up nothing");
    Setup::at(socket.to_str().unwrap(), OPEN).start().serves();
    drop(exit);
}
