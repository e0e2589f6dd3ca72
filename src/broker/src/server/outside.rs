//! The gates, the supervisor and the alert logs.

use nix::errno::Errno;
use nix::sys::epoll::{EpollEvent, EpollFlags};
use nix::sys::socket::{MsgFlags, send};
use nsecd_policy::control::{self, Control};
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd};

use super::{End, GATE, Server};
use crate::alert::{Alert, AlertLog};
use crate::clock::{Clock, Now};
use crate::journal::Wish;
use crate::replay::open;
use crate::row::Row;
use crate::sys;

impl<C: Clock> Server<C> {
    /// Sends what a gate takes now, and asks epoll for the rest.
    pub(super) fn push_gate(&mut self, index: usize) -> Result<(), End> {
        let Some(gate) = self.gates.get_mut(index).and_then(Option::as_mut) else { return Ok(()) };
        gate.send()?;
        let waits = gate.wants_write();
        if std::mem::replace(&mut gate.watched, waits) != waits {
            let wanted = if waits { EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT } else { EpollFlags::EPOLLIN };
            let mut event = EpollEvent::new(wanted, GATE | index as u64);
            self.epoll.modify(gate.as_fd(), &mut event).map_err(|e| format!("epoll_ctl: {e}"))?;
        }
        Ok(())
    }

    /// Frames from the supervisor.
    pub(super) fn control_ready(&mut self) -> Result<(), End> {
        let mut frame = [0; control::LEN + 1];
        loop {
            let (length, fd) = match sys::receive(&self.control, &mut frame) {
                Ok((0, _)) => return Err("the supervisor is gone".to_owned()),
                Ok(packet) => packet,
                Err(Errno::EAGAIN | Errno::EINTR) => return Ok(()),
                Err(e) => return Err(format!("receiving from the supervisor: {e}")),
            };
            match Control::decode(&frame[..length]) {
                Some(Control::Drain) => {
                    self.resume()?;
                    self.drain();
                }
                Some(Control::Ping) => self.tell(Control::Pong),
                Some(Control::AlertLog(i)) => {
                    if let Some(alerts) = self.alerts_of(usize::from(i)) {
                        alerts.new_file(fd.map(File::from));
                    }
                }
                Some(Control::NoAlertLog(i)) => {
                    if let Some(alerts) = self.alerts_of(usize::from(i)) {
                        alerts.new_file(None);
                    }
                }
                Some(Control::Thawed) => {
                    self.engine.release();
                    self.keep();
                }
                Some(Control::DecisionLog) => self.decisions.new_file(fd.map(File::from), self.clock.now()),
                Some(Control::NoDecisionLog) => self.decisions.new_file(None, self.clock.now()),
                Some(Control::JournalFile) => {
                    let open = Row::Open(open(&self.policy, self.clock.now()));
                    self.journal.new_file(fd.map(File::from), &open, self.engine.ledger());
                }
                Some(Control::JournalNamed) => self.journal.replaced(),
                Some(Control::NoJournal) => self.journal.not_replaced(),
                Some(Control::Rest) => self.rest(),
                Some(frame @ (Control::NewListener(_) | Control::NewAlerts(_) | Control::NewGate(_))) => {
                    self.descriptor_came(frame, fd);
                }
                Some(Control::Resume) => self.resume()?,
                _ => return Err("the supervisor sent what no supervisor of this version sends".to_owned()),
            }
        }
    }

    /// Puts what has happened into the journal; false if the disk did not take it.
    pub(super) fn keep(&mut self) -> bool {
        let mut kept = true;
        let now = self.clock.now();
        for row in self.engine.take_rows() {
            self.decisions.happened(&row, now);
            kept = self.journal.append(&row);
        }
        kept
    }

    /// Puts it into the journal with the rows of other signatures of this round, before any of their gates is asked.
    pub(super) fn keep_together(&mut self) {
        let now = self.clock.now();
        for row in self.engine.take_rows() {
            self.decisions.happened(&row, now);
            self.journal.append_later(&row);
        }
    }

    /// Whether the journal has taken all rows; if not, what needs one is refused, since a restart would forget it.
    pub(super) fn can_keep(&mut self, now: Now) -> bool {
        let whole = self.journal.is_whole();
        if !whole {
            self.tell_operator(now, "the journal cannot be written, so nothing is signed: free space where it lies");
        }
        whole
    }

    /// Goes on with the replacement of a full journal.
    pub(super) fn renew_journal(&mut self, now: Now) {
        match self.journal.step(self.engine.ledger(), now.boot) {
            Some(Wish::NewFile) => self.tell(Control::NextJournal),
            Some(Wish::Replace(damaged)) => self.tell(Control::JournalWritten(damaged)),
            None => {}
        }
    }

    fn alerts_of(&mut self, socket: usize) -> Option<&mut AlertLog> {
        self.alerts.get_mut(socket)?.as_mut()
    }

    /// Writes a line to a socket's alert log.
    pub(super) fn alert(&mut self, socket: usize, alert: &Alert<'_>, now: Now) {
        let Some(alerts) = self.alerts_of(socket) else { return };
        alerts.write(alert, now);
        if alerts.wants_new_file() {
            self.tell(Control::NextAlertLog(u16::try_from(socket).unwrap_or(u16::MAX)));
        }
    }

    /// The first request has been served: should the broker die now, that is no crash loop.
    pub(super) fn note_served(&mut self) {
        if !std::mem::replace(&mut self.served, true) {
            self.tell(Control::Served);
        }
    }

    pub(super) fn tell(&self, frame: Control) {
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        if let Err(e) = send(self.control.as_raw_fd(), &frame.encode(), flags) {
            log::warn!("the supervisor does not take a frame: {e}");
        }
    }
}
