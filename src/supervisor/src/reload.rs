//! A new configuration for an nsecd that serves: prepared beside the old one, handed to a broker at rest, in force as a whole or not
//! at all.
//!
//! The order: read and checked, everything made that is new (`plan`); the broker rests; gates whose ceilings change are replaced;
//! the broker takes over; only then is anything of the old one given up. Until the broker has said so the old one is in force.

mod changes;
mod plan;

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::write;
use nsecd_policy::Policy;
use nsecd_policy::control::Control;

use crate::fault::Fault;
use crate::ready::NotReady;
use crate::service::{Service, encode};
use crate::setup::Setup;
use plan::Plan;
pub use plan::restore_access;

/// How long requests in flight may take to come to their end.
const REST: Duration = Duration::from_secs(5);
/// How long the broker may take to read a configuration, and then to take it over.
const TAKE: Duration = Duration::from_secs(5);

/// Who asked for a reload.
#[derive(Clone, Copy, Debug)]
pub struct Asker {
    /// The connection to answer; `None`: a signal asked.
    pub connection: Option<u64>,
    /// The uid; `None`: of whoever sent the signal.
    pub uid: Option<u32>,
}

/// A reload under way.
pub struct Reload {
    /// To be answered in the end.
    pub askers: Vec<Asker>,
    plan: Plan,
    step: Step,
    until: Instant,
}

enum Step {
    /// The broker finishes what is in flight.
    Resting,
    /// It has the new configuration, and is taking it over.
    Handed(Box<Policy>),
}

/// How it goes on.
pub enum Turn {
    /// Not yet.
    Wait(Box<Reload>),
    /// In force. Old indices of the accounts, in the new order; SHA-256 of the file.
    Done(Vec<Option<usize>>, String),
    /// The old configuration is in force.
    Kept(Fault),
    /// The old configuration is in force as soon as broker and gates are replaced: what they have nobody knows.
    Replace(Fault),
    /// The operator asked nsecd to stop meanwhile.
    Stopped,
}

impl Reload {
    /// Reads the configuration, makes what is new, and asks the broker to rest.
    ///
    /// # Errors
    /// As [`Plan::prepare`].
    pub fn begin(setup: &mut Setup, service: &Service, askers: Vec<Asker>) -> Result<Reload, (Vec<Asker>, NotReady)> {
        match Plan::prepare(setup, service) {
            Ok(plan) => {
                service.send(Control::Rest, None);
                Ok(Reload { askers, plan, step: Step::Resting, until: Instant::now() + REST })
            }
            Err(why) => Err((askers, why)),
        }
    }

    /// When to look again though nothing has come.
    pub fn due(&self) -> Instant {
        self.until
    }

    /// Whether the gate with this index may end: its account is no more in the configuration that the broker is taking over.
    pub fn may_end(&self, index: usize) -> bool {
        self.is_handed() && !self.plan.keeps(index)
    }

    /// Whether the broker has been given the new configuration.
    pub fn is_handed(&self) -> bool {
        matches!(self.step, Step::Handed(_))
    }

    /// Freezes the accounts that it brings, or thaws them.
    pub fn freeze(&mut self, setup: &Setup, frozen: bool) {
        self.plan.freeze(setup, frozen);
    }

    /// Whether one of the accounts that it brings is frozen and may be using its key all the same.
    pub fn uses_frozen_key(&mut self) -> bool {
        self.plan.uses_frozen_key()
    }

    /// Goes on with what the broker has said, if it has said something.
    pub fn step(mut self: Box<Self>, setup: &mut Setup, service: &mut Service, heard: Option<Control>) -> Turn {
        let late = Instant::now() >= self.until;
        match (&self.step, heard) {
            (Step::Resting, Some(Control::Quiet)) => match self.hand_over(setup, service) {
                Ok(policy) => {
                    (self.step, self.until) = (Step::Handed(Box::new(policy)), Instant::now() + TAKE);
                    Turn::Wait(self)
                }
                Err(Failure::Before(why)) => self.give_up(setup, service, why),
                Err(Failure::Amid(why)) => Turn::Replace(why),
            },
            (Step::Resting, None) if late => {
                self.give_up(setup, service, Fault::new("requests in flight do not come to an end").into())
            }
            (Step::Handed(_), Some(Control::Reloaded)) => {
                let Reload { plan, step: Step::Handed(policy), .. } = *self else { return Turn::Stopped };
                let digest = plan.digest().to_owned();
                Turn::Done(plan.commit(setup, service, *policy), digest)
            }
            (Step::Handed(_), Some(Control::NotReloaded)) => {
                let text =
                    "the broker does not take it over: its log says why (journal and decision log must be writable)";
                self.give_up(setup, service, Fault::new(text).into())
            }
            (Step::Handed(_), None) if late => {
                Turn::Replace(Fault::new("the broker did not take it over in time: it is replaced"))
            }
            (_, None) => Turn::Wait(self),
            (_, Some(_)) => Turn::Replace(Fault::new("the broker sent what no broker of ours sends: it is replaced")),
        }
    }

    /// The gates, then everything to the broker.
    fn hand_over(&mut self, setup: &mut Setup, service: &mut Service) -> Result<Policy, Failure> {
        self.plan.prepare_at_rest(setup, service).map_err(Failure::Before)?;
        let uid = self.askers.first().and_then(|asker| asker.uid);
        let (frames, reload) = self.plan.handover(setup, service, uid);
        let message = encode(&reload).map_err(|why| Failure::Before(why.into()))?;
        let until = Instant::now() + TAKE;
        for (frame, fd) in frames {
            while !service.send(frame, Some(fd)) {
                wait(&service.control, until)?;
            }
        }
        let mut rest = &message[..];
        while !rest.is_empty() {
            match write(&service.policy, rest) {
                Ok(n) => rest = &rest[n..],
                Err(_) => wait(&service.policy, until)?,
            }
        }
        Ok(reload.policy)
    }

    /// Back to what was in force.
    fn give_up(self: Box<Self>, setup: &mut Setup, service: &mut Service, why: NotReady) -> Turn {
        let why = match why {
            NotReady::Failed(why) => why,
            NotReady::Stopped => return Turn::Stopped,
        };
        match self.plan.undo(setup, service) {
            Ok(ends) => {
                let sent = ends.iter().all(|(frame, end)| service.send(*frame, Some(end.as_fd())));
                if sent && service.send(Control::Resume, None) { Turn::Kept(why) } else { Turn::Replace(why) }
            }
            Err(NotReady::Stopped) => Turn::Stopped,
            Err(NotReady::Failed(more)) => Turn::Replace(Fault::new(format!("{why}; and then: {more}"))),
        }
    }
}

/// Where it failed.
enum Failure {
    /// The broker has been given nothing.
    Before(NotReady),
    /// It has been given something.
    Amid(Fault),
}

/// Waits until something can be written.
fn wait(to: &impl AsFd, until: Instant) -> Result<(), Failure> {
    let left = until.saturating_duration_since(Instant::now());
    let mut fds = [PollFd::new(to.as_fd(), PollFlags::POLLOUT)];
    let _ = poll(&mut fds, PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX));
    let gone = fds[0].revents().is_some_and(|events| events.intersects(PollFlags::POLLHUP | PollFlags::POLLERR));
    match left.is_zero() || gone {
        true => Err(Failure::Amid(Fault::new("the broker does not take the new configuration: it is replaced"))),
        false => Ok(()),
    }
}
