//! A full record is put aside between two gates: nothing is lost, forgiven or followed.
//!
//! Checked: the first test is red with the broker killed instead of drained, with the old file not handed to the gate, and (by
//! waiting in vain) with no look at the sizes at run time; the second with no rotation at the start or the old file not handed over;
//! the third with an old name that is not looked at before anything moves; the fourth with the old file not handed over.

use crate::support::daemon::OPEN;
use crate::support::{Client, Exit, Nsecd, PUBLIC_KEY, Setup, client, event, root, sys};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

/// The smallest record that is ever full: 1023 rows.
const SMALL: &str = "[state]\nlog_size = \"64KiB\"\nlog_keep = 50\n";
const FULL: u32 = 1023;

fn small(config: &str) -> String {
    format!("{SMALL}{config}")
}

fn request(content: &str) -> String {
    client::line("sign_event", json!({"kind": 1, "content": content}))
}

/// A stopped nsecd whose record is full by [`SMALL`].
fn filled() -> Exit {
    let nsecd = Nsecd::start(OPEN);
    let mut client = nsecd.connect();
    for n in 0..FULL {
        client.send(request(&format!("{n}")));
        assert!(client.reply().get("event").is_some());
    }
    nsecd.signal(Signal::SIGTERM);
    nsecd.wait()
}

/// Ready to go on with the state of `before`.
fn with_state(config: &str, before: &Exit) -> Setup {
    let setup = Setup::new(config);
    fs::remove_dir(setup.dir.join("state")).unwrap();
    fs::rename(before.dir.join("state"), setup.dir.join("state")).unwrap();
    setup
}

/// One request over a connection of its own, and its one answer, an event's id.
fn ask_once(socket: &Path, content: &str) -> String {
    let mut client = Client::connect(socket);
    client.send(request(content));
    client.half_close();
    let answer = client.rest();
    assert!(answer.ends_with('\n') && answer.lines().count() == 1, "{answer:?}");
    let reply: Value = serde_json::from_str(&answer).unwrap();
    let event = event::signed(&reply, PUBLIC_KEY);
    assert_eq!(event["content"], json!(content));
    event["id"].as_str().unwrap().into()
}

/// The files of the default account's record, the oldest first.
fn files(state: &Path) -> Vec<PathBuf> {
    let old = (1..).map(|n| state.join(format!("default.record.{n}"))).take_while(|path| path.exists());
    let mut files: Vec<PathBuf> = [state.join("default.record")].into_iter().chain(old).collect();
    files.reverse();
    files
}

fn number(bytes: &[u8]) -> u64 {
    u64::from_be_bytes(bytes.try_into().unwrap())
}

/// The ids of all rows, once every header and every sequence number is right.
fn ids_on_record(state: &Path) -> Vec<String> {
    let (mut next, mut hash, mut ids) = (1, [0; 32], Vec::new());
    for path in files(state) {
        let bytes = fs::read(&path).unwrap();
        assert_eq!(&bytes[..8], b"nsecrec\x01");
        assert_eq!((number(&bytes[24..32]), &bytes[32..64]), (next, &hash[..]), "{}", path.display());
        for row in bytes[64..].chunks(64) {
            assert_eq!((row.len(), number(&row[..8])), (64, next), "{}", path.display());
            ids.push(event::hex(&row[32..]));
            next += 1;
        }
        hash = Sha256::digest(&bytes).into();
    }
    ids
}

/// Ends the clients when it goes, also where the test fails.
struct Load<'a>(&'a AtomicBool);

impl Drop for Load<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn records_are_rotated_under_load_and_every_request_gets_its_one_answer() {
    let nsecd = Nsecd::start(&small(OPEN));
    let enough = AtomicBool::new(false);
    let mut answered: Vec<String> = std::thread::scope(|scope| {
        let client = |name: u32| {
            let (socket, enough) = (&nsecd.socket, &enough);
            let more = (0..).take_while(move |_| !enough.load(Ordering::Relaxed));
            move || more.map(|n: u32| ask_once(socket, &format!("{name}-{n}"))).collect::<Vec<_>>()
        };
        let load = Load(&enough);
        let clients: Vec<_> = (0..4).map(|name| scope.spawn(client(name))).collect();
        for _ in 0..3 {
            // Served again, so there is one gate.
            nsecd.serves();
            let gate = sys::pidfd(nsecd.role("nsecd-gate")).unwrap();
            assert!(!sys::wait_any(&[gate.as_fd()]).is_empty(), "a full record is not put aside");
        }
        drop(load);
        clients.into_iter().flat_map(|client| client.join().unwrap()).collect()
    });
    nsecd.serves();
    let state = nsecd.dir.join("state");
    assert!(files(&state).len() > 3);
    let mut recorded = ids_on_record(&state);
    answered.sort();
    recorded.sort();
    assert!(recorded == answered, "{} rows, {} answers", recorded.len(), answered.len());
    assert!(!nsecd.stderr().contains("died"), "a rotation is no crash");
}

#[test]
fn a_rotation_refills_no_ceiling() {
    let ceiling = |of: &str| small(&OPEN.replace("ceiling = \"none\"", &format!("ceiling = \"{of}\"")));
    let nsecd = with_state(&ceiling("1000, 1/h"), &filled()).start();
    let state = nsecd.dir.join("state");
    assert_eq!(files(&state).len(), 2, "control: it was put aside");
    assert!(nsecd.connect().sign(1, None).get("event").is_none());
    assert_eq!(ids_on_record(&state).len(), FULL as usize);
    // Control: a bucket that is larger than these uses has something left.
    let nsecd = with_state(&ceiling("2000, 1/h"), &filled()).start();
    event::signed(&nsecd.connect().sign(1, None), PUBLIC_KEY);
}

#[test]
fn what_is_planted_at_an_old_records_name_stops_the_rotation_and_not_the_service() {
    for planted in ["link", "dir", "foreign"] {
        if planted == "foreign" && !root() {
            continue;
        }
        let state = filled();
        let setup = with_state(&small(OPEN), &state);
        let at = setup.dir.join("state/default.record.1");
        let precious = setup.dir.file("precious", 0o600, None, b"data");
        match planted {
            "link" => symlink(&precious, &at).unwrap(),
            "dir" => fs::create_dir(&at).unwrap(),
            _ => {
                fs::write(&at, "data").unwrap();
                chown(&at, Some(1234), None).unwrap();
            }
        }
        let inode = fs::symlink_metadata(&at).unwrap().ino();
        let nsecd = setup.start();
        event::signed(&nsecd.connect().sign(1, None), PUBLIC_KEY);
        assert!(nsecd.stderr().contains("goes on in the same file"), "{planted}: {}", nsecd.stderr());
        nsecd.kill("nsecd-gate");
        event::signed(&nsecd.connect().sign(1, None), PUBLIC_KEY);
        let record = fs::read(nsecd.dir.join("state/default.record")).unwrap();
        assert_eq!((record.len(), number(&record[24..32])), (64 * (1 + FULL as usize + 2), 1), "{planted}");
        assert_eq!(fs::symlink_metadata(&at).unwrap().ino(), inode, "{planted}");
        assert_eq!(fs::read(&precious).unwrap(), b"data");
    }
}

#[test]
fn a_file_before_the_record_that_is_no_record_stops_the_start_with_advice() {
    let setup = Setup::new(OPEN);
    setup.dir.file("state/default.record.1", 0o600, None, &[b'x'; 200]);
    let exit = setup.refused();
    assert!(
        exit.stderr.contains("default.record in ") && exit.stderr.contains("cannot be continued"),
        "{}",
        exit.stderr
    );
    assert!(exit.stderr.contains("the previous file: it is not a record"), "{}", exit.stderr);
    assert_eq!(fs::read(exit.dir.join("state/default.record.1")).unwrap(), [b'x'; 200]);
}
