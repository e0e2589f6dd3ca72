//! An ECDH holder with our hands in the broker's and the supervisor's places.

use super::freeze::Words;
use super::role::{Role, buckets, command, pair, start};
use super::{Dir, sys};
use nix::sys::socket::SockType;
use nsecd_records::with_record;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::process::Command;

/// Bytes of a request: op(1) ‖ x-only public key(32) ‖ nonce(32).
pub const REQUEST: usize = 65;
/// Bytes of a reply: the request ‖ status(1) ‖ key(76).
pub const REPLY: usize = 142;

/// How one is started.
pub struct Options<'a> {
    /// Its key, in any form a source may hold.
    pub key: &'a str,
    /// As the supervisor passes them.
    pub ops: &'a str,
    pub peers: &'a str,
    pub ceiling: &'a str,
    /// Whether the record is open for reading only, so that no row can be written.
    pub read_only: bool,
    /// What else is to be done to the command.
    pub prepare: fn(&mut Command),
}

impl Default for Options<'_> {
    fn default() -> Self {
        let (key, ops, peers, ceiling) = (super::KEY_HEX, "1", "any", "none");
        Options { key, ops, peers, ceiling, read_only: false, prepare: |_| () }
    }
}

/// A running one.
pub struct Ecdh {
    /// Its process.
    pub role: Role,
    /// The broker's end.
    pub broker: File,
    /// Its record, open for reading.
    pub record: File,
    /// Its freeze page and busy word.
    pub words: Words,
}

/// A reply, taken apart.
#[derive(Debug)]
pub struct Reply {
    /// What it says was asked.
    pub request: [u8; REQUEST],
    /// How it ended.
    pub status: u8,
    /// The key, or zeros.
    pub key: [u8; 76],
}

impl Ecdh {
    /// Starts one with `ecdh.record` in this directory.
    pub fn start(dir: &Dir, options: Options) -> Ecdh {
        let (broker, broker_end) = pair(SockType::SeqPacket);
        let (mut supervisor, supervisor_end) = pair(SockType::SeqPacket);
        let path = dir.join("ecdh.record");
        let record = File::options().read(true).write(true).create(true).truncate(false).open(&path).unwrap();
        let record_end = if options.read_only { File::open(path) } else { record.try_clone() }.unwrap().into();
        let previous = File::open(dir.join("ecdh.record.1")).ok();
        let [ceiling, position] = with_record(&buckets(options.ceiling), &record, previous.as_ref()).unwrap();
        let (source, mut writer) = std::io::pipe().unwrap();
        writer.write_all(options.key.as_bytes()).unwrap();
        drop(writer);
        let Options { ops, peers, prepare, .. } = options;
        let arguments = [ops, peers, &ceiling, &position, "0", "fd"];
        let mut command = command(env!("CARGO_BIN_EXE_nsecd-ecdh"), &arguments);
        command.stdin(source);
        prepare(&mut command);
        let words = Words::new();
        let mut fds = vec![(broker_end, 3), (supervisor_end, 4), (record_end, 5)];
        fds.extend(words.fds(6));
        let role = start(command, fds, &mut supervisor);
        Ecdh { role, broker, record, words }
    }

    /// Sends a packet and returns what comes back; `None` if the holder has gone.
    pub fn send(&mut self, packet: &[u8]) -> Option<Reply> {
        self.broker.write_all(packet).ok()?;
        self.receive()
    }

    /// The next reply.
    pub fn receive(&mut self) -> Option<Reply> {
        assert!(!sys::wait_any(&[self.broker.as_fd()]).is_empty(), "the ECDH holder does not answer");
        let mut reply = [0; REPLY + 1];
        let size = self.broker.read(&mut reply).ok().filter(|size| *size > 0)?;
        assert_eq!(size, REPLY);
        let (request, rest) = reply.split_at(REQUEST);
        let (request, key) = (request.try_into().unwrap(), rest[1..77].try_into().unwrap());
        Some(Reply { request, status: rest[0], key })
    }

    /// Asks, and checks that the reply is to what was asked and holds a key if and only if its status is 0.
    pub fn ask(&mut self, op: u8, peer: &[u8; 32], nonce: &[u8; 32]) -> Result<[u8; 76], u8> {
        let request = [&[op], &peer[..], nonce].concat();
        let reply = self.send(&request).expect("a reply");
        assert_eq!(reply.request[..], request);
        assert_eq!(reply.status == 0, reply.key != [0; 76], "{reply:?}");
        if reply.status == 0 { Ok(reply.key) } else { Err(reply.status) }
    }

    /// The record's rows: sequence, kind, id.
    pub fn rows(&mut self) -> Vec<(u64, u32, [u8; 32])> {
        use std::os::unix::fs::FileExt;
        let mut content = vec![0; self.record.metadata().unwrap().len() as usize];
        self.record.read_exact_at(&mut content, 0).unwrap();
        let rows = content[64..].chunks_exact(64);
        assert_eq!(rows.remainder(), b"", "a torn row");
        let row = |row: &[u8]| {
            let number = |at: usize, size: usize| row[at..at + size].iter().fold(0, |n, b| n << 8 | u64::from(*b));
            (number(0, 8), number(24, 4) as u32, row[32..].try_into().unwrap())
        };
        rows.map(row).collect()
    }
}
