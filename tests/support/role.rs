//! Runs one role alone, with the test in its supervisor's and its peers' places.

use super::freeze::Words;
use super::sys;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nsecd_policy::hello::decode;
use nsecd_records::{Bucket, with_record};
use nsecd_sandbox::hello::{self, Hello, VERSION};
use std::collections::VecDeque;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, Stdio};

/// Bytes of a signing reply: id(32) ‖ status(1) ‖ signature(64).
pub const REPLY: usize = 97;

/// A role's process and our ends of its descriptors.
pub struct Role {
    /// The process.
    pub child: Child,
    /// Its pidfd, readable when it has ended.
    pub ended: OwnedFd,
    /// What it said when it was locked.
    pub hello: Hello,
}

impl Drop for Role {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A pair of sequenced-packet or stream sockets.
pub fn pair(kind: SockType) -> (File, OwnedFd) {
    let (ours, theirs) = socketpair(AddressFamily::Unix, kind, None, SockFlag::SOCK_CLOEXEC).unwrap();
    (ours.into(), theirs)
}

/// The command line of a role whose supervisor is this test.
pub fn command(binary: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(binary);
    command.env_clear().stdin(Stdio::null()).stdout(Stdio::null());
    command.args([VERSION, &std::process::id().to_string(), "-", "-"]).args(arguments);
    sys::die_with_us(&mut command);
    command
}

/// Starts `command` with these descriptors and waits for its hello on `hello_end`.
pub fn start(mut command: Command, fds: Vec<(OwnedFd, i32)>, hello_end: &mut File) -> Role {
    sys::give_fds(&mut command, fds);
    let child = command.spawn().unwrap();
    // Our copies of the role's ends live in the command: without it the role's end is closed when it dies.
    drop(command);
    let ended = sys::pidfd(child.id() as i32).unwrap();
    assert_eq!(sys::wait_any(&[hello_end.as_fd()]), [0], "no hello");
    let mut frame = [0; hello::LEN + 1];
    let size = hello_end.read(&mut frame).unwrap();
    let hello = decode(&frame[..size]).expect("a hello of this version");
    Role { child, ended, hello }
}

/// Ceilings as the tests write them: `none` or `burst,tokens,seconds`, with slashes between.
pub fn buckets(ceilings: &str) -> Vec<Option<Bucket>> {
    let bucket = |text: &str| {
        let numbers: Vec<u32> = text.split(',').filter_map(|n| n.parse().ok()).collect();
        (text != "none").then(|| Bucket { burst: numbers[0], tokens: numbers[1], seconds: numbers[2] })
    };
    ceilings.split('/').map(bucket).collect()
}

/// A gate with our hands on both sides of it.
pub struct Gate {
    /// Its process.
    pub role: Role,
    /// The broker's end.
    pub broker: File,
    /// The key-holder's end.
    pub holder: File,
    /// Its record, open for reading.
    pub record: File,
    /// Its freeze page and busy word.
    pub words: Words,
    /// Replies that came with others and have not been taken.
    replies: VecDeque<[u8; REPLY]>,
}

impl Gate {
    /// Starts one for the recorded cases' key, with `record` in this directory, and `record.1` if there is one.
    pub fn start(dir: &super::Dir, kinds: &str, created_at: &str, ceiling: &str) -> Gate {
        Gate::with_seals(dir, kinds, created_at, created_at, ceiling)
    }

    /// The same with a window of kind 13's own.
    pub fn with_seals(dir: &super::Dir, kinds: &str, created_at: &str, seals: &str, ceiling: &str) -> Gate {
        let (holder, holder_end) = pair(SockType::SeqPacket);
        let (broker, broker_end) = pair(SockType::SeqPacket);
        let (mut supervisor, supervisor_end) = pair(SockType::SeqPacket);
        let record =
            File::options().read(true).write(true).create(true).truncate(false).open(dir.join("record")).unwrap();
        let previous = File::open(dir.join("record.1")).ok();
        let [ceilings, position] = with_record(&buckets(ceiling), &record, previous.as_ref()).unwrap();
        let arguments = [super::PUBLIC_KEY, kinds, created_at, seals, &ceilings, &position];
        let command = command(env!("CARGO_BIN_EXE_nsecd-gate"), &arguments);
        let record_end = record.try_clone().unwrap().into();
        let words = Words::new();
        let mut fds = vec![(holder_end, 3), (broker_end, 4), (supervisor_end, 5), (record_end, 6)];
        fds.extend(words.fds(7));
        let role = start(command, fds, &mut supervisor);
        Gate { role, broker, holder, record, words, replies: VecDeque::new() }
    }

    /// Sends one event as the broker does.
    pub fn send(&mut self, event: &[u8]) {
        let mut frame = (event.len() as u32).to_be_bytes().to_vec();
        frame.extend_from_slice(event);
        self.push(&frame);
    }

    /// Sends bytes as the broker does: in packets that the gate reads whole.
    pub fn push(&mut self, bytes: &[u8]) {
        bytes.chunks(16 * 1024).for_each(|packet| self.broker.write_all(packet).unwrap());
    }

    /// The id that reaches the key-holder, if one does before `reply` comes to the broker; answered with a signature of 0x55.
    pub fn forwarded(&mut self) -> Option<[u8; 32]> {
        let ready = sys::wait_any(&[self.holder.as_fd(), self.broker.as_fd(), self.role.ended.as_fd()]);
        if ready.first() != Some(&0) {
            return None;
        }
        let mut packet = [0; 100];
        let size = self.holder.read(&mut packet).unwrap();
        if size == 0 {
            return None; // the gate has gone
        }
        let id: [u8; 32] = packet[..size].try_into().expect("a packet of 32 bytes");
        let mut reply = [0x55; REPLY];
        reply[..32].copy_from_slice(&id);
        reply[32] = 0;
        self.holder.write_all(&reply).unwrap();
        Some(id)
    }

    /// The reply to the broker; `None` if the gate has gone.
    pub fn reply(&mut self) -> Option<[u8; REPLY]> {
        if self.replies.is_empty() {
            let mut packet = [0; 8 * REPLY + 1];
            let size = self.broker.read(&mut packet).ok()?;
            assert_eq!(size % REPLY, 0, "a packet of {size} bytes");
            self.replies.extend(packet[..size].as_chunks().0);
        }
        self.replies.pop_front()
    }
}

/// A key-holder that holds `key`, with our hand in the gate's place.
pub fn key_holder(key: &[u8]) -> (Role, File) {
    let (mut gate, end) = pair(SockType::SeqPacket);
    let (source, mut writer) = std::io::pipe().unwrap();
    writer.write_all(key).unwrap();
    drop(writer);
    let mut command = command(env!("CARGO_BIN_EXE_nsecd-keyholder"), &["0", "fd"]);
    command.stdin(source);
    let role = start(command, vec![(end, 3)], &mut gate);
    (role, gate)
}

/// One id and its reply.
pub fn ask_holder(gate: &mut File, id: &[u8; 32]) -> [u8; REPLY] {
    gate.write_all(id).unwrap();
    let mut reply = [0; REPLY + 1];
    assert_eq!(sys::wait_any(&[gate.as_fd()]), [0], "the key-holder does not answer");
    assert_eq!(gate.read(&mut reply).unwrap(), REPLY);
    reply[..REPLY].try_into().unwrap()
}
