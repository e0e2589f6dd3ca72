//! The supervisor's life after the start: one loop that waits for deaths, the broker's frames, and the operator's.
//!
//! A dead broker or gate is replaced, a dead key-holder or ECDH holder ends everything. Must never wait for a child without
//! a limit, nor do more for a broker's frames than an honest broker needs.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nsecd_policy::control::Control;
use nsecd_policy::operator::{Command, Reply, refusal};

use crate::fault::Fault;
use crate::notify::Notify;
use crate::orders::Orders;
use crate::ready::NotReady;
use crate::record;
use crate::reload::{self, Asker, Reload, Turn};
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
    let mut life = Life {
        setup,
        notify,
        state,
        crashes: 0,
        frames: 0,
        window,
        orders: Orders::default(),
        askers: Vec::new(),
        resting: false,
        heard: None,
        stop: false,
    };
    loop {
        life.wait();
        life.watch_holders()?;
        life.serve_operator()?;
        life.stop |= life.setup.signals.stop_asked();
        if life.setup.signals.reload_asked() {
            life.askers.push(Asker { connection: None, uid: None });
        }
        let stop = life.stop;
        life.state = match std::mem::replace(&mut life.state, State::Over) {
            State::Up(service) => life.up(service, stop),
            State::Reloading(service, reload) => life.reload(service, reload),
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
    /// The same, while a new configuration comes.
    Reloading(Service, Box<Reload>),
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
    /// Who wants the configuration read again.
    askers: Vec<Asker>,
    /// Whether the broker has been asked to rest, so that it may speak of a reload.
    resting: bool,
    /// What the broker said about a reload, since that was last looked at.
    heard: Option<Control>,
    /// The operator wants nsecd to stop.
    stop: bool,
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
        if let State::Up(service) | State::Reloading(service, _) = &mut self.state {
            due = Some(service.pulse());
            prompt = service.is_prompt();
        }
        match &self.state {
            State::Up(service)
            | State::Reloading(service, _)
            | State::Draining(service, _)
            | State::Replacing(service, _) => {
                let children = [&service.broker].into_iter().chain(service.gates.iter().map(|gate| &gate.child));
                fds.extend(children.map(|c| PollFd::new(c.as_fd(), PollFlags::POLLIN)));
                fds.push(PollFd::new(service.control.as_fd(), PollFlags::POLLIN));
            }
            State::Down(until) => due = Some(*until),
            State::Over => due = Some(Instant::now()),
        }
        if let State::Draining(_, until) | State::Replacing(_, until) = &self.state {
            due = Some(*until);
        }
        if let State::Reloading(_, reload) = &self.state {
            due = due.into_iter().chain([reload.due()]).min();
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
            if asked.request.command == Command::Reload {
                self.askers.push(Asker { connection: Some(asked.connection), uid: Some(asked.uid) });
                continue;
            }
            let command = asked.request.command;
            if let State::Reloading(_, reload) = &mut self.state
                && matches!(command, Command::Freeze | Command::Thaw)
                && asked.request.account.is_empty()
            {
                reload.freeze(self.setup, command == Command::Freeze);
            }
            self.orders.take(self.setup, asked, now);
        }
        // Its broker has the gates of accounts that are to come, and may be using them.
        let newcomers = match &mut self.state {
            State::Reloading(_, reload) => reload.uses_frozen_key(),
            _ => false,
        };
        let service = match &mut self.state {
            State::Up(service)
            | State::Reloading(service, _)
            | State::Draining(service, _)
            | State::Replacing(service, _) => Some(service),
            State::Down(_) | State::Over => None,
        };
        self.orders.settle(self.setup, service, newcomers, now)
    }

    fn up(&mut self, mut service: Service, stop: bool) -> State {
        let trusted = self.serve_frames(&mut service);
        if !trusted {
            // A process that ends closes its sockets first; its exit code says more than that.
            service.broker.wait(LAST_WORDS);
        }
        let died = [&mut service.broker]
            .into_iter()
            .chain(service.gates.iter_mut().map(|gate| &mut gate.child))
            .find_map(|c| c.ended().map(|end| format!("{} died ({end})", c.name())));
        if stop && died.is_none() {
            self.answer_askers(&Err(Fault::new("nsecd is stopping")));
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
                return self.begin_reload(service);
            }
            None => "the broker sent what no broker of ours sends".into(),
        };
        self.replace_now(service, &why, stop)
    }

    /// Ends broker and gates; they are started again soon.
    fn replace_now(&mut self, service: Service, why: &str, stop: bool) -> State {
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

    /// Begins a reload if somebody has asked for one.
    fn begin_reload(&mut self, service: Service) -> State {
        if self.askers.is_empty() {
            return State::Up(service);
        }
        self.notify.reloading();
        self.heard = None;
        match Reload::begin(self.setup, &service, std::mem::take(&mut self.askers)) {
            Ok(reload) => {
                self.resting = true;
                State::Reloading(service, Box::new(reload))
            }
            Err((askers, why)) => {
                self.askers = askers;
                let why = match why {
                    NotReady::Failed(why) => why,
                    NotReady::Stopped => {
                        self.stop = true;
                        Fault::new("nsecd is stopping")
                    }
                };
                self.answer_askers(&Err(why));
                self.notify.tell("READY=1\nSTATUS=serving");
                State::Up(service)
            }
        }
    }

    /// Goes on with a reload. Whatever else happens ends it, and the old configuration is in force.
    fn reload(&mut self, mut service: Service, mut reload: Box<Reload>) -> State {
        let trusted = self.serve_frames(&mut service);
        let heard = self.heard.take();
        if !trusted {
            service.broker.wait(LAST_WORDS);
        }
        let mut died = service.broker.ended().is_some();
        for (index, gate) in service.gates.iter_mut().enumerate() {
            died |= !reload.may_end(index) && gate.child.ended().is_some();
        }
        // What a broker has taken over is in force, even if it has died since: it may have been used by then.
        let taken = heard == Some(Control::Reloaded) && reload.is_handed();
        if !taken && (!trusted || died || service.is_hung()) {
            self.askers.splice(0..0, std::mem::take(&mut reload.askers));
            // What is new ends before anybody reads that there is nothing new.
            drop(reload);
            let why = match (died, trusted) {
                (true, _) => "the broker or a gate died meanwhile: both are replaced",
                (_, false) => "the broker sent what no broker of ours sends: it is replaced",
                (_, true) => "the broker does not answer: it is replaced",
            };
            let why = Fault::new(why);
            return self.end_reload(service, &Err(why), Some("a reload was cut off"));
        }
        let askers = reload.askers.clone();
        match reload.step(self.setup, &mut service, heard) {
            Turn::Wait(reload) => State::Reloading(service, reload),
            Turn::Done(order, digest) => {
                self.orders.renumber(&order);
                self.askers.splice(0..0, askers);
                for note in &self.setup.config.notes {
                    log::warn!("{note}");
                }
                self.end_reload(service, &Ok(digest), None)
            }
            Turn::Kept(why) => {
                self.askers.splice(0..0, askers);
                self.end_reload(service, &Err(why), None)
            }
            Turn::Replace(why) => {
                self.askers.splice(0..0, askers);
                self.end_reload(service, &Err(why), Some("a reload came to no end"))
            }
            Turn::Stopped => {
                self.stop = true;
                self.askers.splice(0..0, askers);
                self.end_reload(service, &Err(Fault::new("nsecd is stopping")), Some("a reload was cut off"))
            }
        }
    }

    /// Answers; `replace`: why broker and gates have to be replaced, where they have.
    fn end_reload(&mut self, service: Service, outcome: &Result<String, Fault>, replace: Option<&str>) -> State {
        self.resting = false;
        let Some(why) = replace else {
            self.answer_askers(outcome);
            self.notify.tell("READY=1\nSTATUS=serving");
            return State::Up(service);
        };
        reload::restore_access(self.setup);
        self.notify.tell("READY=1");
        let state = self.replace_now(service, why, self.stop);
        self.answer_askers(outcome);
        state
    }

    /// Tells everybody who has asked by now how a reload went; beside it SHA-256 of the file that is in force.
    fn answer_askers(&mut self, outcome: &Result<String, Fault>) {
        for Asker { connection, uid } in std::mem::take(&mut self.askers) {
            let by = uid.map_or("SIGHUP".to_owned(), |uid| format!("uid {uid}"));
            match outcome {
                Ok(digest) => {
                    log::info!("the configuration was reloaded, asked by {by} (SHA-256 of the file {digest})")
                }
                Err(why) => log::error!("the configuration is not reloaded, asked by {by}; the old one stays: {why}"),
            }
            let Some(connection) = connection else { continue };
            let replies = match outcome {
                Ok(_) => vec![Reply::done()],
                Err(why) => refusal(&why.to_string()),
            };
            self.setup.control.answer(connection, &replies);
        }
        // A reload reads as much as a start.
        nsecd_pages::drop_clean_pages();
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
                // There may never be a broker to hand a configuration to.
                self.answer_askers(&Err(Fault::new(format!("broker and gates do not start: {why}"))));
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
                Frame::Control(said @ (Control::Quiet | Control::Reloaded | Control::NotReloaded)) if self.resting => {
                    self.heard = Some(said);
                    // What comes after it may be about what is new by then. Not counted: there are two for each reload that the
                    // operator asks for, however fast, and one too many ends that.
                    return true;
                }
                // Its death, if that is what it is, is told by its process.
                Frame::Control(_) | Frame::Broken => return false,
            }
            if self.is_flooded() {
                return false;
            }
        }
    }

    /// Counts a frame; whether there have been more than an honest broker sends.
    fn is_flooded(&mut self) -> bool {
        if self.window.elapsed() > FRAME_WINDOW {
            self.window = Instant::now();
            self.frames = 0;
        }
        self.frames += 1;
        self.frames > MOST_FRAMES
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
        let at = service.numbers.socket(index);
        let Some(alerts) = at.and_then(|at| self.setup.alert_logs.get_mut(at)) else { return false };
        let now = Instant::now();
        // A broker that asks for more has been hijacked: it would rotate its history away. And amid a reload it may have the log of
        // the configuration that comes.
        if self.resting || alerts.is_fresh(now) || alerts.size() < self.setup.config.state.log_size {
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
