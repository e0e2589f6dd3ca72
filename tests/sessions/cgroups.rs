//! B10, B28: containers of one uid on one shared socket are principals of their own, by the cgroup that the kernel
//! names, and together they gain nothing.
//!
//! Checked: with every peer's cgroup taken to be 0 (`Principal::of`), six of these fail; with a peer that the kernel cannot
//! name served all the same, the one about ended peers does; with the pidfd left open, the last one; without the
//! filter's two rules, all; with the cgroup of the process that connected last taken for that of whoever has its number, the one about
//! numbers; with that of a process that connects again not asked anew, the one about another cgroup.

use crate::support::cgroup::no_cgroups;
use crate::support::client::{code, refused};
use crate::support::daemon::Setup;
use crate::support::{Cgroup, Client, Nsecd, PUBLIC_KEY, event, process, sys};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};

/// What the supervisor and the broker say where cgroups are not told.
const SAID: [&str; 2] = ["cgroup identity", "does not tell a peer's cgroup"];

/// One signature for each principal.
const ONE: &str = "limits = { burst = 1, burst_window = \"1h\" }\ntotal = \"none\"";

fn config(lines: &str) -> String {
    format!("[[socket]]\npath = \"/run/x.sock\"\nkinds = [1]\ntokenless = [1]\n{lines}\n")
}

fn start(lines: &str) -> Nsecd {
    Nsecd::start(&config(lines))
}

/// nsecctl run in a cgroup; `input` is its standard input. Its exit code and reply.
fn ctl(nsecd: &Nsecd, cgroup: &Cgroup, arguments: &[&str], input: &str) -> (i32, Value) {
    let mut command = cgroup.command(env!("CARGO_BIN_EXE_nsecctl").as_ref());
    command.arg("--socket").arg(&nsecd.socket).args(arguments).env_clear();
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    // It may not read its input at all.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap();
    (output.status.code().unwrap(), serde_json::from_slice(&output.stdout).unwrap_or(Value::Null))
}

fn session(nsecd: &Nsecd, cgroup: &Cgroup) -> String {
    let (code, reply) = ctl(nsecd, cgroup, &["session", "start", "--scope", "1"], "");
    assert_eq!(code, 0, "{reply}");
    reply["session"]["token"].as_str().unwrap().into()
}

fn sign(nsecd: &Nsecd, cgroup: &Cgroup, token: &str) -> Value {
    ctl(nsecd, cgroup, &["sign", "--kind", "1", "--token-file", "-"], token).1
}

/// Signs without a token until refused, at most `most` times; how often it was signed.
fn signatures(nsecd: &Nsecd, cgroup: &Cgroup, most: usize) -> usize {
    (0..most).take_while(|_| ctl(nsecd, cgroup, &["sign", "--kind", "1"], "").0 == 0).count()
}

/// A process that has entered the cgroup and connected, and lives on; and its connection, passed to us.
fn connected_in(cgroup: &Cgroup, nsecd: &Nsecd) -> (Child, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut command = Command::new("cat");
    command.stdin(Stdio::piped());
    sys::connect_and_pass(&mut command, Some(cgroup.procs()), nsecd.socket.clone(), theirs, 1);
    let child = command.spawn().unwrap();
    (child, sys::passed(&ours))
}

/// Ends such a process, and buries it.
fn end(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_token_used_first_in_one_cgroup_is_refused_in_another_with_an_alert() {
    if no_cgroups() {
        return;
    }
    let nsecd = start("bind = \"first_use\"");
    let (a, b) = (Cgroup::new(), Cgroup::new());
    // As an orchestrator does, in a cgroup of its own, for a container.
    let token = nsecd.connect().session(json!({"scope": "1"}));
    event::signed(&sign(&nsecd, &a, &token), PUBLIC_KEY);
    let before = nsecd.alerts();
    let copied = sign(&nsecd, &b, &token);
    assert_eq!(code(&copied), "no_session");
    let alert = nsecd.alerts().replace(&before, "");
    assert!(alert.contains("sign_event") && alert.contains("another principal's"), "no alert: {alert}");
    refused(&nsecd.connect().sign(1, Some(&token)));
    assert_ne!(ctl(&nsecd, &b, &["session", "revoke"], &token).1["revoked"], true);
    event::signed(&sign(&nsecd, &a, &token), PUBLIC_KEY);
}

#[test]
fn with_starter_a_token_is_of_no_use_in_another_cgroup() {
    if no_cgroups() {
        return;
    }
    let nsecd = start("bind = \"starter\"");
    let (a, b) = (Cgroup::new(), Cgroup::new());
    let token = session(&nsecd, &a);
    refused(&sign(&nsecd, &b, &token));
    event::signed(&sign(&nsecd, &a, &token), PUBLIC_KEY);
}

#[test]
fn each_cgroup_has_windows_and_sessions_of_its_own() {
    if no_cgroups() {
        return;
    }
    let limits = "limits = { burst = 2, burst_window = \"1h\" }\ntotal = \"none\"";
    let nsecd = Nsecd::start(&format!("[limits]\nlive_sessions = 1\n{}", config(limits)));
    let (a, b) = (Cgroup::new(), Cgroup::new());
    assert_eq!([&a, &b].map(|cgroup| signatures(&nsecd, cgroup, 3)), [2, 2]);
    let first = session(&nsecd, &a);
    session(&nsecd, &b);
    assert_eq!(ctl(&nsecd, &a, &["session", "info"], &first).1["session"]["signCount"], 0, "a's own still lives");
    session(&nsecd, &a);
    assert!(ctl(&nsecd, &a, &["session", "info"], &first).1["session"].is_null(), "a's second ended it");
    let who = format!("uid 0 in cgroup {} on socket 0", a.id());
    assert!(nsecd.stderr().contains(&who), "no `{who}` in the log");
}

#[test]
fn cgroups_together_and_new_ones_gain_nothing_beyond_the_sockets_total() {
    if no_cgroups() {
        return;
    }
    let nsecd = start("limits = { burst = 3, burst_window = \"1h\" }\ntotal = { burst = 7, burst_window = \"1h\" }");
    let (a, b, c) = (Cgroup::new(), Cgroup::new(), Cgroup::new());
    assert_eq!([&a, &b, &c].map(|cgroup| signatures(&nsecd, cgroup, 5)), [3, 3, 1]);
    let before = a.id();
    let again = a.remade();
    assert_ne!(again.id(), before, "a cgroup made anew is another one");
    for cgroup in [&again, &Cgroup::new(), &b] {
        let (_, reply) = ctl(&nsecd, cgroup, &["sign", "--kind", "1"], "");
        assert_eq!(code(&reply), "rate_limited");
        let token = session(&nsecd, cgroup);
        assert_eq!(code(&sign(&nsecd, cgroup, &token)), "rate_limited");
    }
}

/// SECURITY.md says so: who passes a connection lends its identity.
#[test]
fn a_passed_connection_keeps_the_identity_of_who_connected() {
    if no_cgroups() {
        return;
    }
    let nsecd = start("bind = \"starter\"\nlimits = { burst = 2, burst_window = \"1h\" }\ntotal = \"none\"");
    let a = Cgroup::new();
    let token = session(&nsecd, &a);
    let (child, connection) = connected_in(&a, &nsecd);
    let mut passed = Client::over(connection).unwrap();
    let mut own = nsecd.connect();
    refused(&own.sign(1, Some(&token)));
    event::signed(&passed.sign(1, Some(&token)), PUBLIC_KEY);
    let of_ours = own.session(json!({"scope": "1"}));
    refused(&passed.sign(1, Some(&of_ours)));
    // The identity was read when the connection was accepted: it outlives the process, and so do its windows.
    end(child);
    event::signed(&passed.sign(1, Some(&token)), PUBLIC_KEY);
    assert_eq!(code(&passed.sign(1, Some(&token))), "rate_limited");
    assert_eq!(signatures(&nsecd, &a, 1), 0, "a's window is full");
    event::signed(&own.sign(1, Some(&of_ours)), PUBLIC_KEY);
}

#[test]
fn a_peer_that_ended_before_it_was_accepted_is_refused() {
    if no_cgroups() {
        return;
    }
    let nsecd = start("");
    let (broker, a) = (nsecd.role("nsecd-broker"), Cgroup::new());
    for ends in [false, true] {
        // It cannot accept before we let it.
        kill(Pid::from_raw(broker), Signal::SIGSTOP).unwrap();
        let (child, connection) = connected_in(&a, &nsecd);
        let lives = if ends {
            end(child);
            None
        } else {
            Some(child)
        };
        kill(Pid::from_raw(broker), Signal::SIGCONT).unwrap();
        let mut client = Client::over(connection).unwrap();
        // Fails if it has been closed already.
        let _ = client.try_send(crate::support::client::line("get_public_key", json!({})));
        assert_eq!(client.line().is_some(), !ends);
        lives.into_iter().for_each(end);
        nsecd.serves();
    }
    assert_eq!(nsecd.role("nsecd-broker"), broker, "the same broker all the time");
}

#[test]
fn where_the_kernel_tells_no_cgroups_it_serves_by_uid_and_says_so() {
    if no_cgroups() {
        return;
    }
    for older in [sys::without_peer_pidfd, sys::without_pidfd_info] {
        let limits = "limits = { burst = 3, burst_window = \"1h\" }\ntotal = \"none\"";
        let mut setup = Setup::new(&config(limits));
        older(&mut setup.command);
        let nsecd = setup.start();
        let (a, b) = (Cgroup::new(), Cgroup::new());
        let token = session(&nsecd, &a);
        for cgroup in [&b, &a] {
            event::signed(&sign(&nsecd, cgroup, &token), PUBLIC_KEY);
        }
        assert_eq!([&a, &b].map(|cgroup| signatures(&nsecd, cgroup, 2)), [1, 0], "one principal");
        for words in SAID {
            assert!(nsecd.stderr().contains(words), "no `{words}` in: {}", nsecd.stderr());
        }
    }
    // Control: where the kernel tells them, nothing is said.
    let nsecd = start("");
    nsecd.serves();
    for words in SAID {
        assert!(!nsecd.stderr().contains(words), "{}", nsecd.stderr());
    }
}

/// A pidfd could signal and open another process. The broker may do neither (`whatever_a_hijacked_broker_reaches_for_ends_it_and_nobody_else`),
/// and it does not gather them: it keeps the one of the process that connected last.
#[test]
fn the_broker_keeps_no_descriptor_of_its_peers_processes_but_the_last_ones() {
    if no_cgroups() {
        return;
    }
    let nsecd = start("");
    let held = || {
        let all = process::descriptors(nsecd.role("nsecd-broker"));
        all.values().filter(|what| *what != "socket").count()
    };
    nsecd.connect().public_key();
    let others = held();
    let mut clients: Vec<Client> = (0..50).map(|_| nsecd.connect()).collect();
    clients.iter_mut().for_each(|client| drop(client.public_key()));
    let (child, _connection) = connected_in(&Cgroup::new(), &nsecd);
    nsecd.serves();
    assert_eq!(held(), others);
    end(child);
}

/// The kernel is asked by the pidfd of the connection before where a process connects again; where it is now is asked each time.
#[test]
fn a_process_that_connects_again_from_another_cgroup_is_another_principal() {
    if no_cgroups() {
        return;
    }
    let nsecd = start(ONE);
    let (a, b) = (Cgroup::new(), Cgroup::new());
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    let mut command = Command::new("cat");
    command.stdin(Stdio::piped());
    sys::connect_from_each(&mut command, vec![a.procs(), a.procs(), b.procs()], nsecd.socket.clone(), theirs);
    // It returns when the child has become its program.
    let child = std::thread::spawn(move || command.spawn().unwrap());
    let mut signs = || {
        let mut client = Client::over(sys::passed(&ours)).unwrap();
        let reply = client.sign(1, None);
        ours.write_all(b"x").unwrap();
        reply
    };
    event::signed(&signs(), PUBLIC_KEY);
    assert_eq!(code(&signs()), "rate_limited", "again from a");
    event::signed(&signs(), PUBLIC_KEY);
    end(child.join().unwrap());
}

/// Whoever gets the number of a process that has ended has none of its standing.
#[test]
fn a_process_that_got_the_number_of_one_before_is_another_principal() {
    if no_cgroups() {
        return;
    }
    let nsecd = start(ONE);
    let sign = |connection| Client::over(connection).unwrap().sign(1, None);
    // Somebody else may get the number: then all over again, so that nobody connects between the two.
    let met = (0..200).any(|_| {
        let (a, b) = (Cgroup::new(), Cgroup::new());
        let (first, connection) = connected_in(&a, &nsecd);
        event::signed(&sign(connection), PUBLIC_KEY);
        let number = first.id();
        end(first);
        std::fs::write("/proc/sys/kernel/ns_last_pid", (number - 1).to_string()).unwrap();
        let (second, connection) = connected_in(&b, &nsecd);
        let met = second.id() == number;
        if met {
            event::signed(&sign(connection), PUBLIC_KEY);
        }
        end(second);
        met
    });
    assert!(met, "no process got the number of the one before");
}
