//! What the broker is given: its descriptors and the policy that names them by number.

use std::os::fd::{AsFd, BorrowedFd};

use nix::unistd::geteuid;
use nsecd_policy::{self as handed, Account, Policy, Process, Socket};

use crate::config;
use crate::config::handed::{self as config_handed, period_ms};
use crate::harden::capacity;
use crate::record::{self, Record};
use crate::setup::Setup;

/// The broker's ends of what is made anew for each broker.
pub struct Files<'a> {
    /// Its control socket.
    pub control: BorrowedFd<'a>,
    /// The policy pipe.
    pub policy: BorrowedFd<'a>,
    /// Its own connection to syslog.
    pub syslog: Option<BorrowedFd<'a>>,
    /// The decision log before the one in use.
    pub decisions_previous: Option<BorrowedFd<'a>>,
    /// Its ends of the pairs to the gates, in the order of the accounts.
    pub gates: Vec<BorrowedFd<'a>>,
    /// What else runs.
    pub processes: Vec<Process>,
}

/// The broker's table (the n-th is its descriptor n) and its policy.
pub fn policy<'a>(setup: &'a Setup, files: &Files<'a>) -> (Vec<BorrowedFd<'a>>, Policy) {
    let mut fds = setup.standard.triple();
    let mut give = |fd: BorrowedFd<'a>| {
        fds.push(fd);
        fds.len() as i32 - 1
    };
    give(files.control);
    give(files.policy);
    let syslog_fd = files.syslog.map(&mut give);
    let admin_fd = give(setup.admin.fd.as_fd());
    let listeners: Vec<i32> = setup.listeners.iter().map(|l| give(l.fd.as_fd())).collect();
    let alerts: Vec<i32> = setup.alert_logs.iter().map(|l| give(l.file().as_fd())).collect();
    let journal_fd = give(setup.journal.file().as_fd());
    let ecdh_fd = setup.ecdh.as_ref().map(|holder| give(holder.channel.as_fd()));
    let gates: Vec<i32> = files.gates.iter().map(|&gate| give(gate)).collect();
    let decisions_fd = give(setup.decisions.file().as_fd());
    let decisions_previous_fd = files.decisions_previous.map(&mut give);
    let capacity = capacity(fds.len());

    let config = &setup.config;
    let log_keep = record::keep(config);
    let account = |(index, gate_fd): (usize, i32)| {
        account(&config.accounts[index], &setup.holders[index].public_key, gate_fd, seen(setup, &setup.records[index]))
    };
    let socket = |index: usize| {
        socket(&config.sockets[index], (listeners[index], alerts[index]), setup.alert_logs[index].size())
    };
    let policy = Policy {
        accounts: gates.into_iter().enumerate().map(account).collect(),
        sockets: (0..config.sockets.len()).map(socket).collect(),
        default_account: config.default_account.clone(),
        log_size: config.state.log_size,
        log_keep,
        decisions_fd,
        decisions_previous_fd,
        ecdh_record: setup.ecdh_record.as_ref().map(|record| seen(setup, record)),
        ecdh_fd,
        journal_fd,
        admin_fd,
        processes: files.processes.clone(),
        operator_uid: geteuid().as_raw(),
        boot_id: setup.boot_id.clone(),
        syslog_fd,
        max_connections: capacity.total,
        max_connections_per_principal: capacity.per_principal,
    };
    (fds, policy)
}

/// A record as it lies there.
pub fn seen(setup: &Setup, record: &Record) -> handed::Record {
    let (last, oldest) = record.rows(&setup.state, record::keep(&setup.config));
    let name = record.stem().to_owned();
    handed::Record { name, last: setup.config.holder.record.then_some(last), oldest }
}

/// An account as the broker is told of it.
pub fn account(account: &config::Account, public_key: &str, gate_fd: i32, record: handed::Record) -> Account {
    Account {
        name: account.name.clone(),
        public_key: public_key.to_owned(),
        gate_fd,
        ceiling_period_ms: account.ceiling.as_ref().map_or(1000, period_ms),
        seal_ceiling_period_ms: account.seal_ceiling.flatten().as_ref().map(period_ms),
        kinds: account.kinds.clone(),
        ceiling: account.ceiling,
        created_at: account.created_at,
        record,
    }
}

/// A socket as the broker is told of it; `fds`: listening socket and alert log, which has so many bytes.
pub fn socket(s: &config::Socket, (listener_fd, alert_fd): (i32, i32), alert_size: u64) -> Socket {
    Socket { listener_fd, alert_fd, alert_size, ..config_handed::socket(s) }
}
