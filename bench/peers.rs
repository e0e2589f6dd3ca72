//! The other end of a measurement: this program again, in a process of its own.

use crate::support::Cgroup;
use nix::sys::socket::{MsgFlags, recv, send};
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// What makes this program a peer.
pub const FLAG: &str = "--be";

/// Its own process, ended with this value.
pub struct Peer(Child);

impl Peer {
    /// Starts one that is `what`; `stdin`: what it talks over.
    pub fn start(what: &str, arguments: &[&str], stdin: Option<OwnedFd>) -> Peer {
        Peer::by(Command::new(std::env::current_exe().unwrap()), what, arguments, stdin)
    }

    /// The same in a cgroup of its own.
    pub fn start_in(cgroup: &Cgroup, what: &str, arguments: &[&str]) -> Peer {
        Peer::by(cgroup.command(&std::env::current_exe().unwrap()), what, arguments, None)
    }

    fn by(mut command: Command, what: &str, arguments: &[&str], stdin: Option<OwnedFd>) -> Peer {
        command.args([FLAG, what]).args(arguments);
        command.stdin(stdin.map_or(Stdio::null(), Stdio::from));
        crate::support::sys::die_with_us(&mut command);
        Peer(command.spawn().unwrap())
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Is one.
pub fn be(what: &str, rest: &[String]) {
    match (what, rest) {
        ("pong", []) => pong(),
        ("echo", [socket]) => echo(&UnixListener::bind(socket).unwrap()),
        ("open-echo", [socket]) => open_echo(&UnixListener::bind(socket).unwrap()),
        (attack, [socket]) => crate::attackers::be(attack, Path::new(socket)),
        _ => panic!("{what} {rest:?}"),
    }
}

/// Answers 32 bytes with 97, as a key-holder does that does not sign.
fn pong() {
    let pair = std::io::stdin();
    let mut request = [0; 33];
    while recv(pair.as_raw_fd(), &mut request, MsgFlags::empty()).unwrap() == 32 {
        send(pair.as_raw_fd(), &[0; 97], MsgFlags::empty()).unwrap();
    }
}

/// Answers one line with itself and closes, as fast as it can be done.
fn echo(listener: &UnixListener) {
    for stream in listener.incoming() {
        answer(&mut stream.unwrap());
    }
}

/// Answers lines with themselves over one connection.
fn open_echo(listener: &UnixListener) {
    let mut stream = listener.accept().unwrap().0;
    while answer(&mut stream) {}
}

fn answer(stream: &mut UnixStream) -> bool {
    let mut line = [0; 4096];
    let size = stream.read(&mut line).unwrap();
    size > 0 && stream.write_all(&line[..size]).is_ok()
}
