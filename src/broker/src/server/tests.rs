//! The queue at work, with the clock, the gate and the moment of each event in the test's hands.
//!
//! Checked: without `serve_waiting` in `decide`, the two about overtaking fail; without `wake` in `signed`, or without the
//! question for the total, the one about a slot that comes back; with another order than the turn's, the one about turns;
//! without `end_patience`, the one about patience.

use std::cell::Cell;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::FileExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, Ordering};

use nix::sys::epoll::EpollCreateFlags;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, send, socketpair};
use nsecd_policy::control::{self, Control};
use nsecd_policy::{Kinds, Limits, Method, Socket};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::*;
use crate::decisions::Sized;
use crate::fixture::{policy_with, scratch};
use crate::ledger::Ledger;
use crate::replay::{Found, open};
use crate::row::Row;

mod ahead;
mod errands;
mod operator;
mod pipelined;
mod places;
mod reload;

/// One slot in ten seconds for a whole socket.
const TOTAL: Limits = Limits { burst: 1, burst_window: 10, per_minute: 1000, per_hour: 1000 };
const SIGNED: u8 = 0;
const FAILED: u8 = 7;

#[derive(Clone)]
struct Hand(Rc<Cell<u64>>);

impl Clock for Hand {
    fn now(&self) -> Now {
        Now { boot: self.0.get(), wall: 1_800_000_000_000 + self.0.get() }
    }
}

/// A server of one socket, whose gate, supervisor and clients are this test.
struct Bench {
    server: Server<Hand>,
    clock: Hand,
    gate: UnixStream,
    holder: OwnedFd,
    clients: Vec<UnixStream>,
    /// The admin socket's address.
    desk: SocketAddr,
    _supervisor: [UnixStream; 2],
}

fn pair() -> (UnixStream, UnixStream) {
    let (ours, theirs) = UnixStream::pair().expect("a pair");
    ours.set_nonblocking(true).expect("set");
    theirs.set_nonblocking(true).expect("set");
    (ours, theirs)
}

impl Bench {
    fn new(change: impl FnOnce(&mut Socket)) -> Bench {
        Bench::logging(scratch(), change)
    }

    /// With this decision log.
    fn logging(log: File, change: impl FnOnce(&mut Socket)) -> Bench {
        let mut policy = policy_with(|socket| {
            socket.kinds = Kinds::List(vec![1]);
            (socket.limits, socket.total) = (None, Some(TOTAL));
            (socket.created_at, socket.sessions_per_minute) = (None, 100);
            change(socket);
        });
        // One gate, which is the test.
        policy.accounts.retain(|account| account.name == "default");
        policy.sockets.truncate(1);
        policy.ecdh_fd = Some(-1);
        (policy.max_connections, policy.max_connections_per_principal) = (1000, 1000);
        let ((control, supervisor), (end, pipe), (gate, broker)) = (pair(), pair(), pair());
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("nsecd-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let desk = SocketAddr::from_abstract_name(name).expect("a name");
        let admin = UnixListener::bind_addr(&desk).expect("a listener");
        admin.set_nonblocking(true).expect("set");
        policy.operator_uid = nix::unistd::geteuid().as_raw();
        let alerts = AlertLog::new(File::options().write(true).open("/dev/null").expect("it exists"), 0, 1 << 20);
        let flags = SockFlag::SOCK_NONBLOCK;
        let (ecdh, holder) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags).expect("a pair");
        let files = Files {
            epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).expect("epoll"),
            admin_epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).expect("epoll"),
            admin: admin.into(),
            control: control.into(),
            policy: end.into(),
            // Nobody connects by it.
            listeners: vec![pair().0.into()],
            alerts: vec![alerts],
            gates: vec![broker.into()],
            ecdh: Some(ecdh),
        };
        let clock = Hand(Rc::new(Cell::new(1_000_000)));
        let engine = Engine::new(policy.clone(), Ledger::new(&policy));
        let journal = Journal::new(scratch(), &Found::default(), &Row::Open(open(&policy, clock.now())));
        let current = Sized { file: log, size: 0 };
        let decisions = DecisionLog::open(current, None, &policy, clock.now()).expect("an empty file");
        let kept = Kept { journal, decisions };
        let server = Server::new(policy, engine, kept, files, clock.clone(), true).expect("epoll");
        Bench { server, clock, gate, holder, clients: Vec::new(), desk, _supervisor: [supervisor, pipe] }
    }

    /// A client of this uid and cgroup.
    fn connect(&mut self, uid: u32, cgroup: u64) -> u64 {
        let (ours, theirs) = pair();
        self.server.welcome(theirs.into(), Principal { socket: 0, uid, cgroup: Some(cgroup) }, None);
        self.clients.push(ours);
        self.clients.len() as u64 - 1
    }

    /// Sends a request over a connection of its own, and lets the server read it.
    fn ask(&mut self, uid: u32, cgroup: u64, line: &str) -> u64 {
        let id = self.connect(uid, cgroup);
        self.send(id, line);
        id
    }

    /// A round's first request.
    fn send(&mut self, id: u64, line: &str) {
        self.server.eaten.clear();
        self.clients[id as usize].write_all(format!("{line}\n").as_bytes()).expect("room");
        self.server.client_ready(id, EpollFlags::EPOLLIN);
    }

    /// Asks for a signature of an event that says so.
    fn sign(&mut self, uid: u32, cgroup: u64, content: &str) -> u64 {
        self.ask(uid, cgroup, &format!(r#"{{"method":"sign_event","params":{{"kind":1,"content":"{content}"}}}}"#))
    }

    fn pass(&mut self, ms: u64) {
        self.clock.0.set(self.clock.0.get() + ms);
    }

    /// The contents of the events that have come to the gate, answered with this status.
    fn gate(&mut self, status: u8) -> Vec<String> {
        self.server.commit();
        let (mut frames, mut came) = (Vec::new(), Vec::new());
        let _ = self.gate.read_to_end(&mut frames);
        let mut rest = &frames[..];
        while let Some((length, after)) = rest.split_first_chunk() {
            let (event, after) = after.split_at(u32::from_be_bytes(*length) as usize);
            rest = after;
            let fields: Value = serde_json::from_slice(event).expect("JSON");
            came.push(fields[5].as_str().expect("the content").to_owned());
            let reply = [&Sha256::digest(event)[..], &[status], &[7; 64]].concat();
            self.gate.write_all(&reply).expect("room");
        }
        self.server.gate_ready(0).expect("the gate is there");
        came
    }

    /// Whom the ECDH holder is asked to agree with, by the key's first digit; so many agreements are within its ceiling.
    fn holder(&mut self, mut within: usize) -> String {
        let mut asked = String::new();
        let mut packet = [0; 100];
        while let Ok(65) = recv(self.holder.as_raw_fd(), &mut packet, MsgFlags::empty()) {
            asked.push(char::from_digit(u32::from(packet[1] >> 4), 16).expect("a digit"));
            let status = u8::from(within == 0);
            within = within.saturating_sub(1);
            let reply = [&packet[..65], &[status], &[9; 76]].concat();
            send(self.holder.as_raw_fd(), &reply, MsgFlags::empty()).expect("room");
        }
        self.server.agreements_ready().expect("the holder is there");
        asked
    }

    /// Asks for an encryption to a peer.
    fn encrypt(&mut self, uid: u32, cgroup: u64, peer: &str) -> u64 {
        let params = format!(r#"{{"plaintext":"x","peer_pubkey":"{peer}"}}"#);
        self.ask(uid, cgroup, &format!(r#"{{"method":"nip44_encrypt","params":{params}}}"#))
    }

    /// What [`Server::run`] does between one wait and the next.
    fn round(&mut self) {
        self.server.eaten.clear();
        assert_eq!(self.server.pass_time(), Ok(()));
    }

    /// The reply that a client has, if it has one.
    fn reply(&mut self, id: u64) -> Option<Value> {
        self.server.commit();
        self.server.client_ready(id, EpollFlags::EPOLLOUT);
        let mut text = Vec::new();
        let _ = self.clients[id as usize].read_to_end(&mut text);
        (!text.is_empty()).then(|| serde_json::from_slice(&text).expect("one line"))
    }
}

#[test]
fn who_waits_and_is_due_is_not_overtaken_by_a_new_request() {
    let mut bench = Bench::new(|_| {});
    bench.sign(1, 1, "first");
    bench.sign(2, 1, "waits");
    assert_eq!(bench.gate(SIGNED), ["first"]);
    bench.round();
    bench.pass(10_000);
    // Before the server has looked at the time.
    let other = bench.sign(1, 1, "new");
    assert_eq!(bench.gate(SIGNED), ["waits"]);
    assert_eq!(bench.reply(other), None, "it waits in turn");
    bench.pass(10_000);
    bench.round();
    assert_eq!(bench.gate(SIGNED), ["new"]);
}

#[test]
fn nor_by_one_that_may_not_wait_itself() {
    let mut bench = Bench::new(|_| {});
    let starter = bench.ask(3, 1, r#"{"method":"session_start","params":{}}"#);
    let started = bench.reply(starter).expect("a session");
    let token = started["session"]["token"].as_str().expect("a token").to_owned();
    bench.sign(1, 1, "first");
    bench.sign(2, 1, "waits");
    bench.gate(SIGNED);
    bench.pass(10_000);
    let line = format!(r#"{{"method":"sign_event","params":{{"kind":1,"content":"now","session_token":"{token}"}}}}"#);
    bench.send(starter, &line);
    assert_eq!(bench.gate(SIGNED), ["waits"]);
    assert_eq!(bench.reply(starter).expect("at once")["code"], "rate_limited");
}

#[test]
fn a_slot_that_comes_back_is_used_at_once() {
    let mut bench = Bench::new(|_| {});
    bench.sign(1, 1, "refused");
    bench.sign(2, 1, "waits");
    bench.round();
    assert_eq!(bench.gate(FAILED), ["refused"]);
    bench.round();
    assert_eq!(bench.gate(SIGNED), ["waits"]);
}

#[test]
fn slots_are_given_in_turn_by_uid_then_by_cgroup_however_many_are_due() {
    let mut bench = Bench::new(|s| {
        s.total = Some(Limits { burst: 4, ..TOTAL });
        s.tokenless_on_limit_wait = 60;
    });
    for n in 0..4 {
        bench.sign(9, 1, &format!("fill{n}"));
    }
    bench.gate(SIGNED);
    for n in 0..3 {
        for cgroup in 1..4 {
            bench.sign(1, cgroup, &format!("a{cgroup}.{n}"));
        }
    }
    for n in 0..4 {
        bench.sign(2, 1, &format!("b{n}"));
    }
    let mut served = Vec::new();
    for _ in 0..3 {
        bench.pass(10_000);
        bench.round();
        let some = bench.gate(SIGNED);
        assert_eq!(some.len(), 4);
        served.extend(some);
        // The total is used up: nobody is tried again before it is free.
        bench.round();
        assert_eq!(bench.server.queues.next(), Some(bench.clock.now().boot + 10_000));
    }
    let order = ["a1.0", "b0", "a2.0", "b1", "a3.0", "b2", "a1.1", "b3", "a2.1", "a3.1", "a1.2", "a2.2"];
    assert_eq!(served, order);
}

#[test]
fn patience_ends_with_the_rate_error_and_when_to_try_again() {
    let mut bench = Bench::new(|s| s.total = Some(Limits { burst_window: 15, ..TOTAL }));
    bench.sign(1, 1, "first");
    let served = bench.sign(2, 1, "served");
    let behind = bench.sign(2, 1, "behind");
    bench.gate(SIGNED);
    bench.pass(15_000);
    bench.round();
    assert_eq!(bench.gate(SIGNED), ["served"]);
    assert!(bench.reply(served).expect("a reply").get("event").is_some());
    bench.pass(4_999);
    bench.round();
    assert_eq!(bench.reply(behind), None);
    bench.pass(1);
    bench.round();
    let reply = bench.reply(behind).expect("a reply");
    assert_eq!((&reply["code"], &reply["retry_after_ms"]), (&"rate_limited".into(), &10_000.into()));
    assert_eq!(bench.server.queues.next(), None);
}

#[test]
fn who_leaves_makes_way_for_the_next_of_its_line() {
    let mut bench = Bench::new(|_| {});
    bench.sign(2, 1, "first");
    let leaves = bench.sign(1, 1, "leaves");
    let stays = bench.sign(1, 1, "stays");
    bench.gate(SIGNED);
    bench.server.close(leaves);
    bench.pass(10_000);
    bench.round();
    assert_eq!(bench.gate(SIGNED), ["stays"]);
    assert!(bench.reply(stays).expect("a reply").get("event").is_some());
}

/// A client sends two requests at once, the second while the first waits. When its turn comes nothing can be asked, as the
/// sixteenth of a round is told at once: the second is then decided in the middle of the first one's turn.
///
/// Checked: where the first leaves its line only after it was asked for, it takes the second one's place, and this fails.
#[test]
fn what_was_sent_behind_a_request_that_waits_keeps_its_own_place() {
    let mut bench = Bench::new(|s| {
        (s.total, s.limits) = (None, Some(TOTAL));
        s.tokenless_on_limit_wait = 60;
    });
    bench.sign(1, 1, "fill");
    assert_eq!(bench.gate(SIGNED), ["fill"]);
    let two = ["first", "second"]
        .map(|text| format!(r#"{{"method":"sign_event","params":{{"kind":1,"content":"{text}"}}}}"#));
    let id = bench.ask(1, 1, &two.join("\n"));
    bench.sign(1, 1, "between");
    bench.pass(9_999);
    for n in 1..super::batch::MOST as u32 {
        bench.sign(100 + n, 1, "of others");
    }
    bench.pass(1);
    let gate = bench.server.gates[0].take();
    bench.round();
    bench.server.gates[0] = gate;
    let reply = bench.reply(id).expect("the first one's");
    assert_eq!(reply["code"], "unavailable", "{reply}");
    assert_eq!(bench.gate(SIGNED), ["second"]);
    assert_eq!(bench.reply(id).expect("the second one's")["event"]["content"], "second");
}

/// Checked: with a gate looked at in sweeps only, and with its time not among what is waited for, this fails.
#[test]
fn a_gate_that_has_stopped_is_taken_for_hung_ten_seconds_after_it_was_asked() {
    let mut bench = Bench::new(|_| {});
    bench.round();
    bench.pass(5_000);
    bench.sign(1, 1, "never answered");
    bench.server.commit();
    // Half-way comes a sweep, which is not the time.
    bench.pass(9_999);
    bench.round();
    assert_eq!(bench.server.patience(), EpollTimeout::from(2_u8), "woken when it is due, and not by the next sweep");
    bench.pass(1);
    assert_eq!(bench.server.pass_time(), Err("a gate does not answer".to_owned()));
}

#[test]
fn where_no_gate_has_anything_to_answer_nobody_is_woken_before_the_next_sweep() {
    let mut bench = Bench::new(|_| {});
    bench.sign(1, 1, "answered");
    assert_eq!(bench.gate(SIGNED), ["answered"]);
    bench.round();
    assert_eq!(bench.server.patience(), EpollTimeout::from(10_001_u16));
}

/// Checked: with a broker that goes on without its line, and with one that keeps the slot, one of these two fails.
#[test]
fn where_the_decision_log_takes_no_line_nothing_is_asked_and_no_slot_is_used() {
    // As on a full disk, and as a log that was opened for reading only.
    let full = File::options().read(true).write(true).open("/dev/full").expect("it exists");
    let read_only = File::open("/dev/null").expect("it exists");
    for log in [full, read_only] {
        let mut bench = Bench::logging(log, |s| s.methods = vec![Method::SignEvent, Method::Nip44]);
        let encrypt = r#"{"method":"nip44_encrypt","params":{"plaintext":"x","peer_pubkey":"5cbdf0646e5db4eaa398f365f2ea7a0e3d419b7e0330e39ce92bddedcac4f9bc"}}"#;
        let start = r#"{"method":"session_start","params":{}}"#;
        let sign = r#"{"method":"sign_event","params":{"kind":1,"content":"x"}}"#;
        for line in [sign, encrypt, sign] {
            let id = bench.ask(1, 1, line);
            let reply = bench.reply(id).expect("a reply");
            assert_eq!(reply["code"], "unavailable", "{reply}");
            assert!(reply["error"].as_str().expect("a text").contains("the decision log cannot be written"), "{reply}");
        }
        assert!(bench.gate(SIGNED).is_empty() && bench.holder(9).is_empty(), "nobody was asked");
        // What uses no key goes on.
        let id = bench.ask(1, 1, start);
        assert!(bench.reply(id).expect("a reply").get("session").is_some());
        let id = bench.ask(1, 1, r#"{"method":"get_public_key","params":{}}"#);
        assert!(bench.reply(id).expect("a reply").get("pubkey").is_some());
        // Once there is room the slot, of which there is one, is there.
        bench.server.decisions.replace_file(scratch());
        bench.round();
        bench.sign(1, 1, "first");
        assert_eq!(bench.gate(SIGNED), ["first"]);
    }
}

/// That no gate is asked for what cannot be written: the test after this one.
///
/// Checked: with `commit` after each event, this fails.
#[test]
fn events_of_one_round_are_written_together_and_are_all_with_the_gate_before_its_first_reply() {
    let log = scratch();
    let mut bench = Bench::logging(log.try_clone().expect("dup"), |socket| socket.total = None);
    let lines = || {
        let mut bytes = vec![0; 64 * 1024];
        let size = log.read_at(&mut bytes, 0).expect("read");
        bytes[..size].iter().filter(|byte| **byte == b'\n').count()
    };
    let before = lines();
    let clients: Vec<u64> = (1..=9).map(|n| bench.sign(1, n, "one of nine")).collect();
    assert_eq!((lines(), is_empty(&bench.gate)), (before, true), "nothing is written or asked for one by one");
    bench.server.commit();
    assert_eq!((lines(), is_empty(&bench.gate)), (before + 9, false));
    assert_eq!(bench.gate(SIGNED).len(), 9, "all of them are in flight at once");
    assert_eq!(lines(), before + 18, "each outcome is written when its client reads");
    for client in clients {
        assert!(bench.reply(client).is_some_and(|reply| reply["event"].is_object()));
    }
}

/// Whether nothing waits to be read.
fn is_empty(stream: &UnixStream) -> bool {
    recv(stream.as_raw_fd(), &mut [0], MsgFlags::MSG_PEEK) == Err(Errno::EAGAIN)
}

/// Checked: with one text for both, this fails.
#[test]
fn an_event_that_no_gate_is_there_for_is_refused_for_that_reason() {
    let mut bench = Bench::new(|_| {});
    let gate = bench.server.gates[0].take();
    let id = bench.sign(1, 1, "refused");
    let reply = bench.reply(id).expect("a reply");
    let text = reply["error"].as_str().expect("a text");
    assert!(text.contains("gate is not there") && !text.contains("log"), "{reply}");
    bench.server.gates[0] = gate;
    bench.sign(1, 1, "first");
    assert_eq!(bench.gate(SIGNED), ["first"], "the one slot was given back");
}

/// A log that is full when a line is to be written, and not before.
#[test]
fn an_intent_that_finds_no_room_is_refused_gives_its_slot_back_and_asks_nobody() {
    let mut bench = Bench::new(|_| {});
    let full = File::options().write(true).open("/dev/full").expect("it exists");
    bench.server.decisions.replace_file(full);
    let id = bench.sign(1, 1, "refused");
    let reply = bench.reply(id).expect("a reply");
    assert!(reply["error"].as_str().expect("a text").contains("not recorded"), "{reply}");
    assert!(bench.gate(SIGNED).is_empty());
    bench.server.decisions.replace_file(scratch());
    bench.sign(1, 1, "first");
    assert_eq!(bench.gate(SIGNED), ["first"], "the one slot was given back");
}
