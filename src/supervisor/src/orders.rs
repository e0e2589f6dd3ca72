//! The operator's requests, from the frame to the answer.
//!
//! An answer about a frozen account is given only when nobody is using its key any more, which gates and ECDH holder tell by their
//! busy words. Must never wait for that in one place: the loop comes back here until it is so.

use std::time::{Duration, Instant};

use nsecd_policy::control::Control;
use nsecd_policy::operator::{Command, Reply, Status};

use crate::control::Asked;
use crate::fault::Fault;
use crate::freeze::{Freeze, Since};
use crate::page::Busy;
use crate::service::Service;
use crate::setup::Setup;

/// How long a use of the key may take: a signature takes a tenth of a millisecond, a row on a busy disk some more.
const STUCK: Duration = Duration::from_secs(3);
/// How soon to look again.
const LOOK: Duration = Duration::from_millis(1);

/// Requests that are not yet answered.
#[derive(Default)]
pub struct Orders {
    waiting: Vec<Order>,
    /// Whether the broker is yet to be told that everything is thawed.
    thawed: bool,
}

struct Order {
    connection: u64,
    /// Numbers of the accounts that it is about.
    accounts: Vec<usize>,
    /// In the order of the accounts.
    statuses: Vec<Status>,
    since: Instant,
    /// Whether a gate that was still using the key has been told to end.
    late: bool,
    /// Whether it is about all accounts there are, or are about to be.
    all: bool,
}

impl Orders {
    /// When to look again.
    pub fn due(&self) -> Option<Instant> {
        (!self.waiting.is_empty()).then(|| Instant::now() + LOOK)
    }

    /// Accounts have another order now, beside each its index before; what is no more is not answered about, and what is new is
    /// among all of them.
    pub fn renumber(&mut self, order: &[Option<usize>]) {
        let new = || order.iter().enumerate().filter(|(_, before)| before.is_none()).map(|(at, _)| (at, Status::Done));
        for asked in &mut self.waiting {
            let now = |before: &usize| order.iter().position(|at| *at == Some(*before));
            let both = asked.accounts.iter().zip(&asked.statuses);
            let kept = both.filter_map(|(at, status)| Some((now(at)?, *status)));
            (asked.accounts, asked.statuses) = kept.chain(new().filter(|_| asked.all)).unzip();
            // Of the gates that are new none has been told to end.
            asked.late = false;
        }
    }

    /// Does what is asked.
    pub fn take(&mut self, setup: &mut Setup, asked: Asked, now: Instant) {
        let Asked { connection, uid, request } = asked;
        let accounts = meant(&request.account, &setup.config.default_account, &setup.freezes);
        if accounts.is_empty() {
            return setup.control.answer(connection, &[Reply::refusal(Status::UnknownAccount)]);
        }
        let mut done = |&index: &usize| {
            let (freeze, dir) = (&mut setup.freezes[index], setup.state.dir());
            let before = freeze.since().is_some();
            let result = match request.command {
                Command::Freeze => freeze.freeze(dir),
                Command::Thaw => freeze.thaw(dir),
                Command::Status | Command::Reload => Ok(()),
            };
            match (before, freeze.since().is_some()) {
                (false, true) => log::warn!("account {} is frozen by uid {uid}", freeze.account()),
                (true, false) => log::warn!("account {} is thawed by uid {uid}", freeze.account()),
                _ => {}
            }
            match result {
                Ok(()) => Status::Done,
                Err(why) => {
                    log::error!("{why}");
                    Status::NotSaved
                }
            }
        };
        let statuses: Vec<Status> = accounts.iter().map(&mut done).collect();
        let all = request.account.is_empty() && statuses.iter().all(|status| *status == Status::Done);
        self.thawed |= request.command == Command::Thaw && all;
        let every = request.account.is_empty();
        self.waiting.push(Order { connection, accounts, statuses, since: now, late: false, all: every });
    }

    /// Answers what is done. `newcomers`: accounts that are about to be are frozen, and one may be using its key.
    ///
    /// # Errors
    /// The ECDH holder holds on to a frozen key.
    pub fn settle(
        &mut self,
        setup: &mut Setup,
        mut service: Option<&mut Service>,
        newcomers: bool,
        now: Instant,
    ) -> Result<(), Fault> {
        if self.thawed && service.as_ref().is_some_and(|service| service.send(Control::Thawed, None)) {
            self.thawed = false;
        }
        let mut waiting = Vec::new();
        for mut order in std::mem::take(&mut self.waiting) {
            let late = now.saturating_duration_since(order.since) >= STUCK;
            let first = late && !std::mem::replace(&mut order.late, late);
            let mut in_use = order.all && newcomers;
            for &index in order.accounts.iter().filter(|index| setup.freezes[**index].since().is_some()) {
                let ecdh = setup.ecdh.as_ref().filter(|_| index == 0).and_then(|holder| holder.busy.as_ref());
                if ecdh.is_some_and(Busy::is_set) {
                    if late {
                        return Err(held_on(setup));
                    }
                    in_use = true;
                }
                if let Some(service) = &mut service
                    && service.uses_key(index)
                {
                    if first {
                        service.end_gate(index, STUCK);
                    }
                    in_use = true;
                }
            }
            if in_use {
                waiting.push(order);
            } else {
                let replies = order.replies(&setup.freezes);
                setup.control.answer(order.connection, &replies);
            }
        }
        self.waiting = waiting;
        Ok(())
    }
}

impl Order {
    /// How the accounts are by now.
    fn replies(&self, freezes: &[Freeze]) -> Vec<Reply> {
        let reply = |(n, (&index, &status)): (usize, (&usize, &Status))| {
            let freeze = &freezes[index];
            let frozen = freeze.since().map(|since| match since {
                Since::Known(ms) => ms,
                Since::Unknown => 0,
            });
            let left = u16::try_from(self.accounts.len() - 1 - n).unwrap_or(u16::MAX);
            Reply { status, frozen, saved: freeze.is_saved(), left, account: freeze.account().to_owned() }
        };
        self.accounts.iter().zip(&self.statuses).enumerate().map(reply).collect()
    }
}

fn held_on(setup: &Setup) -> Fault {
    let account = setup.freezes.first();
    let (name, after) = account.map_or(("", ""), |freeze| {
        let after = if freeze.is_saved() { "the account will start frozen" } else { "the freeze is not saved" };
        (freeze.account(), after)
    });
    Fault::new(format!(
        "the ECDH holder of account {name}, which is frozen, has been using its key for {} s: everything stops; {after}",
        STUCK.as_secs()
    ))
}

/// Numbers of the accounts that a request's name means: all for none, and the default account for `default` as well.
fn meant(name: &str, default: &str, freezes: &[Freeze]) -> Vec<usize> {
    let of = |name: &str| freezes.iter().position(|freeze| freeze.account() == name);
    match name {
        "" => (0..freezes.len()).collect(),
        "default" => of(name).or_else(|| of(default)).into_iter().collect(),
        _ => of(name).into_iter().collect(),
    }
}
