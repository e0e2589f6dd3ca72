//! Gates and broker: started together with fresh pairs between them, ended together.
//!
//! They are replaced as one, since a pair that a dead process used may hold half a message. Sockets, logs,
//! records and key-holders stay.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::fcntl::OFlag;
use nix::sys::socket::{ControlMessage, MsgFlags, recv, sendmsg};
use nix::unistd::{geteuid, pipe2};
use nsecd_policy::control::{self, Control};
use nsecd_policy::hello::names;
use nsecd_policy::{Kinds, Policy, Process};
use nsecd_sandbox::hello::Hello;

use crate::config::Account;
use crate::fault::{Fault, OrFault};
use crate::freeze::Freeze;
use crate::handover::{Files, policy};
use crate::holders::{Holder, packet_pair, set_nonblocking};
use crate::logging::syslog_for_broker;
use crate::numbers::Numbers;
use crate::page::Busy;
use crate::ready::{Expected, Handover, NotReady, PATIENCE, hellos};
use crate::record::Record;
use crate::setup::Setup;
use crate::spawn::{Child, Start};
use crate::uids::Ids;

/// How long a gate may take to notice that its broker is gone.
const FAREWELL: Duration = Duration::from_millis(500);

/// Bytes of journal that a broker reads in a second, at the very least.
const SLOWEST: u64 = 8 << 20;

/// How often the broker is asked whether it serves.
const PULSE: Duration = Duration::from_secs(5);
/// How long it may take to answer: its loop never waits, so a broker that is late has stopped.
const HUNG: Duration = Duration::from_secs(10);

/// A broker and the gates it asks.
pub struct Service {
    /// The broker's process.
    pub broker: Child,
    /// The gates, in the order of the accounts.
    pub gates: Vec<Gate>,
    /// Control frames to and from the broker.
    pub control: OwnedFd,
    /// Whether the broker has served a request.
    pub served: bool,
    /// When the broker was last asked whether it serves, and whether it still owes the answer.
    asked: Instant,
    owes: bool,
    /// Optional steps of the broker's lock that are missing.
    pub missing: u64,
    /// What the broker was given last.
    pub handed: Policy,
    /// The numbers by which the broker knows sockets and accounts.
    pub numbers: Numbers,
    /// Sockets, logs and gates that the broker was started with: what it has room for beside its connections goes by that.
    pub descriptors: usize,
    /// Open as long as the broker lives, for policies to come.
    pub policy: OwnedFd,
}

/// A gate that runs.
pub struct Gate {
    /// Its process.
    pub child: Child,
    /// Whether it is using its key.
    pub busy: Busy,
    /// Optional steps of its lock that are missing.
    pub missing: u64,
}

/// Whose gate is to be started.
pub struct Gated<'a> {
    /// The account.
    pub account: &'a Account,
    /// Its key-holder.
    pub holder: &'a Holder,
    /// Its record.
    pub record: &'a Record,
    /// Whether it is frozen.
    pub freeze: &'a Freeze,
    /// What the gate changes to.
    pub ids: Option<Ids>,
}

/// A gate that is being started.
struct Starting {
    child: Child,
    busy: Busy,
    /// Where its hello arrives.
    channel: OwnedFd,
    /// The broker's end of the pair to it.
    end: OwnedFd,
}

/// What the broker sent.
pub enum Frame {
    /// A control frame.
    Control(Control),
    /// Nothing more at the moment.
    Nothing,
    /// Anything else: it is not to be trusted any longer.
    Broken,
}

impl Service {
    /// Puts full records aside, starts all gates and the broker, and waits until each is locked.
    ///
    /// # Errors
    /// One could not start; all that had been started are gone again.
    pub fn start(setup: &mut Setup) -> Result<Service, NotReady> {
        setup.rotate_records();
        let setup = &*setup;
        let accounts = 0..setup.config.accounts.len();
        let mut gates = accounts.map(|index| begin_gate(setup, &gated(setup, index))).collect::<Result<Vec<_>, _>>()?;
        // The broker tells the operator what they lack.
        let mut locked: Vec<Expected> = gates
            .iter_mut()
            .map(|gate| Expected { child: &mut gate.child, channel: &gate.channel, role: b'G' })
            .collect();
        let gates_hellos = hellos(&mut locked, None, &setup.signals, PATIENCE)?;
        let (control, theirs) = packet_pair()?;
        let (policy_end, policy_pipe) = pipe2(OFlag::O_CLOEXEC).or_fault(|| "making the policy pipe".into())?;
        set_nonblocking(&policy_pipe)?;
        let syslog = syslog_for_broker();
        let decisions_previous = setup.decisions.previous(&setup.state)?;
        let files = Files {
            control: theirs.as_fd(),
            policy: policy_end.as_fd(),
            syslog: syslog.as_ref().map(AsFd::as_fd),
            decisions_previous: decisions_previous.as_ref().map(AsFd::as_fd),
            gates: gates.iter().map(|gate| gate.end.as_fd()).collect(),
            processes: processes(setup, gates.iter().map(|gate| &gate.child).zip(&gates_hellos)),
        };
        let (fds, handed) = policy(setup, &files);
        let message = encode(&handed)?;
        let descriptors = 2 * handed.sockets.len() + gates.len();
        let mut broker = Child::start(Start {
            name: "the broker".into(),
            program: "nsecd-broker",
            image: setup.images.broker.as_fd(),
            ids: setup.ids.broker,
            arguments: vec![],
            fds,
        })?;
        // The broker's and the gates' ends are theirs alone from here on: an end that we kept would hide a death.
        drop((theirs, policy_end));
        let gates: Vec<_> = gates.drain(..).map(Starting::without_end).collect();
        let mut expected = [Expected { child: &mut broker, channel: &control, role: b'B' }];
        let handover = Handover { pipe: &policy_pipe, rest: &message };
        // The broker reads the journal first, of which a hijacked one may have made a long one: that must not keep the next from starting.
        let patience = PATIENCE + Duration::from_secs(setup.journal.size() / SLOWEST);
        let hellos = hellos(&mut expected, Some(handover), &setup.signals, patience)?;
        Ok(Service {
            broker,
            numbers: Numbers::of(&handed),
            handed,
            descriptors,
            gates: ready(gates, &gates_hellos),
            control,
            served: false,
            asked: Instant::now(),
            owes: false,
            missing: hellos.first().map_or(0, |h| h.missing),
            policy: policy_pipe,
        })
    }

    /// The next frame from the broker. A descriptor sent along is dropped by the kernel: recv(2) takes none.
    pub fn receive(&self) -> Frame {
        let mut frame = [0; control::LEN + 1];
        match recv(self.control.as_raw_fd(), &mut frame, MsgFlags::MSG_DONTWAIT) {
            Ok(n) => Control::decode(&frame[..n]).map_or(Frame::Broken, Frame::Control),
            Err(nix::errno::Errno::EAGAIN) => Frame::Nothing,
            Err(_) => Frame::Broken,
        }
    }

    /// Asks the broker whether it serves, if that is due; returns when to look again.
    pub fn pulse(&mut self) -> Instant {
        if !self.owes && self.asked.elapsed() >= PULSE {
            // One that does not take the frame owes an answer all the same.
            self.send(Control::Ping, None);
            (self.asked, self.owes) = (Instant::now(), true);
        }
        self.asked + if self.owes { HUNG } else { PULSE }
    }

    /// Notes the broker's answer; false if it was not asked.
    pub fn answered(&mut self) -> bool {
        std::mem::replace(&mut self.owes, false)
    }

    /// Whether the broker answers within the time in which it is asked again.
    pub fn is_prompt(&self) -> bool {
        !self.owes || self.asked.elapsed() < PULSE
    }

    /// Whether the broker has stopped serving without dying.
    pub fn is_hung(&self) -> bool {
        self.owes && self.asked.elapsed() >= HUNG
    }

    /// Sends a frame, with a descriptor if one belongs to it; false if the broker does not take it at once.
    pub fn send(&self, frame: Control, fd: Option<BorrowedFd>) -> bool {
        let bytes = frame.encode();
        let raw = fd.map(|fd| [fd.as_raw_fd()]);
        let rights: Vec<ControlMessage> = raw.iter().map(|fd| ControlMessage::ScmRights(fd)).collect();
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        let parts = [std::io::IoSlice::new(&bytes)];
        sendmsg::<()>(self.control.as_raw_fd(), &parts, &rights, flags, None) == Ok(bytes.len())
    }

    /// Whether the gate of the account with this number may be using the key.
    pub fn uses_key(&mut self, index: usize) -> bool {
        self.gates[index].uses_key()
    }

    /// Begins to end a gate that has been using the key for too long. Its broker does not get over that, and both are replaced.
    pub fn end_gate(&mut self, index: usize, after: Duration) {
        let gate = &mut self.gates[index].child;
        log::error!("{} has been using a frozen key for {} s: it is ended", gate.name(), after.as_secs());
        gate.begin_kill();
    }

    /// Ends broker and gates.
    pub fn stop(mut self) {
        self.broker.kill();
        // With its broker gone a gate finishes what it holds and leaves.
        for gate in &mut self.gates {
            gate.child.wait(FAREWELL);
            gate.child.kill();
        }
    }
}

impl Gate {
    /// Whether it may be using the key. One that has ended is not, whatever its busy word says.
    pub fn uses_key(&mut self) -> bool {
        self.busy.is_set() && self.child.ended().is_none()
    }
}

/// What runs and how it is locked, but for the broker itself.
fn processes<'a>(setup: &Setup, gates: impl Iterator<Item = (&'a Child, &'a Hello)>) -> Vec<Process> {
    let own = geteuid().as_raw();
    let of = process;
    let missing = setup.missing.iter().map(|step| (*step).to_owned()).collect();
    let nsecd = Process { name: "nsecd".into(), pid: std::process::id() as i32, uid: own, missing };
    let holders = setup.holders.iter().zip(&setup.ids.holders).map(|(h, ids)| of(&h.child, *ids, h.missing));
    let ecdh = setup.ecdh.iter().map(|h| of(&h.child, setup.ids.ecdh, h.missing));
    let gates = gates.zip(&setup.ids.gates).map(|((child, hello), ids)| of(child, *ids, hello.missing));
    std::iter::once(nsecd).chain(holders).chain(ecdh).chain(gates).collect()
}

/// A role as the operator is told of it.
pub fn process(child: &Child, ids: Option<Ids>, missing: u64) -> Process {
    Process {
        name: child.name().to_owned(),
        pid: child.pid().as_raw(),
        uid: ids.map_or(geteuid().as_raw(), |ids| ids.uid),
        missing: names(missing).map(str::to_owned).collect(),
    }
}

impl Starting {
    fn without_end(self) -> (Child, Busy, OwnedFd) {
        (self.child, self.busy, self.channel)
    }
}

fn ready(gates: Vec<(Child, Busy, OwnedFd)>, hellos: &[Hello]) -> Vec<Gate> {
    let gate =
        |((child, busy, _), hello): ((Child, Busy, OwnedFd), &Hello)| Gate { child, busy, missing: hello.missing };
    gates.into_iter().zip(hellos).map(gate).collect()
}

/// The account with this index, as it is configured.
pub fn gated(setup: &Setup, index: usize) -> Gated<'_> {
    Gated {
        account: &setup.config.accounts[index],
        holder: &setup.holders[index],
        record: &setup.records[index],
        freeze: &setup.freezes[index],
        ids: setup.ids.gates[index],
    }
}

/// Starts gates for a broker that is there, and waits until each is locked; beside each the broker's end of the pair to it.
///
/// # Errors
/// One could not start; all that had been started are gone again.
pub fn start_gates(setup: &Setup, whose: &[Gated]) -> Result<Vec<(Gate, OwnedFd)>, NotReady> {
    let mut started = Vec::new();
    let mut ends = Vec::new();
    for gated in whose {
        let Starting { child, busy, channel, end } = begin_gate(setup, gated)?;
        started.push((child, busy, channel));
        ends.push(end);
    }
    let mut expected: Vec<Expected> =
        started.iter_mut().map(|(child, _, channel)| Expected { child, channel, role: b'G' }).collect();
    let hellos = hellos(&mut expected, None, &setup.signals, PATIENCE)?;
    Ok(ready(started, &hellos).into_iter().zip(ends).collect())
}

fn begin_gate(setup: &Setup, gated: &Gated) -> Result<Starting, Fault> {
    let (end, ours) = gate_pair()?;
    let (channel, theirs) = packet_pair()?;
    let busy = Busy::new()?;
    let child = gate(setup, gated, &ours, &theirs, &busy)?;
    Ok(Starting { child, busy, channel, end })
}

fn gate(setup: &Setup, of: &Gated, broker: &OwnedFd, channel: &OwnedFd, busy: &Busy) -> Result<Child, Fault> {
    let Gated { account, holder, record, freeze, ids } = *of;
    let ceilings = [Some(account.ceiling), account.seal_ceiling];
    let ceilings: Vec<_> = ceilings.into_iter().flatten().collect();
    let [ceilings, position] = record.arguments(&setup.state, &setup.config, &ceilings)?;
    let mut fds = setup.standard.triple();
    fds.extend([holder.channel.as_fd(), broker.as_fd(), channel.as_fd(), record.file().as_fd()]);
    fds.extend([freeze.page().as_fd(), busy.as_fd()]);
    Child::start(Start {
        name: format!("the gate of account {}", account.name),
        program: "nsecd-gate",
        image: setup.images.gate.as_fd(),
        ids,
        arguments: gate_arguments(account, &holder.public_key, ceilings, position),
        fds,
    })
}

/// Public key, kinds, created_at, that of seals, ceilings, the record's next row: as `nsecd_gate` reads them.
fn gate_arguments(account: &Account, public_key: &str, ceilings: String, position: String) -> Vec<String> {
    let kinds = match &account.kinds {
        Kinds::Any => "any".into(),
        Kinds::List(list) => list.iter().map(u16::to_string).collect::<Vec<_>>().join(","),
    };
    let window = |w: Option<(i64, i64)>| w.map_or("any".into(), |(lo, hi)| format!("{lo},{hi}"));
    let (created_at, seals) = (window(account.created_at), window(account.seals));
    vec![public_key.into(), kinds, created_at, seals, ceilings, position]
}

/// The broker's end, non-blocking, and the gate's. Packets, though both take what comes for a stream: whoever waits on a stream
/// socket is woken by each read of its peer's, for nothing.
fn gate_pair() -> Result<(OwnedFd, OwnedFd), Fault> {
    let (broker, gate) = packet_pair()?;
    set_nonblocking(&broker)?;
    Ok((broker, gate))
}

/// Length (u32, big-endian) ‖ JSON.
pub fn encode(policy: &impl serde::Serialize) -> Result<Vec<u8>, Fault> {
    let json = serde_json::to_vec(policy).or_fault(|| "writing the policy".into())?;
    let length = u32::try_from(json.len()).or_fault(|| "writing the policy".into())?;
    Ok([&length.to_be_bytes()[..], &json].concat())
}
