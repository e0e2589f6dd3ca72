//! Nothing resets a limit: random lives of agents, brokers, gates, machines and clocks, judged by a witness who keeps
//! the true time and every signature, and knows nothing of meters, journals or records.
//!
//! Real here: the policy, its journal, the gate's ceiling and record. Not here: processes and sockets, which the
//! integration tests kill.
//! Checked, the test turns red: a slot or an end that is not journaled; a slot that a principal or a total does not take;
//! a principal's windows, what its uid has inherited, or its first session, dropped from a snapshot; sessions that
//! outlive a boot; principals' or totals' windows forgiven by one, or carried over it too fast; no row for a clock that
//! was set; no owner; no first session, by start or by binding; a record that goes by the wall clock alone; a reload that
//! leaves sessions or first sessions as they are, or does not write what it took from them; rows of first sessions left out
//! where a reload begins to count them or ceases to. A session's
//! own windows cannot be told from its principal's here: they have the same limits.

use std::collections::HashMap;
use std::fs::File;
use std::io::Write;

use nsecd_bounds::ceiling::Ceiling;
use nsecd_bounds::record::Record;
use nsecd_policy::{Kinds, Limits, Policy, StartSessions};
use nsecd_records::Rows;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use crate::clock::Now;
use crate::fixture::{KEY, ask, policy_with, scratch, token};
use crate::ledger::Ledger;
use crate::limits::HOUR;
use crate::policy::{Engine, Verdict};
use crate::principal::Principal;
use crate::replay::{open, replay};
use crate::reply::Code;
use crate::row::Row;

const LIMITS: Limits = Limits { burst: 5, burst_window: 10, per_minute: 10, per_hour: 25 };
const TOTAL: Limits = Limits { burst: 8, burst_window: 10, per_minute: 16, per_hour: 60 };
/// The account's, in one world or another: tokens, one of which comes back in so many milliseconds.
const BUCKETS: [(u32, u64); 2] = [(10, 6000), (40, 1000)];
const CONTAINERS: usize = 5;
const KINDS: [u16; 4] = [0, 1, 7, 1111];
/// What a reload makes of a socket: its kinds, its longest TTL in seconds.
const CEILINGS: [&[u16]; 4] = [&[1, 7, 1111], &[1, 7, 1111], &[7], &[1, 7]];
const TTLS: [u64; 3] = [3600, 3600, 100];
const SCOPES: [&str; 6] = ["", "1", "7,1", "1,7,1111", "7", "1,0"];

/// What may happen. Containers, tokens and kinds are numbers to choose by.
#[derive(Clone, Debug)]
enum Deed {
    Start {
        who: usize,
        scope: usize,
        ttl: Option<u64>,
        parent: Option<usize>,
    },
    Sign {
        who: usize,
        token: Option<usize>,
        kind: usize,
        fate: Fate,
    },
    Revoke {
        who: usize,
        token: usize,
    },
    KillBroker,
    KillGate,
    Restart {
        down: u64,
    },
    Reboot {
        down: u64,
        back: u64,
    },
    Pass {
        ms: u64,
    },
    SetClock {
        ms: i64,
    },
    Recreate {
        who: usize,
    },
    Compact,
    /// Another configuration, while everybody is connected.
    Reload {
        socket: usize,
        kinds: usize,
        ttl: usize,
        once: bool,
        tight: bool,
    },
}

/// What becomes of a signature that policy has admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// It is made, and answered.
    Answered,
    /// The gate refuses it for a reason of its own.
    Refused,
    /// The broker dies before the gate has been asked.
    DiesBefore,
    /// The broker dies when it is made, before it is answered.
    DiesAfter,
}

fn deed() -> impl Strategy<Value = Deed> {
    let who = || 0..CONTAINERS;
    let token = || 0..12usize;
    let fate = prop_oneof![
        12 => Just(Fate::Answered),
        1 => Just(Fate::Refused),
        1 => Just(Fate::DiesBefore),
        1 => Just(Fate::DiesAfter)
    ];
    let kind = prop_oneof![12 => Just(1usize), 1 => 0..KINDS.len()];
    let ttl = prop::option::of(prop_oneof![1..30u64, 30..4000u64]);
    let pass = prop_oneof![30 => 0..800u64, 8 => 800..9000u64, 3 => 9000..70_000u64, 1 => 70_000..4_000_000u64];
    prop_oneof![
        10 => (who(), 0..SCOPES.len(), ttl, prop::option::weighted(0.3, token()))
            .prop_map(|(who, scope, ttl, parent)| Deed::Start { who, scope, ttl, parent }),
        100 => (who(), prop::option::weighted(0.6, token()), kind, fate)
            .prop_map(|(who, token, kind, fate)| Deed::Sign { who, token, kind, fate }),
        2 => (who(), token()).prop_map(|(who, token)| Deed::Revoke { who, token }),
        3 => Just(Deed::KillBroker),
        3 => Just(Deed::KillGate),
        2 => (0..5000u64).prop_map(|down| Deed::Restart { down }),
        1 => (0..30_000u64, prop_oneof![3 => Just(0u64), 1 => 0..10_000_000u64])
            .prop_map(|(down, back)| Deed::Reboot { down, back }),
        20 => pass.prop_map(|ms| Deed::Pass { ms }),
        1 => prop_oneof![-10_000_000..10_000_000i64, -5000..5000i64].prop_map(|ms| Deed::SetClock { ms }),
        1 => who().prop_map(|who| Deed::Recreate { who }),
        2 => Just(Deed::Compact),
        4 => (0..2usize, 0..CEILINGS.len(), 0..TTLS.len(), prop::bool::weighted(0.8), prop::bool::weighted(0.1))
            .prop_map(|(socket, kinds, ttl, once, tight)| Deed::Reload { socket, kinds, ttl, once, tight }),
    ]
}

/// A container: where it connects, and what the kernel says of it.
struct Container {
    socket: u16,
    uid: u32,
    cgroup: u64,
    /// Which of its lives this is: a container that is made again is another one.
    life: u64,
}

/// A session as the witness knows it.
struct Known {
    token: String,
    socket: u16,
    scope: Vec<u16>,
    /// True time. Kinds and end are the narrowest that it has ever had.
    started: u64,
    ends: u64,
    boot: u64,
    starter: u64,
    owner: Option<u64>,
    parent: Option<usize>,
    revoked: bool,
}

/// A signature that was made.
struct Made {
    at: u64,
    boot: u64,
    /// How far the wall clock has ever been set forward.
    forward: u64,
    socket: u16,
    life: u64,
    session: Option<usize>,
}

struct World {
    policy: Policy,
    engine: Engine,
    journal: File,
    record_file: File,
    record: Record,
    ceiling: Ceiling,
    bucket: (u32, u64),
    /// True time in ms, and what it was at the boot.
    time: u64,
    booted: u64,
    boot: u64,
    /// The wall clock's error.
    error: i64,
    forward: u64,
    containers: Vec<Container>,
    lives: u64,
    sessions: Vec<Known>,
    made: Vec<Made>,
    /// Whether a refusal for rate can be checked: no boot, clock or crash has made policy more careful than it need be.
    plain: bool,
    /// Refusals by a session or principal, by a total, by the account's ceiling.
    refused: [u32; 3],
    /// A first session's kinds, its end, its start.
    first: HashMap<(u64, u64), (Vec<u16>, u64, u64)>,
}

fn ceiling((burst, ms): (u32, u64), uses: u32, now: u64) -> Ceiling {
    Ceiling::new(burst, 1, (ms / 1000) as u32, uses, now).expect("a ceiling")
}

/// The record as a gate that starts now has it.
fn continued(file: &File) -> Record {
    let (sequence, offset) = Rows::open(file, None, [0; 16]).expect("a record").next();
    Record { file: file.try_clone().expect("a duplicate"), sequence, offset }
}

impl World {
    fn new(bucket: (u32, u64)) -> World {
        let mut policy = policy_with(|_| {});
        for socket in &mut policy.sockets {
            (socket.limits, socket.total) = (Some(LIMITS), Some(TOTAL));
            socket.tokenless = Kinds::List(vec![1, 7]);
            socket.accounts = vec!["default".into()];
            socket.live_sessions = 3;
        }
        policy.sockets[1].start_sessions = StartSessions::Once;
        let container = |i: usize| Container {
            socket: (i % 2) as u16,
            uid: 1000 + (i / 3) as u32,
            cgroup: 1 + i as u64,
            life: i as u64,
        };
        let (journal, record_file) = (scratch(), scratch());
        let ledger = Ledger::new(&policy);
        let mut world = World {
            engine: Engine::new(policy.clone(), ledger),
            policy,
            journal,
            record: continued(&record_file),
            record_file,
            ceiling: ceiling(bucket, 0, 0),
            bucket,
            time: 50_000,
            booted: 0,
            boot: 0,
            error: 0,
            forward: 0,
            containers: (0..CONTAINERS).map(container).collect(),
            lives: CONTAINERS as u64,
            sessions: Vec::new(),
            made: Vec::new(),
            plain: true,
            refused: [0; 3],
            first: HashMap::new(),
        };
        world.start_broker();
        world
    }

    fn now(&self) -> Now {
        let wall = 1_800_000_000_000i64 + self.time as i64 + self.error;
        Now { boot: HOUR + self.time - self.booted, wall: wall as u64 }
    }

    fn gate_now(&self) -> nsecd_records::Now {
        nsecd_records::Now { wall: self.now().wall * 1_000_000, boot: (self.time - self.booted) * 1_000_000 }
    }

    fn keep(&mut self) {
        for row in self.engine.take_rows() {
            self.journal.write_all(row.line().as_bytes()).expect("written");
        }
    }

    /// A new broker reads the journal; with it comes a new gate, which reads its record.
    fn start_broker(&mut self) {
        let now = self.now();
        let mut ledger = Ledger::new(&self.policy);
        let found = replay(&self.journal, &self.policy, &mut ledger, now).expect("readable");
        assert_eq!((found.damaged, found.torn), (0, 0));
        let open = Row::Open(open(&self.policy, now));
        ledger.apply(&open);
        for row in [&open].into_iter().chain(&found.changed) {
            self.journal.write_all(row.line().as_bytes()).expect("written");
        }
        self.engine = Engine::new(self.policy.clone(), ledger);
        self.record = continued(&self.record_file);
        let (burst, now) = (self.bucket.0, self.gate_now());
        let rows = Rows::open(&self.record_file, None, [0; 16]).expect("a record");
        let uses = rows.recent(None, now, self.ceiling.memory(), burst.into(), |_| true);
        self.ceiling = ceiling(self.bucket, uses as u32, now.boot);
    }

    fn principal(&self, who: usize) -> Principal {
        let Container { socket, uid, cgroup, .. } = self.containers[who];
        Principal { socket, uid, cgroup: Some(cgroup) }
    }

    /// A request, and what it changed in the journal.
    fn ask(&mut self, who: usize, text: &str) -> Verdict {
        let (who, now) = (self.principal(who), self.now());
        let verdict = ask(&mut self.engine, who, now, text);
        self.keep();
        verdict
    }

    /// A session of the last few.
    fn pick(&self, token: usize) -> Option<usize> {
        self.sessions.len().checked_sub(1 + token)
    }

    /// Whether a session may be used by a container now, as far as it was ever allowed.
    fn is_good(&self, session: usize, who: usize) -> bool {
        let (known, Container { socket, life, .. }) = (&self.sessions[session], &self.containers[who]);
        known.socket == *socket && known.owner.is_none_or(|owner| owner == *life) && self.is_live(session)
    }

    fn is_live(&self, session: usize) -> bool {
        let known = &self.sessions[session];
        let parent = known.parent.is_none_or(|parent| self.is_live(parent));
        parent && !known.revoked && known.boot == self.boot && self.time < known.ends
    }

    /// Notes a container's first session in this boot, where that one counts.
    fn own(&mut self, session: usize, who: usize) {
        let Container { socket, life, .. } = self.containers[who];
        let known = &mut self.sessions[session];
        if socket == 1 && self.policy.sockets[1].start_sessions == StartSessions::Once {
            self.first.entry((life, self.boot)).or_insert((known.scope.clone(), known.ends, known.started));
        }
    }

    /// What a container's first session holds it to, where that counts.
    fn held_to(&self, life: u64) -> Option<(&Vec<u16>, &u64)> {
        let once = self.policy.sockets[1].start_sessions == StartSessions::Once;
        self.first.get(&(life, self.boot)).filter(|_| once).map(|(scope, until, _)| (scope, until))
    }

    fn reload(&mut self, socket: usize, kinds: &[u16], ttl: u64, once: bool, tight: bool) {
        let now = self.now();
        let of = &mut self.policy.sockets[socket];
        (of.kinds, of.max_ttl) = (Kinds::List(kinds.to_vec()), ttl);
        if socket == 1 {
            of.start_sessions = if once { StartSessions::Once } else { StartSessions::Own };
        }
        of.limits = Some(if tight { Limits { burst: 2, ..LIMITS } } else { LIMITS });
        self.plain &= !tight;
        self.engine.adopt(self.policy.clone(), now);
        self.keep();
        let narrow = |scope: &mut Vec<u16>, ends: &mut u64, started: u64| {
            scope.retain(|kind| kinds.contains(kind));
            *ends = (*ends).min(started + ttl * 1000);
        };
        for known in self.sessions.iter_mut().filter(|known| usize::from(known.socket) == socket) {
            narrow(&mut known.scope, &mut known.ends, known.started);
            known.revoked |= known.scope.is_empty();
        }
        if socket == 1 {
            self.first.values_mut().for_each(|(scope, ends, started)| narrow(scope, ends, *started));
        }
    }

    fn live_on(&mut self, deed: &Deed) {
        match *deed {
            Deed::Start { who, scope, ttl, parent } => self.start(who, scope, ttl, parent),
            Deed::Sign { who, token, kind, fate } => self.sign(who, token, KINDS[kind], fate),
            Deed::Revoke { who, token } => {
                let Some(session) = self.pick(token) else { return };
                let text =
                    format!(r#"{{"method":"session_revoke","params":{{"token":"{}"}}}}"#, self.sessions[session].token);
                let verdict = self.ask(who, &text);
                let Verdict::Answer(answer) = verdict else { panic!("{verdict:?}") };
                if answer.line.contains("true") {
                    let (known, life) = (&mut self.sessions[session], self.containers[who].life);
                    assert!(known.starter == life || known.owner == Some(life), "another's session was revoked");
                    known.revoked = true;
                }
            }
            Deed::KillBroker | Deed::KillGate => self.start_broker(),
            Deed::Restart { down } => {
                self.time += down;
                self.start_broker();
            }
            Deed::Reboot { down, back } => {
                self.plain = false;
                self.time += down;
                (self.boot, self.booted) = (self.boot + 1, self.time - down.min(500));
                self.error -= back as i64;
                self.policy.boot_id = format!("boot {}", self.boot);
                // Cgroup ids start again, and in another order.
                for (i, container) in self.containers.iter_mut().enumerate() {
                    container.cgroup = 1 + (i as u64 + self.boot) % CONTAINERS as u64;
                }
                self.start_broker();
            }
            Deed::Pass { ms } => {
                self.time += ms;
                self.engine.sweep(self.now());
                self.keep();
            }
            Deed::SetClock { ms } => {
                self.plain = false;
                self.error += ms;
                self.forward += u64::try_from(ms).unwrap_or(0);
                self.engine.sweep(self.now());
                self.keep();
            }
            Deed::Recreate { who } => {
                self.lives += 1;
                (self.containers[who].life, self.containers[who].cgroup) = (self.lives, 100 + self.lives);
            }
            Deed::Reload { socket, kinds, ttl, once, tight } => {
                self.reload(socket, CEILINGS[kinds], TTLS[ttl], once, tight);
            }
            Deed::Compact => {
                self.journal = scratch();
                let ledger = self.engine.ledger();
                let rows = ledger.pieces().into_iter().filter_map(|piece| ledger.row(piece));
                let rows = [Row::Open(open(&self.policy, self.now()))].into_iter().chain(rows);
                let text: String = rows.map(|row| row.line()).collect();
                self.journal.write_all(text.as_bytes()).expect("written");
            }
        }
    }

    fn start(&mut self, who: usize, scope: usize, ttl: Option<u64>, parent: Option<usize>) {
        let parent = parent.and_then(|token| self.pick(token));
        let mut params = vec![format!("\"scope\":\"{}\"", SCOPES[scope])];
        params.extend(ttl.map(|ttl| format!("\"ttl\":{ttl}")));
        params.extend(parent.map(|p| format!("\"session_token\":\"{}\"", self.sessions[p].token)));
        let text = format!(r#"{{"method":"session_start","params":{{{}}}}}"#, params.join(","));
        let now = self.now();
        let verdict = self.ask(who, &text);
        let Verdict::Answer(answer) = verdict else { return };
        let line: serde_json::Value = serde_json::from_str(&answer.line).expect("JSON");
        let session = &line["session"];
        let scope: Vec<u16> = serde_json::from_value(session["allowedKinds"].clone()).expect("kinds");
        let lasts = session["expiresAt"].as_u64().expect("a time") - now.wall;
        let Container { socket, life, .. } = self.containers[who];
        // No session exceeds its socket's ceiling, the one it came from, or the first one where that holds.
        let nsecd_policy::Socket { kinds, max_ttl, .. } = &self.policy.sockets[usize::from(socket)];
        assert!(scope.iter().all(|kind| kinds.contains(*kind)), "{scope:?}");
        assert!(lasts <= max_ttl * 1000 && ttl.is_none_or(|ttl| lasts == ttl * 1000));
        let ends = self.time + lasts;
        if let Some(parent) = parent {
            assert!(self.is_good(parent, who), "a session was narrowed by whom it is not for");
            assert!(scope.iter().all(|kind| self.sessions[parent].scope.contains(kind)));
            assert!(ends <= self.sessions[parent].ends);
        }
        if let Some((first, until)) = self.held_to(life) {
            assert!(scope.iter().all(|kind| first.contains(kind)) && ends <= *until, "beyond the first session");
        }
        if let Some(parent) = parent.filter(|p| self.sessions[*p].starter != life && self.sessions[*p].owner.is_none())
        {
            self.sessions[parent].owner = Some(life);
            self.own(parent, who);
        }
        let (token, boot) = (token(&answer.line), self.boot);
        self.sessions.push(Known {
            token,
            socket,
            scope,
            started: self.time,
            ends,
            boot,
            starter: life,
            owner: None,
            parent,
            revoked: false,
        });
        self.own(self.sessions.len() - 1, who);
    }

    fn sign(&mut self, who: usize, token: Option<usize>, kind: u16, fate: Fate) {
        let session = token.and_then(|token| self.pick(token));
        let with = session.map_or(String::new(), |s| format!(",\"session_token\":\"{}\"", self.sessions[s].token));
        let text = format!(r#"{{"method":"sign_event","params":{{"kind":{kind},"content":"c"{with}}}}}"#);
        let verdict = self.ask(who, &text);
        let grant = match verdict {
            Verdict::Sign(grant) => grant,
            Verdict::Limited(refusal, _) => {
                assert_eq!(refusal.error.code, Code::RateLimited);
                self.refused[usize::from(refusal.error.text.ends_with("for the whole socket"))] += 1;
                return assert!(!self.plain || self.is_full(who, session), "{}", refusal.error.text);
            }
            _ => return,
        };
        let Container { socket, life, .. } = self.containers[who];
        let wanted = format!("[0,\"{KEY}\",{},{kind},[],\"c\"]", self.now().wall_seconds());
        assert_eq!(grant.texts.canonical, wanted, "what was asked for");
        match session {
            Some(session) => {
                assert!(self.is_good(session, who), "a session was used by whom or when it is not for");
                assert!(self.sessions[session].scope.contains(&kind));
                // Its first use binds it. One that was bound before first sessions counted is none.
                if self.sessions[session].owner.is_none() {
                    self.sessions[session].owner = Some(life);
                    self.own(session, who);
                }
            }
            None => {
                assert!([1, 7].contains(&kind), "kind {kind} without a token");
                assert!(self.policy.sockets[usize::from(socket)].kinds.contains(kind));
                if let Some((first, until)) = self.held_to(life) {
                    assert!(first.contains(&kind) && self.time < *until, "beyond the first session, without a token");
                }
            }
        }
        if fate == Fate::DiesBefore {
            self.plain = false;
            return self.start_broker();
        }
        let now = self.gate_now();
        let (unix_ms, boot_s) = (now.wall / 1_000_000, (now.boot / 1_000_000_000) as u32);
        let over = fate != Fate::Refused && !self.ceiling.take(now.boot);
        self.refused[2] += u32::from(over);
        if over || fate == Fate::Refused {
            self.engine.free(grant.slot);
            return self.keep();
        }
        assert!(self.record.append(unix_ms, boot_s, 0, kind.into(), &[0; 32]));
        self.made.push(Made { at: self.time, boot: self.boot, forward: self.forward, socket, life, session });
        if fate == Fate::DiesAfter {
            self.start_broker();
        }
        self.judge();
    }

    /// Whether another signature would be one too many in some window.
    fn is_full(&self, who: usize, session: Option<usize>) -> bool {
        let Container { socket, life, .. } = self.containers[who];
        let full = |limits: Limits, counts: &dyn Fn(&Made) -> bool| {
            let used = |span| self.made.iter().filter(|m| self.time - m.at < span && counts(m)).count() as u32;
            used(1000 * limits.burst_window) >= limits.burst
                || used(60_000) >= limits.per_minute
                || used(HOUR) >= limits.per_hour
        };
        full(TOTAL, &|m| m.socket == socket)
            || full(LIMITS, &|m| m.life == life)
            || full(LIMITS, &|m| session.is_some() && m.session == session)
    }

    /// The last signature and those before it keep to every tier, in every window that ends with it.
    fn judge(&self) {
        let last = self.made.last().expect("one was made");
        let tier = |name: &str, limits: Limits, counts: &dyn Fn(&Made) -> bool| {
            let windows =
                [(1000 * limits.burst_window, limits.burst), (60_000, limits.per_minute), (HOUR, limits.per_hour)];
            for (span, most) in windows {
                let used = self.made.iter().filter(|m| last.at - m.at < span && counts(m)).count();
                assert!(used <= most as usize, "{used} of {most} in {span} ms: {name}");
            }
        };
        tier("the socket's total", TOTAL, &|m| m.socket == last.socket);
        tier("a principal", LIMITS, &|m| m.life == last.life);
        tier("a session", LIMITS, &|m| last.session.is_some() && m.session == last.session);
        for (i, first) in self.made.iter().enumerate() {
            // A clock that was set forward before a boot reads as time that has passed: a record has no other.
            let set = if first.boot == last.boot { 0 } else { last.forward - first.forward };
            let refilled = (last.at - first.at + set) / self.bucket.1;
            let used = (self.made.len() - i) as u64;
            assert!(
                used <= u64::from(self.bucket.0) + refilled + 1,
                "{used} of the account's ceiling, {refilled} refilled"
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_sequence_of_deeds_gains_a_signature(
        bucket in prop::sample::select(&BUCKETS[..]),
        deeds in prop::collection::vec(deed(), 1..400),
    ) {
        let mut world = World::new(bucket);
        for deed in &deeds {
            world.live_on(deed);
        }
    }
}

/// The lives above are worth something only if windows fill up in them, by every tier.
#[test]
fn control_the_lives_fill_every_tier() {
    let mut runner = TestRunner::deterministic();
    let (mut made, mut boots, mut refused) = (0, 0, [0; 3]);
    for round in 0..60 {
        let deeds = prop::collection::vec(deed(), 400).new_tree(&mut runner).expect("deeds").current();
        let mut world = World::new(BUCKETS[round % 2]);
        deeds.iter().for_each(|deed| world.live_on(deed));
        made += world.made.len();
        boots += world.boot;
        refused.iter_mut().zip(world.refused).for_each(|(sum, n)| *sum += n);
    }
    assert!(made > 2000 && boots > 50 && refused.iter().all(|n| *n > 200), "{made} made, {boots} boots, {refused:?}");
}
