//! A new configuration, taken over while clients stay connected: rest, take over, go on.
//!
//! At rest nothing is asked of gates or ECDH holder, and what clients ask meanwhile is held, in its order: between the old
//! policy and the new one there is nobody who has half of each. Must never take over half of a configuration.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::fd::OwnedFd;

use nix::sys::epoll::{EpollEvent, EpollFlags};
use nsecd_policy::control::Control;
use nsecd_policy::reload::Reload;

use super::requests::too_much_held;
use super::{End, GATE, LISTENER, Server};
use crate::admin::Order;
use crate::alert::AlertLog;
use crate::clock::Clock;
use crate::connection::State;
use crate::gate::Gate;
use crate::reply::Code;
use crate::request::Call;

/// The largest configuration: as at the start.
const MAX_RELOAD: usize = crate::start::MAX_POLICY;

/// What the broker has while it rests.
#[derive(Default)]
pub(super) struct Rest {
    /// Whether the supervisor has been told that nothing is in flight. From then on a gate may end.
    quiet: bool,
    /// Connections whose request is held, first come first.
    held: VecDeque<u64>,
    /// Events of the operator's own, likewise.
    orders: Vec<(u64, Order)>,
    /// Descriptors that came for the new configuration, by number of the socket or account.
    listeners: BTreeMap<u16, OwnedFd>,
    alerts: BTreeMap<u16, OwnedFd>,
    gates: BTreeMap<u16, OwnedFd>,
}

/// The policy pipe, after the first policy.
pub(super) struct Pipe {
    file: File,
    /// Of a configuration that is not complete yet.
    bytes: Vec<u8>,
}

impl Pipe {
    pub fn new(fd: OwnedFd) -> Pipe {
        Pipe { file: fd.into(), bytes: Vec::new() }
    }

    /// Takes what is there, once; a configuration that is complete by now.
    fn receive(&mut self, buffer: &mut [u8]) -> Result<Option<Reload>, End> {
        match self.file.read(buffer) {
            Ok(0) => return Err("the supervisor is gone".to_owned()),
            Ok(n) => self.bytes.extend_from_slice(&buffer[..n]),
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => return Ok(None),
            Err(e) => return Err(format!("receiving a configuration: {e}")),
        }
        let Some((length, rest)) = self.bytes.split_first_chunk() else { return Ok(None) };
        let length = u32::from_be_bytes(*length) as usize;
        if length > MAX_RELOAD || rest.len() > length {
            return Err("the supervisor sent no configuration".to_owned());
        }
        if rest.len() < length {
            return Ok(None);
        }
        let reload = serde_json::from_slice(rest).map_err(|e| format!("the configuration: {e}"))?;
        self.bytes = Vec::new();
        Ok(Some(reload))
    }
}

impl<C: Clock> Server<C> {
    /// Begins to rest.
    pub(super) fn rest(&mut self) {
        self.resting.get_or_insert_with(Rest::default);
    }

    /// Whether requests are held.
    pub(super) fn is_at_rest(&self) -> bool {
        self.resting.is_some()
    }

    /// A descriptor for the new configuration.
    pub(super) fn descriptor_came(&mut self, frame: Control, fd: Option<OwnedFd>) {
        let Some((rest, fd)) = self.resting.as_mut().zip(fd) else { return };
        match frame {
            Control::NewListener(i) => rest.listeners.insert(i, fd),
            Control::NewAlerts(i) => rest.alerts.insert(i, fd),
            Control::NewGate(i) => rest.gates.insert(i, fd),
            _ => None,
        };
    }

    /// Keeps a call until the rest is over.
    pub(super) fn hold(&mut self, id: u64, call: Call) {
        if !self.afford(id, call.weight()) {
            return self.refuse(id, too_much_held(), false);
        }
        if let (Some(rest), Some(client)) = (&mut self.resting, self.clients.get_mut(&id)) {
            client.connection.state = State::Waiting { call: Box::new(call) };
            rest.held.push_back(id);
        }
    }

    /// Keeps an event of the operator's, likewise.
    pub(super) fn hold_order(&mut self, id: u64, order: Order) {
        if let (Some(rest), Some(client)) = (&mut self.resting, self.clients.get_mut(&id)) {
            client.connection.state = State::Agreeing { weight: 0 };
            rest.orders.push((id, order));
        }
    }

    /// Says once that nothing is in flight.
    pub(super) fn note_quiet(&mut self) {
        let asked = !self.asking.is_empty()
            || self.gates.iter().flatten().any(|gate| gate.waiting_since().is_some())
            || self.agreements.as_ref().is_some_and(|a| a.waiting_since().is_some());
        if let Some(rest) = self.resting.as_mut().filter(|rest| !rest.quiet && !asked) {
            rest.quiet = true;
            self.tell(Control::Quiet);
        }
    }

    /// Whether this gate's end is what the supervisor was told it may be; then it is taken out.
    pub(super) fn gate_may_end(&mut self, index: usize) -> bool {
        let may = self.resting.as_ref().is_some_and(|rest| rest.quiet);
        if may && let Some(gate) = self.gates.get_mut(index) {
            *gate = None;
        }
        may
    }

    /// The policy pipe has something, or has ended.
    pub(super) fn policy_ready(&mut self) -> Result<(), End> {
        let mut buffer = std::mem::take(&mut self.buffer);
        let came = self.pipe.receive(&mut buffer);
        self.buffer = buffer;
        let Some(reload) = came? else { return Ok(()) };
        // What belongs to it was sent before.
        self.control_ready()?;
        match self.take_over(reload)? {
            None => {
                self.tell(Control::Reloaded);
                self.go_on()
            }
            // The supervisor gives the gates of before, and lets us go on.
            Some(why) => {
                log::error!("the new configuration is not taken over: {why}");
                self.tell(Control::NotReloaded);
                Ok(())
            }
        }
    }

    /// The rest is over, and nothing has changed but gates that had ended.
    pub(super) fn resume(&mut self) -> Result<(), End> {
        let Some(rest) = &mut self.resting else { return Ok(()) };
        let gates = std::mem::take(&mut rest.gates);
        self.take_gates(gates)?;
        self.go_on()
    }

    /// Everything is there, or nothing is changed; then why.
    fn take_over(&mut self, reload: Reload) -> Result<Option<&'static str>, End> {
        let now = self.clock.now();
        let Reload { mut policy, gone_sockets, uid, digest } = reload;
        // Of itself the supervisor does not tell it.
        policy
            .processes
            .extend(self.policy.processes.iter().find(|process| process.name == crate::start::OWN_NAME).cloned());
        let Some(rest) = self.resting.as_mut().filter(|rest| rest.quiet) else { return Ok(Some("not at rest")) };
        let index = |i: usize| u16::try_from(i).unwrap_or(u16::MAX);
        let served = |i: &usize| !gone_sockets.contains(&index(*i));
        let listens =
            |i: usize| self.listeners.get(i).is_some_and(Option::is_some) || rest.listeners.contains_key(&index(i));
        let alerts = |i: usize| self.alerts.get(i).is_some_and(Option::is_some) || rest.alerts.contains_key(&index(i));
        let gate = |i: usize| self.gates.get(i).is_some_and(Option::is_some) || rest.gates.contains_key(&index(i));
        let fewer =
            policy.sockets.len() < self.policy.sockets.len() || policy.accounts.len() < self.policy.accounts.len();
        if fewer
            || !(0..policy.sockets.len()).filter(served).all(|i| listens(i) && alerts(i))
            || !(0..policy.accounts.len()).filter(|i| !policy.accounts[*i].name.is_empty()).all(gate)
        {
            return Ok(Some("a descriptor is missing"));
        }
        if !self.can_keep(now) || !self.can_log(now) {
            return Ok(Some("the journal or the decision log cannot be written"));
        }
        let Some(rest) = self.resting.as_mut() else { return Ok(Some("not at rest")) };
        let (mut listeners, mut alerts) = (std::mem::take(&mut rest.listeners), std::mem::take(&mut rest.alerts));
        let gates = std::mem::take(&mut rest.gates);
        self.take_gates(gates)?;
        for i in 0..policy.sockets.len() {
            if i >= self.parked.len() {
                self.listeners.push(None);
                self.alerts.push(None);
                self.parked.push(None);
            }
            if let Some(file) = alerts.remove(&index(i)) {
                self.alerts[i] = Some(AlertLog::new(file.into(), policy.sockets[i].alert_size, policy.log_size));
            }
            if let Some(listener) = listeners.remove(&index(i)) {
                if self.accepting {
                    let event = EpollEvent::new(EpollFlags::EPOLLIN, LISTENER | i as u64);
                    self.epoll.add(&listener, event).map_err(|e| format!("epoll_ctl: {e}"))?;
                }
                self.listeners[i] = Some(listener);
                // It may have been of a socket that had this number.
                self.last_peer = None;
            }
        }
        for (i, _) in policy.accounts.iter().enumerate().filter(|(_, account)| account.name.is_empty()) {
            self.gates[i] = None;
        }
        self.engine.adopt(policy.clone(), now);
        self.decisions.adopt(&policy, uid, digest, now);
        let before = std::mem::replace(&mut self.policy, policy);
        self.crowd.limit(self.policy.max_connections, self.policy.max_connections_per_principal);
        self.encrypting = super::encrypting(&self.policy);
        self.keep();
        self.let_go(&before, &gone_sockets);
        Ok(None)
    }

    fn take_gates(&mut self, gates: BTreeMap<u16, OwnedFd>) -> Result<(), End> {
        for (i, fd) in gates {
            let i = usize::from(i);
            while self.gates.len() <= i {
                self.gates.push(None);
            }
            let event = EpollEvent::new(EpollFlags::EPOLLIN, GATE | i as u64);
            // The old one leaves epoll by being closed.
            self.gates[i] = None;
            self.epoll.add(&fd, event).map_err(|e| format!("epoll_ctl: {e}"))?;
            self.gates[i] = Some(Gate::new(fd));
        }
        Ok(())
    }

    /// Whoever is connected where nobody may be any more, and errands that would not set out any more.
    fn let_go(&mut self, before: &nsecd_policy::Policy, gone: &[u16]) {
        let now = self.clock.now();
        let stays = |policy: &nsecd_policy::Policy, who: crate::principal::Principal| {
            let socket = policy.sockets.get(usize::from(who.socket));
            who.is_operator()
                || !gone.contains(&who.socket) && socket.is_some_and(|s| who.may_connect(s.peer_uids.as_deref()))
        };
        for i in gone.iter().map(|i| usize::from(*i)) {
            self.listeners[i] = None;
            self.alerts[i] = None;
            self.parked[i] = None;
        }
        let leaving = self.clients.iter().filter(|(_, c)| !stays(&self.policy, c.connection.who));
        for id in leaving.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.abandon(id);
            self.close(id);
        }
        for client in self.clients.values_mut().filter(|client| !client.connection.who.is_operator()) {
            let max_request = self.policy.sockets[usize::from(client.connection.who.socket)].max_request;
            client.connection.framer.limit(max_request);
        }
        let changed: Vec<bool> = (self.policy.sockets.iter().enumerate())
            .map(|(i, s)| before.sockets.get(i).is_some_and(|b| (&b.methods, &b.peers) != (&s.methods, &s.peers)))
            .collect();
        let text = "the configuration was changed meanwhile: ask again";
        self.send_away(
            |trip| changed.get(usize::from(trip.who.socket)) == Some(&true),
            |_, trip, _| trip.method.failure(Code::Unavailable, text),
            now,
        );
    }

    /// What was held has its turn.
    fn go_on(&mut self) -> Result<(), End> {
        if let Some(i) =
            self.gates.iter().zip(&self.policy.accounts).position(|(g, a)| g.is_none() && !a.name.is_empty())
        {
            return Err(format!("the gate of account {} is gone", self.policy.accounts[i].name));
        }
        let Some(rest) = self.resting.take() else { return Ok(()) };
        for id in rest.held {
            let Some(call) = self.take_waiting(id) else { continue };
            self.decide(id, *call);
            self.advance(id);
        }
        for (id, order) in rest.orders {
            let Some(client) = self.clients.get_mut(&id) else { continue };
            client.connection.state = State::Reading;
            self.obey(id, order);
            self.advance(id);
        }
        self.retry_at = 0;
        Ok(())
    }
}
