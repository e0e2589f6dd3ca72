//! The system's name services, asked in a child for what no file says.
//!
//! Services that are no files are libraries of their own (nss-systemd, with what it needs: 400 KiB), which the supervisor would keep. A
//! question takes them a hundred system calls, so none is asked that need not be.

use std::os::fd::OwnedFd;

use nix::unistd::{read, write};

use crate::fault::{Fault, OrFault};
use crate::names::{Known, system};
use crate::sys;

/// The longest question: what it is about, and the name or number.
const LONGEST: usize = 64;

/// Who answers.
pub struct Services {
    known: Known,
    /// Once somebody has to be asked.
    child: Option<sys::Answering>,
}

impl Services {
    /// Reads the files; nobody is asked yet.
    pub fn new() -> Services {
        Services { known: Known::read(), child: None }
    }

    /// Uid and gid of the user of that name.
    ///
    /// # Errors
    /// The child could not be started, or ended.
    pub fn user(&mut self, name: &str) -> Result<Option<(u32, u32)>, Fault> {
        match self.known.user(name) {
            Some(known) => Ok(known),
            None => self.ask(&format!("u{name}")).map(|[found, uid, gid]| (found != 0).then_some((uid, gid))),
        }
    }

    /// Whether a user or a group has this number, or it cannot be told.
    ///
    /// # Errors
    /// As of [`Services::user`].
    pub fn is_taken(&mut self, id: u32) -> Result<bool, Fault> {
        match self.known.is_taken(id) {
            Some(known) => Ok(known),
            None => self.ask(&format!("n{id}")).map(|[taken, ..]| taken != 0),
        }
    }

    fn ask(&mut self, question: &str) -> Result<[u32; 3], Fault> {
        let what = || "asking the system's name services for the roles' system users".to_owned();
        let child = match self.child.take() {
            Some(child) => child,
            None => sys::in_a_child(serve).or_fault(what)?,
        };
        let channel = &self.child.insert(child).channel;
        write(channel, question.as_bytes()).or_fault(what)?;
        let mut answer = [0; 12];
        match read(channel, &mut answer).or_fault(what)? {
            12 => {
                Ok([0, 4, 8].map(|at| u32::from_ne_bytes([answer[at], answer[at + 1], answer[at + 2], answer[at + 3]])))
            }
            _ => Err(Fault::new("the system's name services ended while they looked up the roles' system users")),
        }
    }
}

/// The child: a packet in, one out, until the other end is closed.
fn serve(channel: &OwnedFd) {
    let mut question = [0; LONGEST];
    while let Ok(length @ 1..) = read(channel, &mut question) {
        let question = String::from_utf8_lossy(&question[..length]);
        let answer = match question.split_at(1) {
            ("u", name) => system::user(name).map_or([0; 3], |(uid, gid)| [1, uid, gid]),
            (_, id) => [id.parse().map_or(true, system::is_taken).into(), 0, 0],
        };
        if write(channel, answer.map(u32::to_ne_bytes).as_flattened()).is_err() {
            return;
        }
    }
}
