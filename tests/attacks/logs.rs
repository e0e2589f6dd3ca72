//! A13: nothing that an agent sends forges a line of the alert log or fills the disk.
//!
//! Checked: with text written as it came, or with the flood neither counted nor the file rotated, tests of this file fail.

use crate::support::daemon::Setup;
use crate::support::{Client, Nsecd, client, not_root, sys};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Stdio};

const REFUSING: &str = "[[socket]]\npath = \"/run/x.sock\"\nkinds = [1]\n";
const FORGED: &str = "2026-01-01T00:00:00.000Z sign_event rejected: FORGED (kind=0, token=000000000000...)";

/// A line as the reference daemon writes it: ISO time with milliseconds, `Z`, a blank, printable text.
fn well_formed(line: &str) -> bool {
    let shape = line.get(..24).is_some_and(|time| {
        time.bytes().zip(*b"dddd-dd-ddTdd:dd:dd.dddZ").all(|(c, s)| if s == b'd' { c.is_ascii_digit() } else { c == s })
    });
    shape && line.as_bytes().get(24) == Some(&b' ') && !line.chars().any(char::is_control)
}

#[test]
fn a_newline_in_any_field_forges_no_line_of_the_alert_log() {
    let nsecd = Nsecd::start(REFUSING);
    let mut client = nsecd.connect();
    let token = client.session(json!({"scope": "1"}));
    for end in ["\n", "\r", "\r\n", "\u{85}", "\u{2028}", "\u{1b}[2K\n", "\0\n", "\u{202e}\n", "\u{7f}\n"] {
        let evil = format!("{end}{FORGED}{end}");
        for params in [
            json!({"kind": evil, "content": "x", "session_token": token}),
            json!({"kind": 0, "content": evil, "session_token": evil}),
            json!({"kind": 0, "content": "x", "session_token": token, "pid": evil}),
            json!({"kind": 1, "content": "x", "account": evil, "session_token": token}),
        ] {
            client::refused(&client.ask("sign_event", params));
        }
        client::refused(&client.ask(&evil, json!({})));
        for params in
            [json!({"scope": evil}), json!({"ttl": evil}), json!({"pid": evil, "scope": "0"}), json!({"account": evil})]
        {
            client::refused(&client.ask("session_start", params));
        }
        client.ask("session_revoke", json!({"token": evil}));
        client.ask("session_info", json!({"token": evil}));
    }
    let log = nsecd.alerts();
    assert!(log.lines().count() > 5, "refusals are logged:\n{log}");
    for line in log.split_inclusive('\n') {
        assert!(line.ends_with('\n') && well_formed(line.trim_end_matches('\n')), "{line:?}");
        assert!(!line.starts_with(FORGED));
    }
    assert!(!log.contains(&token), "a token in the log");
}

#[test]
fn a_refused_kind_and_a_rate_limit_are_logged_in_the_reference_daemons_words() {
    let nsecd = Nsecd::start(REFUSING);
    let mut client = nsecd.connect();
    let token = client.session(json!({"scope": "1"}));
    client.sign(0, Some(&token));
    while client.sign(1, Some(&token)).get("event").is_some() {}
    let log = nsecd.alerts();
    let mut lines = log.lines();
    let digits = {
        use sha2::{Digest, Sha256};
        crate::support::event::hex(&Sha256::digest(&token))[..12].to_string()
    };
    let first = lines.next().unwrap();
    assert!(well_formed(first), "{first}");
    let expected = format!("sign_event rejected: Event kind 0 not in session scope [1] (kind=0, token={digits}...)");
    assert_eq!(first[25..], expected);
    let second = lines.next().unwrap();
    assert_eq!(
        second[25..],
        format!("sign_event rate-limited: Rate limit: burst exceeded (5/5 in 10s) (token={digits}...)")
    );
}

#[test]
fn a_flood_of_refusals_is_summarised_and_the_log_stays_bounded() {
    let nsecd = Nsecd::start(&format!("[state]\nlog_size = \"64KiB\"\nlog_keep = 2\n{REFUSING}"));
    let mut client = nsecd.connect();
    let token = client.session(json!({"scope": "1"}));
    let huge = "A".repeat(100_000);
    for n in 0..20_000u32 {
        let reply = match n % 100 {
            0 => client.ask("sign_event", json!({"kind": 0, "content": huge, "session_token": huge})),
            1 => client.ask(&huge, json!({})),
            _ => client.sign(n % 65_536, Some(&token)),
        };
        assert!(n % 65_536 == 1 || reply["error"].is_string());
        assert!(reply.to_string().len() < 2_000, "a refusal repeats what was sent");
    }
    nsecd.serves();
    let logs: Vec<u64> = nsecd.files_in_state("alerts-").iter().map(|p| fs::metadata(p).unwrap().len()).collect();
    assert!(!logs.is_empty() && logs.len() <= 3, "{logs:?}");
    assert!(logs.iter().all(|size| *size <= 70 << 10), "{logs:?}");
}

#[test]
fn errors_name_no_other_account_and_no_path() {
    let nsecd = Nsecd::start(REFUSING);
    let mut client = nsecd.connect();
    let reply: Value = client.ask("get_public_key", json!({"account": "other"}));
    assert_eq!(client::refusal(&reply), "Unknown or unloaded account: other. Loaded: default");
    let reply = client.ask("sign_event", json!({"kind": 1, "content": "x", "session_token": "nope"}));
    assert_eq!(client::refusal(&reply), "Invalid session token");
}

/// A FIFO whose reader reads nothing, filled to the brim.
fn clogged(path: &Path) -> fs::File {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    nix::unistd::mkfifo(path, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
    let both = fs::File::options().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(path).unwrap();
    while (&both).write(&[b'x'; 4096]).is_ok() {}
    both
}

/// Checked: without the poll before stderr is written, in the broker or in the supervisor, this test does not end.
#[test]
fn a_log_that_nobody_reads_holds_up_no_signature() {
    let many = "[limits]\nlive_sessions = 1\nsessions_per_minute = 1000\n";
    let mut setup = Setup::new(&format!("{many}[[socket]]\npath = \"/run/x.sock\"\nkinds = [1]\n"));
    let fifo = setup.dir.join("unread");
    let kept = clogged(&fifo);
    let mut command = Command::new("sh");
    command.env_clear().current_dir("/").stdin(Stdio::null());
    command.args(["-c", "exec \"$0\" \"$@\" 2>\"$UNREAD\""]).arg(setup.command.get_program());
    command.args(setup.command.get_args()).env("UNREAD", &fifo);
    command.envs(setup.command.get_envs().filter_map(|(name, value)| value.map(|v| (name, v))));
    setup.command = command;
    let nsecd = setup.start();
    let mut client = nsecd.connect();
    // Each start ends the session before it, which the broker says in its log.
    let tokens: Vec<String> = (0..50).map(|_| client.session(json!({"scope": "1"}))).collect();
    assert!(client.sign(1, tokens.last().map(String::as_str)).get("event").is_some());
    // The supervisor says in its log that it replaces the broker.
    nsecd.kill("nsecd-broker");
    nsecd.serves();
    drop(kept);
}

/// A syslog of the test's own, whose queue is as short as the kernel makes it.
fn syslog(path: &Path) -> UnixDatagram {
    let _ = fs::remove_file(path);
    let socket = UnixDatagram::bind(path).unwrap();
    socket.set_read_timeout(Some(sys::PATIENCE)).unwrap();
    socket
}

/// Fills its queue, as that of one that has stopped.
fn fill(path: &Path) {
    let filler = UnixDatagram::unbound().unwrap();
    filler.set_nonblocking(true).unwrap();
    while filler.send_to(b"filler", path).is_ok() {}
}

/// Reads until a line has all of these in it.
fn await_line(syslog: &UnixDatagram, parts: &[&str]) -> String {
    let mut packet = [0; 8192];
    loop {
        let size = syslog.recv(&mut packet).unwrap_or_else(|e| panic!("no line with {parts:?}: {e}"));
        let line = String::from_utf8_lossy(&packet[..size]).into_owned();
        if parts.iter().all(|part| line.contains(part)) {
            return line;
        }
    }
}

/// All that is in its queue now.
fn drain(syslog: &UnixDatagram) -> Vec<String> {
    let mut lines = Vec::new();
    while !sys::is_empty(syslog) {
        let mut packet = [0; 8192];
        let size = syslog.recv(&mut packet).unwrap();
        lines.push(String::from_utf8_lossy(&packet[..size]).into_owned());
    }
    lines
}

/// In a mount namespace whose /dev/log leads to a socket of the test's own.
///
/// Checked: with lost lines not counted in the broker, with those of the supervisor not counted, or with sockets to syslog that block, this fails.
#[test]
fn a_syslog_that_is_stopped_and_full_holds_up_no_signature() {
    if not_root("a mount namespace of its own") {
        return;
    }
    let many = "[limits]\nlive_sessions = 1\nsessions_per_minute = 1000\n";
    let mut setup = Setup::new(&format!("{many}[[socket]]\npath = \"/run/x.sock\"\nkinds = [1]\n"));
    let (dev, path) = (setup.dir.subdir("dev", 0o755, None), setup.dir.join("syslog"));
    let service = syslog(&path);
    fill(&path);
    let script = r#"mount -t tmpfs nsecd-test "$DEV" || exit 1
        for d in null zero full random urandom; do : >"$DEV/$d"; mount --bind "/dev/$d" "$DEV/$d" || exit 1; done
        ln -s "$LOG" "$DEV/log"; mount --rbind "$DEV" /dev && exec "$0" "$@""#;
    let mut command = Command::new("unshare");
    command.env_clear().current_dir("/").stdin(Stdio::null()).args(["--mount", "sh", "-c", script]);
    command.arg(setup.command.get_program()).args(setup.command.get_args()).env("DEV", &dev).env("LOG", &path);
    command.envs(setup.command.get_envs().filter_map(|(name, value)| value.map(|v| (name, v))));
    setup.command = command;
    let nsecd = setup.start();
    let mut client = nsecd.connect();
    // Each start ends the session before it, which the broker says in its log.
    let session = |client: &mut Client| client.session(json!({"scope": "1"}));
    let tokens: Vec<String> = (0..50).map(|_| session(&mut client)).collect();
    assert!(client.sign(1, tokens.last().map(String::as_str)).get("event").is_some());
    // What it did not take is counted, and said once it takes lines again; stderr has had them all.
    assert!(drain(&service).iter().all(|line| line == "filler"));
    session(&mut client);
    await_line(&service, &["nsecd-broker", "earlier lines lost"]);
    assert!(!nsecd.stderr().contains("lines lost"), "{}", nsecd.stderr());
    // So it is with the supervisor, which says that it starts the broker anew.
    fill(&path);
    nsecd.kill("nsecd-broker");
    nsecd.serves();
    assert!(drain(&service).iter().all(|line| !line.contains("nsecd[")));
    nsecd.kill("nsecd-broker");
    nsecd.serves();
    await_line(&service, &["nsecd[", "earlier lines lost"]);
    // One that has ended, and one that takes its place.
    drop(service);
    nsecd.kill("nsecd-broker");
    nsecd.serves();
    let mut client = nsecd.connect();
    let token = session(&mut client);
    assert!(client.sign(1, Some(&token)).get("event").is_some());
    let service = syslog(&path);
    nsecd.kill("nsecd-broker");
    nsecd.serves();
    await_line(&service, &["nsecd[", "starting broker and gates anew", "earlier lines lost"]);
    let mut client = nsecd.connect();
    (0..2).for_each(|_| drop(session(&mut client)));
    await_line(&service, &["nsecd-broker"]);
}
