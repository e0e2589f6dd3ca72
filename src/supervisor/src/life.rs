//! The supervisor's life after the start: one loop that waits for deaths, the broker's frames, and the operator's.
//!
//! A dead broker or gate is replaced, a dead key-holder or ECDH holder ends everything. Must never wait for a child without
//! a limit, nor do more for a broker's frames than an honest broker needs.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nsecd_policy::control::Control;

use crate::fault::Fault;
use crate::notify::Notify;
use crate::orders::Orders;
use crate::ready::NotReady;
use crate::record;
use crate::service::{Frame, Service};
use crate::setup::Setup;

/// How long a broker may finish what is in flight.
const DRAIN: Duration = Duration::from_secs(6);
/// The first pause before a broker that keeps dying is started again, and the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// How long a broker whose control socket is closed may take to be seen dead.
const LAST_WORDS: Duration = Duration::from_millis(20);
/// Frames that an honest broker stays far below in [`FRAME_WINDOW`].
const MOST_FRAMES: u32 = 256;
const FRAME_WINDOW: Duration = Duration::from_secs(1);

/// Runs until the operator stops nsecd.
///
/// # Errors
/// A key-holder or the ECDH holder died.
pub fn run(setup: &mut Setup, service: Service, notify: &mut Notify) -> Result<(), Fault> {
    let (state, window) = (State::Up(service), Instant::now());
    let mut life = Life { setup, notify, state, crashes: 0, frames: 0, window, orders: Orders::default() };
    loop {
        life.wait();
        life.watch_holders()?;
        life.serve_operator()?;
        let stop = life.setup.signals.stop_asked();
        life.state = match std::mem::replace(&mut life.state, State::Over) {
            State::Up(service) => life.up(service, stop),
            State::Down(until) => life.down(until, stop),
            State::Draining(service, until) => life.drain(service, until, stop),
            State::Replacing(service, until) => life.replace(service, until, stop),
            State::Over => return Ok(()),
        };
    }
}

enum State {
    /// Broker and gates serve.
    Up(Service),
    /// They died; they are started again at this time.
    Down(Instant),
    /// The broker finishes what is in flight, at most until then.
    Draining(Service, Instant),
    /// The same, and then both are started again: a record is full.
    Replacing(Service, Instant),
    /// Nothing is left to do.
    Over,
}

struct Life<'a> {
    setup: &'a mut Setup,
    notify: &'a mut Notify,
    state: State,
    /// Deaths since a request was last served.
    crashes: u32,
    /// Frames from the broker since `window`.
    frames: u32,
    window: Instant,
    /// The operator's, not yet answered.
    orders: Orders,
}

impl Life<'_> {
    /// Waits for anything to happen.
    fn wait(&mut self) {
        let mut fds = vec![PollFd::new(self.setup.signals.as_fd(), PollFlags::POLLIN)];
        fds.extend(
            self.setup.holders.iter().chain(&self.setup.ecdh).map(|h| PollFd::new(h.child.as_fd(), PollFlags::POLLIN)),
        );
        fds.extend(self.setup.control.poll_fds());
        let mut due = None;
        let mut prompt = true;
        if let State::Up(service) = &mut self.state {
            due = Some(service.pulse());
            prompt = service.is_prompt();
        }
        match &self.state {
            State::Up(service) | State::Draining(service, _) | State::Replacing(service, _) => {
                let children = [&service.broker].into_iter().chain(&service.gates);
                fds.extend(children.map(|c| PollFd::new(c.as_fd(), PollFlags::POLLIN)));
                fds.push(PollFd::new(service.control.as_fd(), PollFlags::POLLIN));
            }
            State::Down(until) => due = Some(*until),
            State::Over => due = Some(Instant::now()),
        }
        if let State::Draining(_, until) | State::Replacing(_, until) = &self.state {
            due = Some(*until);
        }
        // The watchdog means that requests are served: it is fed only then.
        if prompt && !matches!(self.state, State::Down(_)) {
            self.notify.feed();
            due = due.into_iter().chain(self.notify.due()).min();
        }
        due = due.into_iter().chain(self.setup.control.due()).chain(self.orders.due()).min();
        let timeout = due.map_or(PollTimeout::NONE, |due| {
            let left = due.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
            PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
        });
        match poll(&mut fds, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            // Out of memory, at worst: not a reason to end, nor to spin.
            Err(e) => {
                log::error!("poll: {e}");
                std::thread::sleep(FIRST_PAUSE);
            }
        }
    }

    fn watch_holders(&mut self) -> Result<(), Fault> {
        for holder in self.setup.holders.iter_mut().chain(&mut self.setup.ecdh) {
            if let Some(end) = holder.child.ended() {
                return Err(Fault::new(format!(
                    "{} died ({end}), and its key with it: everything stops; restart nsecd",
                    holder.child.name()
                )));
            }
        }
        Ok(())
    }

    /// Does what the operator asks, and answers when it is done. A gate that holds on to a frozen key is ended; broker and gates
    /// are then replaced, as after any death of one.
    ///
    /// # Errors
    /// The ECDH holder holds on to it, which nobody can replace.
    fn serve_operator(&mut self) -> Result<(), Fault> {
        let now = Instant::now();
        for asked in self.setup.control.requests(now) {
            self.orders.take(self.setup, asked, now);
        }
        let service = match &mut self.state {
            State::Up(service) | State::Draining(service, _) | State::Replacing(service, _) => Some(service),
            State::Down(_) | State::Over => None,
        };
        self.orders.settle(self.setup, service, now)
    }

    fn up(&mut self, mut service: Service, stop: bool) -> State {
        let trusted = self.serve_frames(&mut service);
        if !trusted {
            // A process that ends closes its sockets first; its exit code says more than that.
            service.broker.wait(LAST_WORDS);
        }
        let died = [&mut service.broker]
            .into_iter()
            .chain(&mut service.gates)
            .find_map(|c| c.ended().map(|end| format!("{} died ({end})", c.name())));
        if stop && died.is_none() {
            self.notify.tell("STOPPING=1\nSTATUS=finishing requests in flight");
            // A broker that does not take the frame is ended when its time is over.
            service.send(Control::Drain, None);
            return State::Draining(service, Instant::now() + DRAIN);
        }
        let why = match died {
            Some(why) => why,
            None if trusted && service.is_hung() => "the broker does not answer".into(),
            // Looked at with each pulse, and whatever else happens.
            None if trusted && self.setup.has_full_record() => {
                service.send(Control::Drain, None);
                return State::Replacing(service, Instant::now() + DRAIN);
            }
            None if trusted => {
                if let Some(file) = self.setup.decisions.found_missing(&self.setup.state, Instant::now()) {
                    service.send(Control::DecisionLog, Some(file.as_fd()));
                }
                return State::Up(service);
            }
            None => "the broker sent what no broker of ours sends".into(),
        };
        if service.served {
            self.crashes = 0;
        }
        service.stop();
        if stop {
            return State::Over;
        }
        let pause = pause(self.crashes);
        self.crashes = self.crashes.saturating_add(1);
        log::warn!("{why}: starting broker and gates anew in {} ms", pause.as_millis());
        self.notify.tell("STATUS=replacing broker and gates");
        State::Down(Instant::now() + pause)
    }

    fn down(&mut self, until: Instant, stop: bool) -> State {
        if stop {
            return State::Over;
        }
        if Instant::now() < until {
            return State::Down(until);
        }
        self.setup.journal.abandon();
        match Service::start(self.setup) {
            Ok(service) => {
                self.frames = 0;
                log::info!("broker (pid {}) and gates are serving again", service.broker.pid());
                self.notify.tell("STATUS=serving");
                State::Up(service)
            }
            Err(NotReady::Stopped) => State::Over,
            Err(NotReady::Failed(why)) => {
                let pause = pause(self.crashes.max(1));
                self.crashes = self.crashes.saturating_add(1);
                log::error!("{why}; trying again in {} ms", pause.as_millis());
                State::Down(Instant::now() + pause)
            }
        }
    }

    fn drain(&mut self, mut service: Service, until: Instant, stop: bool) -> State {
        self.serve_frames(&mut service);
        if service.broker.ended().is_none() {
            if !stop && Instant::now() < until {
                return State::Draining(service, until);
            }
            log::warn!(
                "{}",
                if stop { "not waiting for requests in flight" } else { "requests in flight took too long" }
            );
        }
        service.stop();
        State::Over
    }

    /// A crash it is not, so there is no pause: new clients wait in the backlog of the listening sockets.
    fn replace(&mut self, mut service: Service, until: Instant, stop: bool) -> State {
        if stop {
            self.notify.tell("STOPPING=1\nSTATUS=finishing requests in flight");
            return State::Draining(service, until);
        }
        let trusted = self.serve_frames(&mut service);
        if trusted && service.broker.ended().is_none() && Instant::now() < until {
            return State::Replacing(service, until);
        }
        if service.served {
            self.crashes = 0;
        }
        service.stop();
        State::Down(Instant::now())
    }

    /// Answers the broker's frames; false if it sent what it must not send.
    fn serve_frames(&mut self, service: &mut Service) -> bool {
        loop {
            match service.receive() {
                Frame::Nothing => return true,
                Frame::Control(Control::Served) if !service.served => service.served = true,
                Frame::Control(Control::Pong) if service.answered() => {}
                Frame::Control(Control::NextAlertLog(index)) => {
                    if !self.next_alert_log(service, index) {
                        return false;
                    }
                }
                Frame::Control(Control::NextJournal) => {
                    if !self.next_journal(service) {
                        return false;
                    }
                }
                Frame::Control(Control::JournalWritten(damaged)) => {
                    if !self.replace_journal(service, damaged) {
                        return false;
                    }
                }
                Frame::Control(Control::NextDecisionLog) => {
                    if !self.next_decision_log(service) {
                        return false;
                    }
                }
                // Its death, if that is what it is, is told by its process.
                Frame::Control(_) | Frame::Broken => return false,
            }
            if self.window.elapsed() > FRAME_WINDOW {
                self.window = Instant::now();
                self.frames = 0;
            }
            self.frames += 1;
            if self.frames > MOST_FRAMES {
                return false;
            }
        }
    }

    fn next_journal(&mut self, service: &Service) -> bool {
        match self.setup.journal.next(Instant::now()) {
            Ok(file) => service.send(Control::JournalFile, Some(file.as_fd())),
            Err(why) => {
                log::warn!("the journal is not replaced: {why}");
                service.send(Control::NoJournal, None)
            }
        }
    }

    fn replace_journal(&mut self, service: &Service, damaged: bool) -> bool {
        match self.setup.journal.replace(damaged) {
            Ok(()) => service.send(Control::JournalNamed, None),
            Err(why) => {
                log::warn!("the journal is not replaced: {why}");
                service.send(Control::NoJournal, None)
            }
        }
    }

    fn next_decision_log(&mut self, service: &Service) -> bool {
        let Setup { decisions, state, config, .. } = &mut *self.setup;
        let now = Instant::now();
        // As with an alert log: whoever asks for more has been hijacked.
        if decisions.is_fresh(now) || decisions.size() < config.state.log_size {
            return service.send(Control::NoDecisionLog, None);
        }
        match decisions.rotate(state, record::keep(config), now) {
            Ok(()) => service.send(Control::DecisionLog, Some(decisions.file().as_fd())),
            Err(why) => {
                log::warn!("the decision log is not rotated: {why}");
                service.send(Control::NoDecisionLog, None)
            }
        }
    }

    fn next_alert_log(&mut self, service: &Service, index: u16) -> bool {
        let Some(alerts) = self.setup.alert_logs.get_mut(usize::from(index)) else { return false };
        let now = Instant::now();
        // A broker that asks for more has been hijacked: it would rotate its history away.
        if alerts.is_fresh(now) || alerts.size() < self.setup.config.state.log_size {
            return service.send(Control::NoAlertLog(index), None);
        }
        match alerts.rotate(self.setup.config.state.log_keep, now) {
            Ok(()) => service.send(Control::AlertLog(index), Some(alerts.file().as_fd())),
            Err(why) => {
                log::warn!("an alert log is not rotated: {why}");
                service.send(Control::NoAlertLog(index), None)
            }
        }
    }
}

/// How long to wait before the next start, after this many deaths without a request served between them.
fn pause(crashes: u32) -> Duration {
    match crashes {
        0 => Duration::ZERO,
        n => LONGEST_PAUSE.min(FIRST_PAUSE * 2u32.saturating_pow((n - 1).min(16))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_grows_to_five_seconds_and_no_further() {
        let ms: Vec<u128> = [0, 1, 2, 6, 7, 8, u32::MAX].iter().map(|&n| pause(n).as_millis()).collect();
        assert_eq!(ms, [0, 100, 200, 3200, 5000, 5000, 5000]);
    }
}
