//! A configuration that is to come into force: everything that it takes is made beforehand, beside what is in use, so that whatever
//! fails leaves all as it was.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use nsecd_policy::control::Control;
use nsecd_policy::reload::Reload;
use nsecd_policy::{Kinds, Policy, Process, Record as Rows};
use sha2::{Digest, Sha256};

use super::changes::{fixed, needs_gate};
use crate::activation;
use crate::alertlog::AlertLog;
use crate::config::{Config, Socket, Source};
use crate::fault::Fault;
use crate::freeze::Freeze;
use crate::handover;
use crate::holders::{self, Holder, Means};
use crate::keyring;
use crate::keysource::KeySource;
use crate::listeners::{Access, Listener};
use crate::names::Names;
use crate::numbers::Numbers;
use crate::ready::NotReady;
use crate::record::{self, Record};
use crate::service::{Gate, Gated, Service, gated, process, start_gates};
use crate::setup::{self, Setup};
use crate::sys::Inherited;
use crate::uids::Ids;

/// Longest time that new key-holders may take: no key that is found at a reload comes from a pipe.
const KEY_PATIENCE: Duration = Duration::from_secs(10);
/// Descriptors that a broker has room for beyond those it was started with (`nsecd_broker::start`).
const ROOM: usize = 32;

/// A configuration with all that it takes.
pub struct Plan {
    config: Box<Config>,
    digest: String,
    sockets: Vec<Door>,
    accounts: Vec<Key>,
    numbers: Numbers,
    /// Old indices of accounts whose gate has been ended; the one that took its place, if there is one, is in the service already.
    replaced: Vec<usize>,
    /// The broker's ends of the pairs to gates that it does not know, by index; beside each the gate, if the account is new.
    gates: Vec<(usize, OwnedFd, Option<Gate>)>,
    /// Serial numbers of keys to be taken out of the keyring.
    consume: Vec<i32>,
}

/// A socket of the new configuration.
struct Door {
    /// Its index in the old one.
    kept: Option<usize>,
    access: Access,
    listener: Option<Listener>,
    alerts: Option<AlertLog>,
}

/// An account of the new configuration.
enum Key {
    /// Its index in the old one.
    Kept(usize),
    New(Box<Fresh>),
}

struct Fresh {
    holder: Holder,
    record: Record,
    freeze: Freeze,
    ids: [Option<Ids>; 2],
}

impl Plan {
    /// Reads the configuration again and makes what is new in it.
    ///
    /// # Errors
    /// Those of a start; keys that a reload cannot change. Whatever had been made is gone again.
    pub fn prepare(setup: &mut Setup, service: &Service) -> Result<Plan, NotReady> {
        let (mut config, text) = setup.start.again(&setup.config).map_err(|e| Fault::new(e.to_string()))?;
        let fixed = fixed(&setup.config, &config);
        if !fixed.is_empty() {
            return Err(Fault::new(format!("needs a restart: {}", fixed.join("; "))).into());
        }
        // It keeps what it was started with, and what was in force for it.
        config.ecdh.clone_from(&setup.config.ecdh);
        let digest: String = Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect();
        let sockets = config.sockets.iter().map(|s| door(setup, s)).collect::<Result<Vec<_>, Fault>>()?;
        let mut plan = Plan {
            config: Box::new(config),
            digest,
            sockets,
            accounts: Vec::new(),
            numbers: Numbers::default(),
            replaced: Vec::new(),
            gates: Vec::new(),
            consume: Vec::new(),
        };
        plan.make_accounts(setup)?;
        plan.look_for_one_file_in_two_roles(setup)?;
        let keys: Vec<&str> = (0..plan.accounts.len()).map(|i| plan.holder(setup, i).public_key.as_str()).collect();
        plan.numbers = service.numbers.with(&plan.config, &keys);
        let descriptors = 2 * plan.sockets.len() + plan.accounts.len();
        if descriptors > service.descriptors + ROOM {
            return Err(Fault::new(
                "needs a restart: more new sockets and accounts than the broker has descriptors for",
            )
            .into());
        }
        Ok(plan)
    }

    fn make_accounts(&mut self, setup: &mut Setup) -> Result<(), NotReady> {
        let kept = |name: &str| setup.config.accounts.iter().position(|a| a.name == name);
        let indices: Vec<Option<usize>> = self.config.accounts.iter().map(|a| kept(&a.name)).collect();
        let credentials = setup.start.environment.credentials_directory.clone();
        let (mut keyed, mut made) = (Vec::new(), Vec::new());
        for account in self.config.accounts.iter().zip(&indices).filter(|(_, kept)| kept.is_none()).map(|(a, _)| a) {
            if account.source.iter().any(|source| matches!(source, Source::Fd(_))) {
                let text = format!(
                    "needs a restart: account {}: source = \"fd:…\", which only the start of nsecd can hand over",
                    account.name
                );
                return Err(Fault::new(text).into());
            }
            let ids = setup.ids.another()?;
            let full = record::full(&self.config, &[account.ceiling, account.seal_ceiling.flatten()]);
            let record = Record::open(&setup.state, &account.name, ids[1], full)?;
            let freeze = Freeze::open(setup.state.dir(), &account.name)?;
            let source = KeySource::open(account, credentials.as_deref(), &mut Inherited::new())?;
            if let KeySource::Keyring(serial) = source
                && account.consume
            {
                self.consume.push(serial);
            }
            keyed.push((account, ids[0], source));
            made.push((record, freeze, ids));
        }
        let Setup { images, ids, standard, signals, .. } = setup;
        let means = Means { config: &self.config, images, ids, standard, signals };
        let holders = holders::start(&means, keyed, KEY_PATIENCE)?;
        let mut fresh = holders
            .into_iter()
            .zip(made)
            .map(|(holder, (record, freeze, ids))| Key::New(Box::new(Fresh { holder, record, freeze, ids })));
        self.accounts = indices.iter().filter_map(|kept| kept.map(Key::Kept).or_else(|| fresh.next())).collect();
        let all: Vec<&Holder> = (0..self.accounts.len()).map(|i| self.holder(setup, i)).collect();
        Ok(holders::refuse_same_key(&all)?)
    }

    fn look_for_one_file_in_two_roles(&self, setup: &Setup) -> Result<(), Fault> {
        let logs = self
            .sockets
            .iter()
            .filter_map(|door| door.alerts.as_ref().or_else(|| door.kept.and_then(|i| setup.alert_logs.get(i))));
        let records = (0..self.accounts.len()).map(|i| self.record(setup, i)).chain(&setup.ecdh_record);
        setup::distinct(logs, records, &setup.journal, &setup.decisions)
    }

    fn holder<'a>(&'a self, setup: &'a Setup, index: usize) -> &'a Holder {
        match &self.accounts[index] {
            Key::Kept(i) => &setup.holders[*i],
            Key::New(fresh) => &fresh.holder,
        }
    }

    fn record<'a>(&'a self, setup: &'a Setup, index: usize) -> &'a Record {
        match &self.accounts[index] {
            Key::Kept(i) => &setup.records[*i],
            Key::New(fresh) => &fresh.record,
        }
    }

    /// An account's gate as this configuration wants it.
    fn gated<'a>(&'a self, setup: &'a Setup, index: usize) -> Gated<'a> {
        let account = &self.config.accounts[index];
        match &self.accounts[index] {
            Key::Kept(i) => Gated { account, ..gated(setup, *i) },
            Key::New(fresh) => {
                let Fresh { holder, record, freeze, ids } = &**fresh;
                Gated { account, holder, record, freeze, ids: ids[1] }
            }
        }
    }

    /// Whether the account with this index in the old configuration is in this one.
    pub fn keeps(&self, index: usize) -> bool {
        self.accounts.iter().any(|key| matches!(key, Key::Kept(i) if *i == index))
    }

    /// Freezes the accounts that are new, since all are to be frozen; or thaws them.
    pub fn freeze(&mut self, setup: &Setup, frozen: bool) {
        let dir = setup.state.dir();
        for key in &mut self.accounts {
            let Key::New(fresh) = key else { continue };
            if let Err(why) = if frozen { fresh.freeze.freeze(dir) } else { fresh.freeze.thaw(dir) } {
                log::error!("{why}");
            }
        }
    }

    /// Whether the gate of a new account that is frozen may be using its key: it began before.
    pub fn uses_frozen_key(&mut self) -> bool {
        self.gates.iter_mut().any(|(index, _, gate)| match (&self.accounts[*index], gate) {
            (Key::New(fresh), Some(gate)) => fresh.freeze.since().is_some() && gate.uses_key(),
            _ => false,
        })
    }

    /// Old indices of accounts whose gate is replaced.
    fn to_replace(&self, setup: &Setup) -> Vec<usize> {
        let changed = |(key, account): (&Key, _)| match key {
            Key::Kept(i) if needs_gate(&setup.config.accounts[*i], account) => Some(*i),
            _ => None,
        };
        self.accounts.iter().zip(&self.config.accounts).filter_map(changed).collect()
    }

    /// With a broker at rest: gives sockets to whom they are to be open, and puts new gates in the place of old ones, none of which is
    /// writing its record any more.
    ///
    /// # Errors
    /// [`Plan::undo`] is to follow.
    pub fn prepare_at_rest(&mut self, setup: &mut Setup, service: &mut Service) -> Result<(), NotReady> {
        for (door, kept) in self.sockets.iter().filter_map(|door| Some((door, door.kept?))) {
            let listener = &mut setup.listeners[kept];
            if listener.access().is_some_and(|access| access != door.access) {
                listener.set_access(door.access)?;
            }
        }
        self.replaced = self.to_replace(setup);
        for index in &self.replaced {
            service.gates[*index].child.kill();
        }
        let wanted: Vec<usize> = (self.accounts.iter().enumerate())
            .filter(|(i, key)| match key {
                Key::Kept(old) => needs_gate(&setup.config.accounts[*old], &self.config.accounts[*i]),
                Key::New(_) => true,
            })
            .map(|(i, _)| i)
            .collect();
        let whose: Vec<Gated> = wanted.iter().map(|i| self.gated(setup, *i)).collect();
        let started = start_gates(setup, &whose)?;
        for (index, (gate, end)) in wanted.into_iter().zip(started) {
            let gate = match self.accounts[index] {
                Key::Kept(old) => {
                    service.gates[old] = gate;
                    None
                }
                Key::New(_) => Some(gate),
            };
            self.gates.push((index, end, gate));
        }
        Ok(())
    }

    /// Everything that the broker is given: descriptors with the frames that name them, and the policy.
    pub fn handover<'a>(
        &'a self,
        setup: &'a Setup,
        service: &Service,
        uid: Option<u32>,
    ) -> (Vec<(Control, BorrowedFd<'a>)>, Reload) {
        let mut frames = Vec::new();
        let mut policy = Policy { ..service.handed.clone() };
        let mut gone_sockets = Vec::new();
        let lived = |number: u16| service.numbers.socket(number).is_some();
        (policy.sockets, policy.accounts) = (Vec::new(), Vec::new());
        for (number, at) in (0..).zip(self.numbers.sockets()) {
            let Some(at) = at else {
                gone_sockets.push(number);
                policy.sockets.extend(service.handed.sockets.get(usize::from(number)).map(nothing));
                continue;
            };
            let door = &self.sockets[at];
            let (listener, alerts) = match door.kept {
                Some(i) => (&setup.listeners[i], door.alerts.as_ref().unwrap_or(&setup.alert_logs[i])),
                None => match (&door.listener, &door.alerts) {
                    (Some(listener), Some(alerts)) => (listener, alerts),
                    _ => continue,
                },
            };
            if !lived(number) {
                frames.push((Control::NewListener(number), listener.fd.as_fd()));
            }
            if !lived(number) || door.alerts.is_some() {
                frames.push((Control::NewAlerts(number), alerts.file().as_fd()));
            }
            policy.sockets.push(handover::socket(&self.config.sockets[at], (-1, -1), alerts.size()));
        }
        for (number, at) in (0..).zip(self.numbers.accounts()) {
            let Some(at) = at else {
                policy.accounts.extend(service.handed.accounts.get(usize::from(number)).map(|account| {
                    let record = Rows { name: String::new(), last: None, oldest: 1 };
                    nsecd_policy::Account { name: String::new(), record, ..account.clone() }
                }));
                continue;
            };
            if let Some((_, end, _)) = self.gates.iter().find(|(index, ..)| *index == at) {
                frames.push((Control::NewGate(number), end.as_fd()));
            }
            let record = handover::seen(setup, self.record(setup, at));
            let key = &self.holder(setup, at).public_key;
            policy.accounts.push(handover::account(&self.config.accounts[at], key, -1, record));
        }
        policy.processes = self.processes(setup, service);
        (frames, Reload { policy, gone_sockets, uid, digest: self.digest.clone() })
    }

    /// What runs under this configuration, but for the broker.
    fn processes(&self, setup: &Setup, service: &Service) -> Vec<Process> {
        let (mut holders, mut gates) = (Vec::new(), Vec::new());
        for (index, key) in self.accounts.iter().enumerate() {
            let (ids, gate) = match key {
                Key::Kept(i) => ([setup.ids.holders[*i], setup.ids.gates[*i]], service.gates.get(*i)),
                Key::New(fresh) => {
                    let new = self.gates.iter().find(|(at, ..)| *at == index);
                    (fresh.ids, new.and_then(|(.., gate)| gate.as_ref()))
                }
            };
            let holder = self.holder(setup, index);
            holders.push(process(&holder.child, ids[0], holder.missing));
            gates.extend(gate.map(|gate| process(&gate.child, ids[1], gate.missing)));
        }
        let ecdh = setup.ecdh.iter().map(|holder| process(&holder.child, setup.ids.ecdh, holder.missing));
        let nsecd = service.handed.processes.first().cloned();
        nsecd.into_iter().chain(holders).chain(ecdh).chain(gates).collect()
    }

    /// Back to what was in force, as far as it had been changed; the gates that are to be given to the broker, by number, and the
    /// broker's ends of the pairs to them.
    ///
    /// # Errors
    /// A gate does not come up: broker and gates have to be replaced.
    pub fn undo(self, setup: &mut Setup, service: &mut Service) -> Result<Vec<(Control, OwnedFd)>, NotReady> {
        restore_access(setup);
        let ended = self.replaced.clone();
        drop(self);
        for index in &ended {
            service.gates[*index].child.kill();
        }
        let whose: Vec<Gated> = ended.iter().map(|i| gated(setup, *i)).collect();
        let started = start_gates(setup, &whose)?;
        let mut ends = Vec::new();
        for (index, (gate, end)) in ended.into_iter().zip(started) {
            let number = service.numbers.accounts().position(|at| at == Some(index)).unwrap_or_default();
            ends.push((Control::NewGate(u16::try_from(number).unwrap_or(u16::MAX)), end));
            service.gates[index] = gate;
        }
        Ok(ends)
    }

    /// It is in force: what it took is in use from here on, and what no part of it needs is ended. Returns the old indices of the
    /// accounts, in the new order.
    pub fn commit(self, setup: &mut Setup, service: &mut Service, handed: Policy) -> Vec<Option<usize>> {
        let Plan { config, sockets, accounts, numbers, mut gates, consume, .. } = self;
        let mut listeners: Vec<_> = std::mem::take(&mut setup.listeners).into_iter().map(Some).collect();
        let mut alert_logs: Vec<_> = std::mem::take(&mut setup.alert_logs).into_iter().map(Some).collect();
        for door in sockets {
            let kept = door.kept.map(|i| (listeners[i].take(), alert_logs[i].take()));
            let (listener, alerts) = kept.unwrap_or_default();
            let mut alerts = door.alerts.or(alerts);
            if let Some(alerts) = &mut alerts
                && let Err(why) = alerts.give(door.access.readers(Names::Files))
            {
                log::error!("{why}");
            }
            setup.listeners.extend(listener.or(door.listener));
            setup.alert_logs.extend(alerts);
        }
        let mut holders: Vec<_> = std::mem::take(&mut setup.holders).into_iter().map(Some).collect();
        let mut records: Vec<_> = std::mem::take(&mut setup.records).into_iter().map(Some).collect();
        let mut freezes: Vec<_> = std::mem::take(&mut setup.freezes).into_iter().map(Some).collect();
        let mut old_gates: Vec<_> = std::mem::take(&mut service.gates).into_iter().map(Some).collect();
        let ids = (std::mem::take(&mut setup.ids.holders), std::mem::take(&mut setup.ids.gates));
        let mut order = Vec::new();
        for (index, (key, account)) in accounts.into_iter().zip(&config.accounts).enumerate() {
            let new_gate = gates.iter().position(|(i, ..)| *i == index).and_then(|i| gates.swap_remove(i).2);
            let full = record::full(&config, &[account.ceiling, account.seal_ceiling.flatten()]);
            let (holder, mut record, freeze, gate, [of_holder, of_gate]) = match key {
                Key::Kept(i) => {
                    order.push(Some(i));
                    let gate = old_gates[i].take();
                    (holders[i].take(), records[i].take(), freezes[i].take(), gate, [ids.0[i], ids.1[i]])
                }
                Key::New(fresh) => {
                    order.push(None);
                    let Fresh { holder, record, freeze, ids } = *fresh;
                    (Some(holder), Some(record), Some(freeze), new_gate, ids)
                }
            };
            if let Some(record) = &mut record {
                record.set_full(full);
            }
            setup.holders.extend(holder);
            setup.records.extend(record);
            setup.freezes.extend(freeze);
            service.gates.extend(gate);
            setup.ids.holders.push(of_holder);
            setup.ids.gates.push(of_gate);
        }
        // Gates before the holders that they ask.
        drop(old_gates);
        holders::stop(holders.into_iter().flatten());
        for serial in consume {
            if let Err(why) = keyring::consume(serial) {
                log::error!("{why}");
            }
        }
        setup.config = config;
        (service.numbers, service.handed) = (numbers, handed);
        order
    }

    /// SHA-256 of the file.
    pub fn digest(&self) -> &str {
        &self.digest
    }
}

/// A socket with all that is new about it.
fn door(setup: &Setup, s: &Socket) -> Result<Door, Fault> {
    let about = |why: Fault| Fault::new(format!("socket {}: {why}", s.path.display()));
    let access = Access::resolve(s.mode, s.owner.as_deref(), s.group.as_deref(), Names::Files).map_err(about)?;
    let readers = access.readers(Names::Files);
    let Some(kept) = setup.config.sockets.iter().position(|old| old.path == s.path) else {
        if setup.sockets_given {
            let text = format!(
                "needs a restart: socket {}, since systemd hands over the sockets: give it a ListenStream= as well",
                s.path.display()
            );
            return Err(Fault::new(text));
        }
        // In this order: a socket goes as it came, a log stays.
        let listener = Some(Listener::bind(&s.path, access)?);
        let alerts = Some(AlertLog::open(&s.alert_log, readers)?);
        return Ok(Door { kept: None, access, listener, alerts });
    };
    if setup.sockets_given {
        activation::compare(&s.path, access);
    }
    let moved = setup.config.sockets[kept].alert_log != s.alert_log;
    let alerts = moved.then(|| AlertLog::open(&s.alert_log, readers)).transpose()?;
    Ok(Door { kept: Some(kept), access, listener: None, alerts })
}

/// Gives the sockets to whom they are configured to be open.
pub fn restore_access(setup: &mut Setup) {
    for (listener, s) in setup.listeners.iter_mut().zip(&setup.config.sockets) {
        let access = Access::resolve(s.mode, s.owner.as_deref(), s.group.as_deref(), Names::Files);
        if let Ok(access) = access
            && listener.access().is_some_and(|is| is != access)
            && let Err(why) = listener.set_access(access)
        {
            log::error!("{why}");
        }
    }
}

/// What is left of a socket that is no more: its number.
fn nothing(socket: &nsecd_policy::Socket) -> nsecd_policy::Socket {
    let (kinds, tokenless) = (Kinds::List(Vec::new()), Kinds::List(Vec::new()));
    let (methods, accounts, rules) = (Vec::new(), Vec::new(), Vec::new());
    nsecd_policy::Socket { kinds, tokenless, methods, accounts, rules, ..socket.clone() }
}
