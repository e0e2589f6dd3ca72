//! B25: who may ask at the control socket, and what everything else that arrives there does: nothing.
//!
//! Checked: red with the uid not looked at, with a longer frame taken for a request, and with silent peers kept for ever or all of them.

use crate::support::client::code;
use crate::support::control::{answer, connect, frame, freeze, order, socket, thaw};
use crate::support::ctl::{ALICE, BOB};
use crate::support::daemon::OPEN;
use crate::support::{Finally, Nsecd, Setup, missing, not_root, process, root};
use nsecd_policy::operator::{Command, REQUEST, Status};
use std::fs;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;

fn signs(nsecd: &Nsecd) -> bool {
    let reply = nsecd.connect().sign(1, None);
    assert!(reply["event"].is_object() || code(&reply) == "frozen", "{reply}");
    reply["event"].is_object()
}

#[test]
fn the_control_socket_is_roots_and_nsecds_own_users_whatever_its_mode_is() {
    if not_root("asking as other users") || missing("setpriv", "--version") {
        return;
    }
    // nsecd's own user is Alice here; then it is root.
    for (owner, strangers) in [(Some(ALICE), &[BOB, 65_534][..]), (None, &[ALICE, 65_534])] {
        let nsecd = Setup::of(owner, OPEN).start();
        let admin = nsecd.dir.join("admin");
        let path = admin.to_str().unwrap();
        let program = nsecd.dir.program(env!("CARGO_BIN_EXE_nsecctl").as_ref());
        let run = |uid: u32, word: &str| {
            let mut command = std::process::Command::new("setpriv");
            command.args([format!("--reuid={uid}"), format!("--regid={uid}"), "--clear-groups".into()]);
            let output = command.arg(&program).args([word, "--admin-dir", path]).output().unwrap();
            (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
        };
        assert_eq!(fs::metadata(&admin).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(fs::metadata(socket(&nsecd)).unwrap().permissions().mode() & 0o777, 0o600);
        for uid in strangers {
            assert_eq!(run(*uid, "freeze").0, 3, "the directory is closed");
        }
        // Somebody has opened both.
        fs::set_permissions(&admin, fs::Permissions::from_mode(0o777)).unwrap();
        fs::set_permissions(socket(&nsecd), fs::Permissions::from_mode(0o666)).unwrap();
        for uid in strangers {
            let (code, text) = run(*uid, "freeze");
            assert_eq!(code, 1, "{text}");
            assert!(text.contains("only root and the user that nsecd runs as"), "{text}");
        }
        assert!(signs(&nsecd), "a stranger froze it");
        assert!(nsecd.stderr().contains("is refused at the control socket"), "{}", nsecd.stderr());
        // Control: those who may.
        assert_eq!(run(owner.unwrap_or(0), "freeze").0, 0);
        assert!(!signs(&nsecd));
        for uid in strangers {
            assert_eq!(run(*uid, "thaw").0, 1);
        }
        assert!(!signs(&nsecd), "a stranger thawed it");
        assert_eq!(run(0, "thaw").0, 0);
        assert!(signs(&nsecd));
    }
}

#[test]
fn what_is_no_frame_does_nothing() {
    let nsecd = Nsecd::start(OPEN);
    let good = frame(Command::Freeze, "");
    let with = |at: usize, byte: u8| {
        let mut frame = good.clone();
        frame[at] = byte;
        frame
    };
    let mut long = good.clone();
    long.push(0);
    let mut cases =
        vec![long, vec![0; REQUEST], vec![0xff; REQUEST], b"{\"method\":\"freeze\"}\n".repeat(4), vec![1; 100_000]];
    cases.extend([
        with(0, 2),
        with(1, 0),
        with(1, 9),
        with(2, 1),
        with(3, 1),
        with(5, b'x'),
        with(REQUEST - 1, b'x'),
        with(4, 0xff),
    ]);
    for bytes in &cases {
        let mut stream = connect(&nsecd);
        // It may have answered and closed before all is written.
        let _ = stream.write_all(bytes);
        let replies = answer(&mut stream);
        assert!(replies.iter().all(|r| r.status == Status::Malformed), "{replies:?}");
    }
    // Cut short at every length.
    for size in 0..REQUEST {
        let mut stream = connect(&nsecd);
        stream.write_all(&good[..size]).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let replies = answer(&mut stream);
        assert_eq!((replies.len(), replies[0].status), (1, Status::Malformed), "{size} bytes");
        // And gone without a word.
        connect(&nsecd).write_all(&good[..size]).unwrap();
    }
    assert!(signs(&nsecd));
    // Control: the same frame in pieces.
    let mut stream = connect(&nsecd);
    for byte in good.chunks(1) {
        stream.write_all(byte).unwrap();
    }
    assert_eq!(answer(&mut stream)[0].status, Status::Done);
    assert!(!signs(&nsecd));
}

#[test]
fn floods_and_silent_peers_keep_neither_the_operator_out_nor_the_supervisor_from_its_children() {
    let nsecd = Nsecd::start(OPEN);
    let before = if root() { process::descriptors(nsecd.pid()).len() } else { 0 };
    let silent: Vec<UnixStream> = (0..100)
        .map(|n| {
            let mut stream = connect(&nsecd);
            stream.write_all(&frame(Command::Freeze, "")[..n % REQUEST]).unwrap();
            stream
        })
        .collect();
    // One that is answered came after them.
    order(&nsecd, Command::Status, "");
    if root() {
        let now = process::descriptors(nsecd.pid()).len();
        assert!(now <= before + 8, "{now} descriptors, {before} before");
    }
    let over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !over.load(std::sync::atomic::Ordering::Relaxed) {
                    let mut stream = connect(&nsecd);
                    let _ = stream.write_all(&[0xa5; 40]);
                }
            });
        }
        let _end = Finally(|| over.store(true, std::sync::atomic::Ordering::Relaxed));
        for _ in 0..3 {
            nsecd.kill("nsecd-broker");
            nsecd.serves();
            freeze(&nsecd);
            assert!(!signs(&nsecd));
            thaw(&nsecd);
            assert!(signs(&nsecd));
        }
    });
    // None was answered, and none is kept for ever.
    for mut stream in silent {
        // A tracer of another test's may interrupt it: `read_to_end` goes on.
        let mut answer = Vec::new();
        match stream.read_to_end(&mut answer) {
            Ok(0) => {}
            Err(e) => assert_eq!(e.kind(), std::io::ErrorKind::ConnectionReset, "still held"),
            Ok(_) => panic!("an answer to silence"),
        }
    }
    freeze(&nsecd);
}

#[test]
fn a_peer_that_reads_no_answer_or_has_gone_holds_up_nothing() {
    let nsecd = Nsecd::start(OPEN);
    let mut deaf = Vec::new();
    for n in 0..200 {
        let mut stream = connect(&nsecd);
        stream.write_all(&frame(if n % 2 == 0 { Command::Freeze } else { Command::Thaw }, "")).unwrap();
        if n % 3 > 0 {
            deaf.push(stream);
        }
    }
    freeze(&nsecd);
    assert!(!signs(&nsecd));
    assert_eq!(order(&nsecd, Command::Status, "")[0].status, Status::Done);
    drop(deaf);
}

/// Descriptors sent along stay with whoever sent them.
#[test]
fn a_descriptor_sent_to_the_control_socket_is_not_taken() {
    if not_root("reading the descriptors of a non-dumpable process") {
        return;
    }
    use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
    use std::os::fd::AsRawFd;
    let nsecd = Nsecd::start(OPEN);
    let count = || process::descriptors(nsecd.pid()).len();
    let before = count();
    let mut stream = connect(&nsecd);
    let passed = [stream.as_raw_fd(); 8];
    let bytes = frame(Command::Freeze, "");
    let parts = [std::io::IoSlice::new(&bytes)];
    sendmsg::<()>(stream.as_raw_fd(), &parts, &[ControlMessage::ScmRights(&passed)], MsgFlags::empty(), None).unwrap();
    assert_eq!(answer(&mut stream)[0].status, Status::Done);
    assert_eq!(count(), before);
}
