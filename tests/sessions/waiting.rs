//! Requests that wait for a slot of a shared socket: whose turn it is, how many may wait, what a crash leaves of them.
//!
//! Order is read from the gate's record, where each signature has its row before it is made. What time decides (that no
//! new request overtakes, that a slot given back is used at once, the end of patience) is in the broker's own tests,
//! src/broker/src/server/tests.rs, on a clock moved by hand.
//!
//! Checked: with the first due line in a fixed order instead of the turn, or with a turn that does not go to the back,
//! the two about turns fail; without the uid before the principal, the one about cgroups; without the bound per uid, the
//! one about places. The last one guards what is so by itself: what waits is in the broker's memory and nowhere else.

use crate::support::cgroup::no_cgroups;
use crate::support::client::{code, line};
use crate::support::{Cgroup, Client, Nsecd, PUBLIC_KEY, event, not_root, sys};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde_json::{Value, json};
use std::fs;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

const ALICE: u32 = 23_441;
const BOB: u32 = 23_442;

/// A socket for all, on which everybody may wait, with these lines.
fn start(lines: &str) -> Nsecd {
    Nsecd::start(&format!(
        "[key]\nceiling = \"none\"\n[[socket]]\npath = \"/run/x.sock\"\nmode = \"0666\"\nkinds = [1]\ntokenless = [1]\n\
         tokenless_on_limit = \"wait 5m\"\n{lines}\n"
    ))
}

/// Clients of one uid and cgroup, whose process lives as long as they do.
struct Crowd {
    process: Child,
    clients: Vec<Client>,
}

impl Drop for Crowd {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Crowd {
    fn connect(nsecd: &Nsecd, uid: u32, cgroup: Option<&Cgroup>, count: usize) -> Crowd {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut command = Command::new("cat");
        command.env_clear().uid(uid).gid(uid).stdin(Stdio::piped());
        sys::connect_and_pass(&mut command, cgroup.map(Cgroup::procs), nsecd.socket.clone(), theirs, count);
        let process = command.spawn().unwrap();
        let clients = (0..count).map(|_| Client::over(sys::passed(&ours)).unwrap()).collect();
        Crowd { process, clients }
    }

    /// Each asks for a signature. All are read when this returns, or in the very round of the loop that answered it.
    fn ask(&mut self, nsecd: &Nsecd) {
        self.clients.iter_mut().for_each(ask);
        nsecd.serves();
    }

    /// Those that have been answered, or whose connection has ended.
    fn answered(&mut self) -> Vec<&mut Client> {
        let mut fds: Vec<_> =
            self.clients.iter().map(|client| PollFd::new(client.stream().as_fd(), PollFlags::POLLIN)).collect();
        poll(&mut fds, PollTimeout::ZERO).unwrap();
        let ready: Vec<bool> = fds.iter().map(|fd| fd.any().unwrap()).collect();
        self.clients.iter_mut().zip(ready).filter(|(_, ready)| *ready).map(|(client, _)| client).collect()
    }
}

fn ask(client: &mut Client) {
    client.send(line("sign_event", json!({"kind": 1, "content": "in turn"})));
}

/// The ids in the gate's record, oldest first.
fn recorded(nsecd: &Nsecd) -> Vec<String> {
    let file = nsecd.files_in_state("default.record").pop().unwrap();
    fs::read(file).unwrap()[64..].chunks(64).map(|row| event::hex(&row[32..64])).collect()
}

/// While these wait, Bob asks three times: how many others were served between that and the last of Bob's.
fn others_before_bobs_third(nsecd: &Nsecd, waiting: &mut [Crowd]) -> usize {
    // The slots that are there now.
    for _ in 0..2 {
        event::signed(&nsecd.connect().sign(1, None), PUBLIC_KEY);
    }
    for crowd in waiting {
        crowd.ask(nsecd);
    }
    let mut bob = Crowd::connect(nsecd, BOB, None, 3);
    // Identical events would be one row of the record three times.
    for (n, client) in bob.clients.iter_mut().enumerate() {
        client.send(line("sign_event", json!({"kind": 1, "content": format!("Bob's {n}")})));
    }
    nsecd.serves();
    let before = recorded(nsecd).len();
    let replies: Vec<Value> = bob.clients.iter_mut().map(Client::reply).collect();
    let bobs: Vec<_> = replies.iter().map(|reply| event::signed(reply, PUBLIC_KEY)["id"].as_str().unwrap()).collect();
    let rows = recorded(nsecd);
    let last = rows.iter().rposition(|id| bobs.contains(&id.as_str())).unwrap();
    rows.iter().take(last).skip(before).filter(|id| !bobs.contains(&id.as_str())).count()
}

/// Served in turn: one before each of Bob's, and two that may have been on their way to the record when he came.
const FAIR: usize = 3 + 2;

/// Two slots a second for all together.
const SLOW: &str = "limits = \"none\"\n\
                    total = { burst = 2, burst_window = \"1s\", per_minute = 10000, per_hour = 10000 }";

#[test]
fn a_uid_with_many_waiting_requests_and_one_with_few_are_served_in_turn() {
    if not_root("clients of two uids") {
        return;
    }
    let nsecd = start(SLOW);
    let alice = Crowd::connect(&nsecd, ALICE, None, 60);
    let others = others_before_bobs_third(&nsecd, &mut [alice]);
    assert!(others <= FAIR, "{others} of Alice's before Bob's third");
}

#[test]
fn many_cgroups_gain_no_turns_over_another_uid() {
    if no_cgroups() {
        return;
    }
    let nsecd = start(SLOW);
    let cgroups = [(); 4].map(|()| Cgroup::new());
    let mut root = cgroups.each_ref().map(|cgroup| Crowd::connect(&nsecd, 0, Some(cgroup), 15));
    let others = others_before_bobs_third(&nsecd, &mut root);
    assert!(others <= FAIR, "{others} of root's before Bob's third");
}

#[test]
fn new_cgroups_of_one_uid_bring_no_places_without_end() {
    if no_cgroups() {
        return;
    }
    let nsecd = start("limits = \"none\"\ntotal = { burst = 1, burst_window = \"2m\" }");
    event::signed(&nsecd.connect().sign(1, None), PUBLIC_KEY);
    let cgroups = [(); 5].map(|()| Cgroup::new());
    let mut root = cgroups.each_ref().map(|cgroup| Crowd::connect(&nsecd, 0, Some(cgroup), 60));
    root.iter_mut().for_each(|crowd| crowd.ask(&nsecd));
    let answered = |root: &mut [Crowd; 5]| root.each_mut().map(|crowd| crowd.answered().len());
    for _ in 0..20_000 {
        if answered(&mut root).iter().sum::<usize>() >= 300 - 256 {
            break;
        }
        nsecd.serves();
    }
    nsecd.serves();
    assert_eq!(answered(&mut root), [0, 0, 0, 0, 300 - 256]);
    for client in root[4].answered() {
        assert_eq!(code(&client.reply()), "rate_limited");
    }
    let mut bob = Crowd::connect(&nsecd, BOB, None, 60);
    bob.ask(&nsecd);
    nsecd.serves();
    assert!(bob.answered().is_empty(), "another uid has places of its own");
}

#[test]
fn who_waits_when_the_broker_dies_is_told_and_never_signed_for_later() {
    let nsecd = start("limits = { burst = 2, burst_window = \"5s\", per_minute = 100 }\ntotal = \"none\"");
    let mut signed = 0;
    let mut count = |line: Option<String>| -> bool {
        let reply: Option<Value> = line.map(|line| serde_json::from_str(&line).unwrap());
        let is_signed = reply.is_some_and(|reply| reply.get("event").is_some());
        signed += usize::from(is_signed);
        is_signed
    };
    // Their replies are read, so that none is lost on its way: the record would know of it.
    let mut clients: Vec<Client> = (0..10).map(|_| nsecd.connect()).collect();
    for client in &mut clients[..2] {
        ask(client);
        assert!(count(client.line()));
    }
    clients[2..].iter_mut().for_each(ask);
    nsecd.serves();
    nsecd.kill("nsecd-broker");
    for client in &mut clients {
        // At most its reply, and then the end of the stream.
        while let Some(line) = client.line() {
            count(Some(line));
        }
    }
    // Whoever tries again is served when there is a slot.
    for _ in 0..3 {
        let tries = (0..100).any(|_| {
            let mut client = nsecd.connect();
            ask(&mut client);
            count(client.line())
        });
        assert!(tries, "never served again");
    }
    assert_eq!(recorded(&nsecd).len(), signed);
}
