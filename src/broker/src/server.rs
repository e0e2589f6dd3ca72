//! The event loop: one thread, one epoll, everything bounded.
//!
//! A request moves forward only: bytes, frame, call, decision, gate, reply. Must never wait for a client, a log or a
//! gate; every wait is an entry in epoll, in the queues or in the table of due times.

mod accept;
mod admin;
mod agreements;
mod ahead;
mod batch;
mod decided;
mod errands;
mod outside;
mod reload;
mod requests;
mod status;

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags, EpollTimeout};
use nsecd_policy::Policy;

use crate::agreement::Agreements;
use crate::alert::AlertLog;
use crate::clock::{Clock, Now};
use crate::connection::{Connection, Input, State};
use crate::crowd::{Crowd, FREE, Stand};
use crate::decisions::{DecisionLog, Noted};
use crate::errand::Errand;
use crate::gate::Gate;
use crate::journal::Journal;
use crate::policy::{Engine, Slot};
use crate::principal::{Peer, Principal};
use crate::queue::Queues;
use crate::reply::{Code, Error};
use crate::stalled::{Room, Stalled};
use crate::sys;
use crate::table::Table;
use crate::trying::Trying;
use accept::Parked;
pub use admin::CONNECTIONS as ADMIN_CONNECTIONS;
use admin::Desk;
use agreements::Waiting;
use ahead::Ahead;
use batch::Asking;
use errands::Trip;
use reload::{Pipe, Rest};

/// Milliseconds from a request's first byte to its last.
const REQUEST: u64 = 30_000;
/// Milliseconds for a client to take its reply.
const REPLY: u64 = 30_000;
/// Milliseconds between requests.
const IDLE: u64 = 300_000;
/// Milliseconds that the rest of an oversized request is discarded for, and the silence that ends it sooner.
const LINGER: u64 = 5_000;
const SILENCE: u64 = 250;
/// Milliseconds between looks at what has quietly ended.
const SWEEP: u64 = 10_000;
/// Milliseconds after which a gate that has not answered is taken for hung.
const HUNG: u64 = 10_000;
/// Milliseconds to finish what is in flight when told to end.
const DRAIN: u64 = 5_000;
/// Bytes received at a time.
const BUFFER: usize = 64 * 1024;
/// What one principal may have of a round, by the time that it takes others: bytes received, and three times the
/// bytes parsed.
const SHARE: usize = 96 * 1024;
/// Requests served from one connection before others have their turn.
const TURN: usize = 16;
/// Buffers of an oversized request that are discarded before others have theirs.
const DISCARDS: usize = 2;

/// What an epoll event is about: a class in the upper bits, an index or a connection's number below.
const LISTENER: u64 = 1 << 56;
const GATE: u64 = 2 << 56;
const CONTROL: u64 = 3 << 56;
const POLICY: u64 = 4 << 56;
const ECDH: u64 = 5 << 56;
const ADMIN: u64 = 6 << 56;
const CLASS: u64 = 0xff << 56;

/// Events of agents' that are served before it is looked whether the operator wants something.
const BEFORE_OPERATOR: usize = 32;

/// The end of the broker, in an operator's words; empty for the end that was asked for.
pub type End = String;

/// A connection and what is known of it elsewhere.
struct Client {
    connection: Connection,
    /// Events it is registered for; `None`: not registered, since a hang-up would be reported without end.
    interest: Option<EpollFlags>,
    /// Its entry in the table of due times.
    due: Option<u64>,
    /// How it stands in the crowd.
    stand: Stand,
    /// Bytes it is charged for.
    charged: usize,
    /// Whether it is put off until its principal has less at the gates.
    behind: bool,
    /// Whether it is being taken forward.
    moving: bool,
}

impl Client {
    /// One that is registered for its requests.
    fn new(connection: Connection, stand: Stand) -> Client {
        let interest = Some(EpollFlags::EPOLLIN);
        Client { connection, interest, due: None, stand, charged: 0, behind: false, moving: false }
    }
}

/// Why a connection goes no further for now.
enum Stop {
    /// It waits for something.
    Waits,
    /// Others have their turn.
    Later,
    /// Its principal has enough at the gates.
    Behind,
}

/// A signature under way: who asked, and what the reply needs.
struct Job {
    client: u64,
    who: Principal,
    account: usize,
    kind: u16,
    token: Option<String>,
    then: Then,
    /// Its line in the decision log.
    noted: Noted,
    /// What it counts while it is with the gate.
    weight: usize,
}

/// What a signature is for.
enum Then {
    /// The reply to sign_event.
    Event {
        slot: Box<Slot>,
        /// What the reply has of the event before its id and signature.
        unsigned: String,
        /// The reply's place among those that its connection is owed.
        place: u64,
    },
    /// The reply to the operator's own sign_event; what that has of the event, as above.
    Operators { unsigned: String },
    /// The next step of wrap_dm.
    Seal(Box<(Trip, Errand)>),
}

/// The broker's state.
pub struct Server<C: Clock> {
    clock: C,
    epoll: Epoll,
    policy: Policy,
    engine: Engine,
    journal: Journal,
    decisions: DecisionLog,
    /// `None`: the socket, or the account, is no more.
    listeners: Vec<Option<OwnedFd>>,
    /// The admin socket, its connections and what they may take.
    desk: Desk,
    alerts: Vec<Option<AlertLog>>,
    gates: Vec<Option<Gate<Job>>>,
    /// Where new policies come from.
    pipe: Pipe,
    /// While one comes.
    resting: Option<Rest>,
    /// To the ECDH holder, if there is one.
    agreements: Option<Agreements<(Trip, Errand)>>,
    /// Gift wraps that wait for room to fail, and agreements that the holder's ceiling puts off; how many may wait, and when
    /// one is tried again.
    unopened: Stalled<Waiting>,
    stalled: Stalled<Waiting>,
    room: Room,
    retry_at: u64,
    trying: Trying,
    /// The account that encryption is done with: its number and public key.
    encrypting: Option<(usize, String)>,
    control: OwnedFd,
    clients: Table<u64, Client>,
    /// Events of this round, before their gates are asked.
    asking: Vec<Asking>,
    /// What principals have there.
    ahead: Table<Principal, Ahead>,
    next_client: u64,
    crowd: Crowd,
    queues: Queues,
    /// (CLOCK_BOOTTIME ms, connection)
    due: BTreeSet<(u64, u64)>,
    next_sweep: u64,
    accepting: bool,
    /// By socket: a connection that was accepted when there was no place for it, and will be one soon. Until then that socket accepts no
    /// other.
    parked: Vec<Option<Parked>>,
    /// Whether the kernel tells a peer's cgroup.
    with_cgroup: bool,
    /// The process that connected last.
    last_peer: Option<Peer>,
    /// Connections refused since the last sweep because their process had ended.
    ended_before: u64,
    draining: Option<u64>,
    /// When it began to serve.
    since: Now,
    served: bool,
    buffer: Vec<u8>,
    /// What each principal has had of this round.
    eaten: Table<Principal, usize>,
    /// When the operator was last told that a gate refuses.
    told: u64,
}

/// The descriptors that the policy names, taken, and the one that they are all filed with.
pub struct Files {
    /// Made before the lock, which allows no other.
    pub epoll: Epoll,
    /// For the admin socket alone.
    pub admin_epoll: Epoll,
    /// The admin socket.
    pub admin: OwnedFd,
    /// To the supervisor.
    pub control: OwnedFd,
    /// The policy pipe; its end is the supervisor's.
    pub policy: OwnedFd,
    /// One for each socket.
    pub listeners: Vec<OwnedFd>,
    /// One for each socket.
    pub alerts: Vec<AlertLog>,
    /// One for each account.
    pub gates: Vec<OwnedFd>,
    /// To the ECDH holder, if there is one.
    pub ecdh: Option<OwnedFd>,
}

/// What the broker writes besides alerts.
pub struct Kept {
    /// What it has to remember.
    pub journal: Journal,
    /// What others have to know.
    pub decisions: DecisionLog,
}

impl<C: Clock> Server<C> {
    /// Everything in place, nothing served yet; `with_cgroup`: whether principals have a cgroup.
    ///
    /// # Errors
    /// epoll_ctl(2)'s.
    pub fn new(
        policy: Policy,
        engine: Engine,
        kept: Kept,
        files: Files,
        clock: C,
        with_cgroup: bool,
    ) -> nix::Result<Server<C>> {
        let (epoll, since) = (files.epoll, clock.now());
        let readable = |class, index: usize| EpollEvent::new(EpollFlags::EPOLLIN, class | index as u64);
        for (i, listener) in files.listeners.iter().enumerate() {
            epoll.add(listener, readable(LISTENER, i))?;
        }
        for (i, gate) in files.gates.iter().enumerate() {
            epoll.add(gate, readable(GATE, i))?;
        }
        if let Some(ecdh) = &files.ecdh {
            epoll.add(ecdh, readable(ECDH, 0))?;
        }
        epoll.add(&files.control, readable(CONTROL, 0))?;
        epoll.add(&files.policy, readable(POLICY, 0))?;
        epoll.add(&files.admin_epoll.0, readable(ADMIN, 0))?;
        let desk = Desk::new(files.admin_epoll, files.admin)?;
        let parked = policy.sockets.iter().map(|_| None).collect();
        Ok(Server {
            clock,
            epoll,
            engine,
            journal: kept.journal,
            decisions: kept.decisions,
            desk,
            listeners: files.listeners.into_iter().map(Some).collect(),
            alerts: files.alerts.into_iter().map(Some).collect(),
            gates: files.gates.into_iter().map(|gate| Some(Gate::new(gate))).collect(),
            pipe: Pipe::new(files.policy),
            resting: None,
            agreements: files.ecdh.map(Agreements::new),
            unopened: Stalled::default(),
            stalled: Stalled::default(),
            room: Room::beside(policy.max_connections, policy.max_connections_per_principal),
            retry_at: 0,
            trying: Trying::default(),
            encrypting: encrypting(&policy),
            control: files.control,
            clients: Table::default(),
            asking: Vec::new(),
            ahead: Table::default(),
            next_client: 0,
            crowd: Crowd::new(policy.max_connections, policy.max_connections_per_principal),
            policy,
            queues: Queues::default(),
            due: BTreeSet::new(),
            next_sweep: 0,
            accepting: true,
            parked,
            with_cgroup,
            last_peer: None,
            ended_before: 0,
            draining: None,
            since,
            served: false,
            buffer: vec![0; BUFFER],
            eaten: Table::default(),
            told: 0,
        })
    }

    /// Serves until told to end.
    pub fn run(&mut self) -> End {
        let mut events = vec![EpollEvent::empty(); 256];
        loop {
            let ready = match self.epoll.wait(&mut events, self.patience()) {
                Ok(ready) => ready,
                Err(Errno::EINTR) => 0,
                Err(e) => return format!("epoll_wait: {e}"),
            };
            if let Err(end) = self.round(&events[..ready]) {
                return end;
            }
        }
    }

    /// What happens between one wait and the next.
    fn round(&mut self, events: &[EpollEvent]) -> Result<(), End> {
        self.clock.look();
        self.eaten.clear();
        self.unpark();
        // Who comes to the admin socket meanwhile is told of in the next round, or has a turn in this one.
        let mut operator = events.iter().any(|event| event.data() & CLASS == ADMIN);
        for (n, event) in events.iter().enumerate() {
            if n > 0 {
                self.clock.look();
                operator |= n % BEFORE_OPERATOR == 0;
            }
            if std::mem::take(&mut operator) {
                self.serve_operator();
            }
            self.handle(event.data(), event.events())?;
        }
        self.commit();
        self.pass_time()?;
        self.commit();
        Ok(())
    }

    /// Until the next thing is due.
    fn patience(&self) -> EpollTimeout {
        if self.journal.is_busy() {
            return EpollTimeout::ZERO;
        }
        let now = self.clock.now().boot;
        let first = self.due.first().map_or(u64::MAX, |(due, _)| *due);
        // At rest nobody is tried.
        let waiting = self.queues.next().filter(|_| !self.is_at_rest()).unwrap_or(u64::MAX);
        let drained = self.draining.unwrap_or(u64::MAX);
        // While nobody is accepted nobody finds a place either.
        let parked = self.parked.iter().flatten().filter(|_| self.accepting);
        let parked = parked.map(Parked::due).min().unwrap_or(u64::MAX);
        let due = first
            .min(parked)
            .min(waiting)
            .min(self.gates_due())
            .min(self.agreements_due())
            .min(self.next_sweep)
            .min(drained);
        if due <= now {
            return EpollTimeout::ZERO;
        }
        // One more than the rest, since milliseconds are rounded down.
        let left = due.saturating_sub(now).saturating_add(1).min(60_000);
        EpollTimeout::try_from(i32::try_from(left).unwrap_or(60_000)).unwrap_or(EpollTimeout::ZERO)
    }

    /// When a gate that has something to answer would be taken for hung.
    fn gates_due(&self) -> u64 {
        let since = self.gates.iter().flatten().filter_map(Gate::waiting_since).min();
        since.map_or(u64::MAX, |since| since.saturating_add(HUNG))
    }

    fn handle(&mut self, data: u64, events: EpollFlags) -> Result<(), End> {
        let index = (data & !CLASS) as usize;
        match data & CLASS {
            LISTENER => self.accept(index),
            GATE => self.gate_ready(index)?,
            ECDH => self.agreements_ready()?,
            CONTROL => self.control_ready()?,
            POLICY => self.policy_ready()?,
            // It has its own turns.
            ADMIN => {}
            _ => self.client_ready(data, events),
        }
        Ok(())
    }

    /// A client's socket is ready.
    fn client_ready(&mut self, id: u64, events: EpollFlags) {
        let now = self.clock.now();
        let Some(who) = self.clients.get(&id).map(|c| c.connection.who) else { return };
        let sated = self.is_sated(who);
        if self.stays_behind(id, events) {
            return;
        }
        let Some(client) = self.clients.get_mut(&id) else { return };
        match client.connection.state {
            State::Waiting { .. } | State::Signing { .. } | State::Agreeing { .. } => {
                // Nothing is read now: whoever sends all the same is not reported again before its reply.
                let epoll = if who.is_operator() { &self.desk.epoll } else { &self.epoll };
                let mut none = EpollEvent::new(EpollFlags::empty(), id);
                if client.interest == Some(EpollFlags::EPOLLIN) && epoll.modify(&client.connection, &mut none).is_ok() {
                    client.interest = Some(EpollFlags::empty());
                }
                // A hang-up is reported even so, and again and again.
                let gone = events.intersects(EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR);
                if gone && (matches!(client.connection.state, State::Waiting { .. }) || self.abandon(id)) {
                    self.close(id);
                } else if gone && let Some(client) = self.clients.get_mut(&id) {
                    // Gate or ECDH holder has it: its place stays taken until then, or the gone would be without number.
                    let epoll = if who.is_operator() { &self.desk.epoll } else { &self.epoll };
                    let _ = epoll.delete(&client.connection);
                    client.interest = None;
                }
                return;
            }
            State::Replying => {}
            // Its turn comes in the next round: epoll reports it again.
            State::Reading if client.connection.backlog || sated => return,
            State::Reading => {
                // Where the budget is used up only what is free: more than one request of each, sent ahead, would be over it.
                let crowd = if who.is_operator() { &self.desk.crowd } else { &self.crowd };
                let most = if crowd.has_room(who, BUFFER) { BUFFER } else { FREE };
                if let Input::Bytes(n) = client.connection.receive(&mut self.buffer[..most], now.boot) {
                    *self.eaten.entry(who).or_default() += n;
                }
            }
            State::Lingering { .. } => {
                let mut turns = 0;
                loop {
                    match client.connection.receive(&mut self.buffer, now.boot) {
                        Input::Bytes(_) if turns < DISCARDS => turns += 1,
                        Input::Bytes(_) | Input::Nothing => break,
                        Input::End => return self.close(id),
                    }
                }
            }
        }
        self.advance(id);
    }

    /// Takes a connection as far as it goes without waiting, then files it under what it waits for.
    fn advance(&mut self, id: u64) {
        let Some(client) = self.clients.get_mut(&id) else { return };
        // While a request is decided, one before it may be answered: whoever is there goes on.
        if std::mem::replace(&mut client.moving, true) {
            return;
        }
        let stop = self.go_forward(id);
        if let Some(client) = self.clients.get_mut(&id) {
            client.moving = false;
        }
        match stop {
            Stop::Waits => self.file(id),
            Stop::Later => self.later(id),
            Stop::Behind => self.stay_behind(id),
        }
    }

    fn go_forward(&mut self, id: u64) -> Stop {
        for _ in 0..TURN {
            let Some(client) = self.clients.get(&id) else { return Stop::Waits };
            let who = client.connection.who;
            let (sated, ahead) = (self.is_sated(who), self.is_ahead(who));
            let on = match client.connection.state {
                State::Reading if ahead && client.connection.has_more() => return Stop::Behind,
                State::Reading if sated && client.connection.has_more() => return Stop::Later,
                State::Reading => self.read(id),
                // Called again when its replies come. For one that has hung up nothing more is begun.
                State::Signing { .. } if !client.connection.looks_ahead() || client.interest.is_none() => false,
                State::Signing { .. } if !ahead && !sated && self.is_open() => self.read(id),
                State::Replying => self.write(id),
                State::Waiting { .. } | State::Signing { .. } | State::Agreeing { .. } | State::Lingering { .. } => {
                    false
                }
            };
            if !on {
                return Stop::Waits;
            }
        }
        Stop::Later
    }

    /// Others first: what is buffered here has no event of its own, so it is due at once, and nothing more is read.
    fn later(&mut self, id: u64) {
        if let Some(client) = self.clients.get_mut(&id) {
            client.connection.backlog = true;
        }
        self.file(id);
        self.set_due(id, Some(0));
    }

    /// Whether a principal has had its share of this round.
    fn is_sated(&self, who: Principal) -> bool {
        self.eaten.get(&who) >= Some(&SHARE)
    }

    /// Whether requests are decided as they come: neither is the end near, nor does everything wait for a new policy.
    fn is_open(&self) -> bool {
        self.draining.is_none() && !self.is_at_rest()
    }

    /// Sends a reply's rest; true if the connection can go on.
    fn write(&mut self, id: u64) -> bool {
        let now = self.clock.now().boot;
        let Some(client) = self.clients.get_mut(&id) else { return false };
        let connection = &mut client.connection;
        match connection.send() {
            Ok(false) => return false,
            Ok(true) if connection.last && connection.next.is_none() => self.farewell(id, now),
            Ok(true) => {
                connection.state = State::Reading;
                connection.began = None;
                connection.heard = now;
                if self.draining.is_some() {
                    self.close(id);
                } else if !self.accepting {
                    // This one is idle now, and may give way.
                    self.file(id);
                    self.resume_accepting();
                }
            }
            Err(_) => self.close(id),
        }
        true
    }

    /// Sends replies whose turn has come to a connection that is owed more. Whether the client takes them shows with the last.
    fn send_early(&mut self, id: u64) {
        if let Some(client) = self.clients.get_mut(&id)
            && client.connection.owes()
        {
            let _ = client.connection.send();
        }
    }

    /// Closes after a last reply. What the client has sent meanwhile is taken first: closing over unread bytes
    /// would turn its end of file into a reset.
    fn farewell(&mut self, id: u64, now: u64) {
        let Some(client) = self.clients.get_mut(&id) else { return };
        let connection = &mut client.connection;
        connection.state = State::Lingering { until: now + LINGER };
        if connection.linger && !connection.ended {
            return;
        }
        for _ in 0..TURN {
            match connection.receive(&mut self.buffer, now) {
                Input::Bytes(_) => {}
                Input::Nothing | Input::End => return self.close(id),
            }
        }
    }

    /// Files a connection under the events and times it waits for, and charges it for what it holds.
    fn file(&mut self, id: u64) {
        let Some(client) = self.clients.get_mut(&id) else { return };
        let connection = &client.connection;
        let who = connection.who;
        let (crowd, epoll) = match who.is_operator() {
            true => (&mut self.desk.crowd, &self.desk.epoll),
            false => (&mut self.crowd, &self.epoll),
        };
        let (charged, within) = crowd.charge(who, client.charged, connection.weight());
        client.charged = charged;
        let stand = match connection.state {
            State::Reading if connection.is_idle() => Stand::Idle(connection.heard),
            State::Reading if connection.backlog => Stand::Moving,
            State::Reading => Stand::Partial(connection.heard),
            State::Signing { .. } => Stand::Moving,
            State::Replying => Stand::Unread(connection.heard),
            _ => Stand::Busy,
        };
        crowd.stand(id, who, client.stand, stand);
        client.stand = stand;
        let (wanted, due) = match connection.state {
            State::Reading => {
                let due = connection.began.map_or(connection.heard + IDLE, |began| began + REQUEST);
                let wanted = if connection.backlog { EpollFlags::empty() } else { EpollFlags::EPOLLIN };
                (wanted, Some(due))
            }
            State::Replying => (EpollFlags::EPOLLOUT, Some(connection.heard + REQUEST + REPLY)),
            State::Lingering { until } => {
                let silence = if connection.linger { connection.heard + SILENCE } else { until };
                (EpollFlags::EPOLLIN, Some(until.min(silence)))
            }
            // What waits for a slot has its times in the queues.
            State::Signing { .. } | State::Agreeing { .. } | State::Waiting { .. } => (EpollFlags::empty(), None),
        };
        let event = EpollEvent::new(wanted, id);
        let done = match client.interest {
            Some(interest) if interest == wanted => Ok(()),
            // Most send nothing before their reply: epoll is told of those that do.
            Some(EpollFlags::EPOLLIN) if wanted.is_empty() && due.is_none() => return self.set_due(id, due),
            Some(_) => epoll.modify(connection, &mut { event }),
            // Taken out for its hang-up: back only to find out that the reply cannot be sent.
            None if wanted.is_empty() => Ok(()),
            None => epoll.add(connection, event),
        };
        client.interest = if client.interest.is_none() && wanted.is_empty() { None } else { Some(wanted) };
        let partial = matches!(connection.state, State::Reading);
        self.set_due(id, due);
        if done.is_err() {
            self.close(id);
        } else if !within && partial {
            let text = "Too many bytes held by unfinished requests: try again later";
            self.refuse(id, Error::new(Code::Unavailable, text), true);
            self.advance(id);
        }
    }

    fn set_due(&mut self, id: u64, due: Option<u64>) {
        let Some(client) = self.clients.get_mut(&id) else { return };
        if client.due == due {
            return;
        }
        if let Some(before) = std::mem::replace(&mut client.due, due) {
            self.due.remove(&(before, id));
        }
        if let Some(due) = due {
            self.due.insert((due, id));
        }
    }

    /// Gives back what connections have left behind, that is a small block above many that are free.
    fn give_back_memory(&mut self) {
        if self.crowd.has_shrunk() {
            sys::give_back_what_is_free();
        }
    }

    /// Ends a connection, whatever it was doing. A signature under way goes on and counts.
    fn close(&mut self, id: u64) {
        let Some(client) = self.clients.remove(&id) else { return };
        let who = client.connection.who;
        if let Some(due) = client.due {
            self.due.remove(&(due, id));
        }
        let crowd = if who.is_operator() { &mut self.desk.crowd } else { &mut self.crowd };
        crowd.leave(id, who, client.stand, client.charged);
        if matches!(client.connection.state, State::Waiting { .. }) {
            self.queues.leave(who, id);
        }
        drop(client);
        if who.is_operator() {
            return self.resume_operators();
        }
        if !self.accepting && self.draining.is_none() {
            self.resume_accepting();
        }
    }

    /// What time does: deadlines, waits that are over, forgetting.
    fn pass_time(&mut self) -> Result<(), End> {
        let now = self.clock.now();
        // Those due now and no more: a client whose next requests are due at once must not keep the others waiting.
        let due: Vec<u64> = self.due.iter().take_while(|(due, _)| *due <= now.boot).map(|(_, id)| *id).collect();
        for id in due {
            self.set_due(id, None);
            self.time_out(id, now);
        }
        if self.is_at_rest() {
            self.note_quiet();
        } else {
            for socket in self.queues.sockets() {
                self.serve_waiting(socket);
            }
            self.end_patience();
        }
        // A signature takes a hundred microseconds: a gate this late has stopped, and is replaced with us.
        if now.boot >= self.gates_due() {
            return Err("a gate does not answer".to_owned());
        }
        if now.boot >= self.next_sweep {
            self.next_sweep = now.boot + SWEEP;
            self.engine.sweep(now);
            self.trying.sweep(now.boot);
            self.keep();
            self.give_back_memory();
            self.decisions.sweep(now);
            for alerts in self.alerts.iter_mut().flatten() {
                alerts.flush(now);
            }
            // Descriptors may have been lacking, and be there again.
            self.resume_operators();
            let ended = std::mem::take(&mut self.ended_before);
            if ended > 0 {
                self.decisions.nameless("peer_ended", ended, now);
                log::info!("{ended} connections refused: the processes that made them had ended");
            }
            if !self.accepting && self.draining.is_none() {
                self.resume_accepting();
            }
        }
        self.renew_journal(now);
        self.renew_decisions(now);
        self.retry_agreements(now);
        match self.draining {
            Some(until) if self.clients.is_empty() || now.boot >= until => {
                self.decisions.close(now);
                Err(End::new())
            }
            _ => Ok(()),
        }
    }

    fn time_out(&mut self, id: u64, now: Now) {
        let Some(client) = self.clients.get_mut(&id) else { return };
        let connection = &client.connection;
        match connection.state {
            State::Reading if connection.began.is_some_and(|began| now.boot >= began + REQUEST) => {
                let text = format!("Request not complete within {} s", REQUEST / 1000);
                self.refuse(id, Error::new(Code::BadRequest, text), true);
                self.advance(id);
            }
            State::Reading if connection.is_idle() && self.draining.is_some() => self.close(id),
            State::Reading if connection.is_idle() && now.boot >= connection.heard + IDLE => self.close(id),
            State::Replying if now.boot >= connection.heard + REQUEST + REPLY => self.close(id),
            // More of its buffered requests.
            State::Reading | State::Replying => self.advance(id),
            State::Lingering { .. } => self.close(id),
            State::Waiting { .. } | State::Signing { .. } | State::Agreeing { .. } => {}
        }
    }
}

/// The account that encryption is done with: its number and public key.
fn encrypting(policy: &Policy) -> Option<(usize, String)> {
    let found = policy.accounts.iter().position(|a| a.name == policy.default_account)?;
    Some((found, policy.accounts[found].public_key.clone()))
}

#[cfg(test)]
mod tests;
