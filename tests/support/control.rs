//! The operator's end of the control socket.

use super::Nsecd;
use super::sys::PATIENCE;
use nsecd_policy::operator::{Command, REPLY, Reply, Request, Status};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

/// Where it listens.
pub fn socket(nsecd: &Nsecd) -> PathBuf {
    nsecd.dir.join("admin/control.sock")
}

/// A connection that has said nothing.
pub fn connect(nsecd: &Nsecd) -> UnixStream {
    let stream = UnixStream::connect(socket(nsecd)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// The frame of a request.
pub fn frame(command: Command, account: &str) -> Vec<u8> {
    Request { command, account: account.into() }.encode().unwrap().into()
}

/// What is answered, up to the end of the stream.
pub fn answer(stream: &mut UnixStream) -> Vec<Reply> {
    let mut all = Vec::new();
    match stream.read_to_end(&mut all) {
        Ok(_) => {}
        // Closed with something of ours unread.
        Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => {}
        Err(e) => panic!("no answer: {e}"),
    }
    let replies: Vec<Reply> = all.chunks(REPLY).map(|f| Reply::decode(f.try_into().unwrap()).unwrap()).collect();
    let left: Vec<u16> = replies.iter().map(|r| r.left).collect();
    assert_eq!(left, (0..replies.len() as u16).rev().collect::<Vec<_>>());
    replies
}

/// One request and its answer.
pub fn order(nsecd: &Nsecd, command: Command, account: &str) -> Vec<Reply> {
    let mut stream = connect(nsecd);
    stream.write_all(&frame(command, account)).unwrap();
    answer(&mut stream)
}

/// Freezes all accounts; returns when that is acknowledged.
pub fn freeze(nsecd: &Nsecd) -> Vec<Reply> {
    let replies = order(nsecd, Command::Freeze, "");
    assert!(!replies.is_empty(), "not acknowledged:\n{}", nsecd.stderr());
    assert!(replies.iter().all(|r| r.status == Status::Done && r.frozen.is_some() && r.saved), "{replies:?}");
    replies
}

/// Thaws all accounts.
pub fn thaw(nsecd: &Nsecd) {
    let replies = order(nsecd, Command::Thaw, "");
    assert!(
        !replies.is_empty() && replies.iter().all(|r| r.status == Status::Done && r.frozen.is_none()),
        "{replies:?}"
    );
}
