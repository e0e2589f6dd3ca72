//! Hosts that are not at hand: fixture directories, and what follows from them; one in memory, on which every deed is made to fail.

mod defences;
mod failures;
mod host;

use super::ask::{Answer, ask};
use super::found::{Account, Files, Thing};
use super::journal::{Journal, Written};
use super::layout::Layout;
use super::live::Live;
use super::plan::{Plan, Step, Stops, plan};
use super::{Options, texts};
use crate::cli::{Cli, Command};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

const KEY: &str = "f9308a019258c31049344f85f89d5229b531c845836f99b08601f113bce036f9";
const OTHER: &str = "7e7e9c42a91bfef19fa929e5fda1b72e0ebc1a4c1141673e2794234d86addf4e";
const SOCKET: &str = "/run/user/1000/nostr-signer.sock";

/// A root directory, gone when the test ends.
struct Root(PathBuf);

impl Root {
    fn new(files: &[(&str, &str)]) -> Root {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("nsecctl-adopt-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let root = Root(std::env::temp_dir().join(name));
        for (path, text) in files {
            let path = root.0.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    fn look(&self, service: Option<&str>) -> Files {
        Files::look(&self.0, &nora(), service)
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn nora() -> Account {
    Account { name: "nora".into(), uid: 1000, gid: 1000, home: "/home/nora".into() }
}

const UNIT: &str = "home/nora/.config/systemd/user/nostr-signer.service";
const SHOWN: &str = "home/nora/.config/systemd/user/nostr-signer.service.d/log.conf";
const INSTALLED: [(&str, &str); 4] = [
    ("run/systemd/system/x", ""),
    ("lib/systemd/system/nsecd.service", ""),
    ("lib/systemd/system/nsecd.socket", ""),
    ("lib/systemd/system/nsecd@.socket", ""),
];

fn options(line: &str) -> Options {
    let words = format!("adopt --user nora {line}");
    match Cli::read(words.split_whitespace()).map(|cli| cli.command) {
        Ok(Command::Adopt(options)) => options,
        other => panic!("{other:?}"),
    }
}

/// A host of NanoClaw's, as it is found.
fn files() -> Files {
    Root::new(&[&INSTALLED[..], &[(UNIT, "[Service]\n")]].concat()).look(None)
}

fn live() -> Live {
    let answer = Answer { uid: 1000, public: KEY.into(), accounts: vec![], default: "default".into() };
    Live {
        account: Some(nora()),
        is_active: true,
        is_enabled: true,
        answer: Some((SOCKET.into(), answer)),
        keys: vec![("nsec".into(), KEY.into())],
        ..Live::default()
    }
}

fn made(files: &Files, live: &Live, line: &str) -> Plan {
    plan(files, live, &options(line)).unwrap_or_else(|stops| panic!("{stops:?}"))
}

fn stopped(files: &Files, live: &Live, line: &str) -> Stops {
    plan(files, live, &options(line)).expect_err("something stands in the way")
}

#[test]
fn the_unit_is_found_by_its_name_and_says_where_things_are() {
    let text =
        "[Service]\nEnvironment=\"SIGNER_ALERT_LOG=%h/a b.log\" NOSTR_SIGNER_SOCKET=%t/x.sock\n# Environment=A=b\n";
    let more = "[Service]\nEnvironment=SIGNER_SESSION_FILE=/var/lib/s.json NOSTR_SIGNER_SOCKET=%t/y%%.sock\n";
    let root = Root::new(&[
        (UNIT, text),
        ("home/nora/.config/systemd/user/nostr-signer.service.d/more.conf", more),
        ("etc/systemd/user/nostr-signer.service", "[Service]\nEnvironment=SIGNER_ALERT_LOG=/shadowed\n"),
        ("etc/systemd/user/other.service", ""),
        ("home/nora/a b.log", ""),
    ]);
    let files = root.look(None);
    assert_eq!(files.units.len(), 1, "{files:?}");
    assert_eq!(files.units[0].path, Path::new("/").join(UNIT));
    assert_eq!(files.units[0].environment["NOSTR_SIGNER_SOCKET"], "/run/user/1000/y%.sock");
    assert_eq!(files.logs, [("/home/nora/a b.log".into(), true), ("/var/lib/s.json".into(), false)]);
    assert_eq!(root.look(Some("other")).units[0].name, "other.service");
    assert!(!files.has_units && !files.has_systemd && files.config.is_none());
}

#[test]
fn a_users_fifo_or_mask_in_place_of_a_unit_holds_nothing_up() {
    let root = Root::new(&[("etc/systemd/user/x", "")]);
    let dir = root.0.join("etc/systemd/user");
    nix::unistd::mkfifo(&dir.join("a-nostr-signer.service"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    std::os::unix::fs::symlink("/dev/null", dir.join("b-nostr-signer.service")).unwrap();
    let units = root.look(None).units;
    assert!(units.len() == 1 && units[0].environment.is_empty(), "{units:?}");
}

#[test]
fn what_a_users_link_leads_to_is_not_opened_unless_it_is_a_file() {
    use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
    let root = Root::new(&[("home/nora/.config/systemd/user/x", ""), (SHOWN, "Environment=SIGNER_ALERT_LOG=/x")]);
    let device = root.0.join("device");
    nix::unistd::mkfifo(&device, nix::sys::stat::Mode::S_IRUSR).unwrap();
    std::os::unix::fs::symlink(&device, root.0.join(UNIT)).unwrap();
    let watch = Inotify::init(InitFlags::IN_NONBLOCK).unwrap();
    watch.add_watch(&device, AddWatchFlags::IN_OPEN).unwrap();
    watch.add_watch(&root.0.join(SHOWN), AddWatchFlags::IN_OPEN).unwrap();
    assert_eq!(root.look(None).logs, [("/x".into(), false)]);
    let opened = watch.read_events().unwrap();
    // The file next to it, which is read.
    assert_eq!(opened.len(), 1, "{opened:?}");
}

#[test]
fn what_systemd_takes_for_no_unit_is_none_however_it_is_called() {
    let dir = "home/nora/.config/systemd/user";
    let names = ["nostr-signer;id;.service", "nostr-signer\n- evil.service", "--x=nostr-signer.service"];
    let root = Root::new(&names.map(|name| format!("{dir}/{name}")).each_ref().map(|path| (path.as_str(), "")));
    assert_eq!(root.look(None).units, []);
}

#[test]
fn the_reference_is_stopped_after_all_that_can_be_refused_and_the_key_removed_last() {
    let plan = made(&files(), &live(), "--remove-key");
    let place = |what: fn(&Step) -> bool| plan.steps.iter().position(what).unwrap();
    let (seal, stop) = (place(|s| matches!(s, Step::Seal { .. })), place(|s| matches!(s, Step::Stop)));
    let last_file = plan.steps.iter().rposition(|s| matches!(s, Step::Write { .. })).unwrap();
    let (start, remove) = (place(|s| matches!(s, Step::Start)), place(|s| matches!(s, Step::Remove { .. })));
    assert!(seal < last_file && last_file < stop && stop < start && start < remove, "{:?}", plan.steps);
    assert_eq!(remove, plan.steps.len() - 1);
    assert!(made(&files(), &live(), "").text().contains("stays in nora's keyring"));
}

#[test]
fn a_key_that_is_not_the_one_served_stops_the_plan() {
    let wrong = Live { keys: vec![("nsec".into(), OTHER.into()), ("wn_nsec".into(), KEY.into())], ..live() };
    let stops = stopped(&files(), &wrong, "--apply");
    assert!(stops.lines[0].contains(OTHER) && stops.lines[0].contains(KEY), "{stops:?}");
    assert!(stopped(&files(), &Live { keys: vec![], ..live() }, "").lines[0].contains("has no key"));
    let nothing = Live { keys: vec![("nsec".into(), String::new())], ..live() };
    assert!(stopped(&files(), &nothing, "").lines[0].contains("it is no key"));
    // Another account's likewise.
    let mut two = live();
    two.answer.as_mut().unwrap().1.accounts.push(("business".into(), OTHER.into()));
    two.keys.push(("nostr:business".into(), KEY.into()));
    assert!(stopped(&files(), &two, "").lines[0].contains("nostr:business"));
    two.keys[1].1 = OTHER.into();
    let plan = made(&files(), &two, "");
    let text = |end: &str| {
        plan.steps.iter().find_map(|s| match s {
            Step::Write { path, text } if path.ends_with(end) => Some(text.clone()),
            _ => None,
        })
    };
    assert!(text("nsecd.toml").unwrap().contains("source = \"credential:nsec-business\""));
    assert!(text("nsecd.service.d/adopted.conf").unwrap().contains("LoadCredentialEncrypted=nsec-business\n"));
}

#[test]
fn what_is_no_reference_of_that_users_is_left_alone() {
    let mut other = live();
    other.answer.as_mut().unwrap().1.uid = 0;
    assert!(stopped(&files(), &other, "").lines[0].contains("served by uid 0"));
    assert!(stopped(&files(), &Live { answer: None, ..live() }, "").lines[0].contains("does not answer"));
    assert!(stopped(&files(), &Live { is_active: false, ..live() }, "").lines[0].contains("does not run"));
    assert!(stopped(&files(), &Live { nsecd_is_active: true, ..live() }, "").lines[0].contains("runs here already"));
    let mut two = files();
    two.units.push(two.units[0].clone());
    assert!(stopped(&two, &live(), "").lines[0].contains("which is it"));
    assert!(stopped(&Files { units: vec![], ..files() }, &live(), "").lines[0].contains("--service"));
    assert!(stopped(&Files { has_units: false, ..files() }, &live(), "").lines[0].contains("install"));
    assert!(stopped(&Files { at_default: Thing::Other, ..files() }, &live(), "").lines[0].contains("neither a socket"));
}

#[test]
fn an_edited_configuration_is_replaced_only_when_asked() {
    let with = |text: &str| Files { config: Some(text.into()), ..files() };
    let stops = stopped(&with("# mine\n"), &live(), "--apply");
    assert!(stops.config.is_some_and(|text| text.contains("[[socket]]")) && stops.lines[0].contains("--replace"));
    made(&with("# mine\n"), &live(), "--replace");
    made(&with(texts::SHIPPED), &live(), "");
    let ours = Written { path: texts::CONFIG.into(), text: "# of before\n".into(), kept: None };
    let journal = Journal { user: "nora".into(), files: vec![ours], ..Journal::default() };
    made(&Files { journal: Some(journal), ..with("# of before\n") }, &live(), "");
}

#[test]
fn one_that_was_adopted_is_only_looked_at() {
    let journal = Journal {
        user: "nora".into(),
        unit: "nostr-signer.service".into(),
        socket: SOCKET.into(),
        public: KEY.into(),
        default: "default".into(),
        done: true,
        ..Journal::default()
    };
    let files = Files { journal: Some(journal), ..files() };
    let live = Live { answer: None, is_active: false, nsecd_is_active: true, ..live() };
    let steps = made(&files, &live, "").steps;
    assert!(matches!(steps[..], [Step::Seal { .. }, Step::Start]), "{steps:?}");
}

#[test]
fn clients_find_a_socket_where_they_have_looked() {
    let of = |path: &str, shared| Layout::of(Path::new(path), &nora(), shared);
    let paths =
        |layout: &Layout| layout.sockets.iter().map(|s| (s.path.display().to_string(), s.dm)).collect::<Vec<_>>();
    let two = of(SOCKET, false).unwrap();
    assert_eq!(paths(&two), [("/run/nostr/signer.sock".into(), true), ("/run/nostr/agents.sock".into(), false)]);
    assert_eq!(two.link, Some((SOCKET.into(), "/run/nostr/agents.sock".into())));
    let one = of(SOCKET, true).unwrap();
    assert_eq!(paths(&one), [("/run/nostr/signer.sock".into(), true)]);
    assert_eq!(one.link, Some((SOCKET.into(), "/run/nostr/signer.sock".into())));
    // Agents keep the one that they have; direct messages move.
    let at_default = of("/run/nostr/signer.sock", false).unwrap();
    assert_eq!(paths(&at_default), [("/run/nostr/signer.sock".into(), false), ("/run/nostr/host.sock".into(), true)]);
    assert_eq!(at_default.link, None);
    of("/home/nora/signer.sock", false).expect_err("a place of its own");
}

#[test]
fn a_socket_that_answers_nonsense_is_nobodys() {
    use std::io::{BufRead, BufReader, Write};
    let root = Root::new(&[("run/x", "")]);
    let path = root.0.join("run/s");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let served = std::thread::spawn(move || {
        // Who only connects, to be told whose it is, asks again.
        for stream in listener.incoming().map(Result::unwrap) {
            let mut line = String::new();
            if BufReader::new(&stream).read_line(&mut line).unwrap() > 0 {
                (&stream).write_all(b"{\"pubkey\":\"short\"}\n").unwrap();
                return;
            }
        }
    });
    assert_eq!(ask(&path), None);
    served.join().unwrap();
    assert_eq!(ask(&root.0.join("run/x")), None, "no socket at all");
}

#[test]
fn a_socket_where_nobody_accepts_holds_nothing_up() {
    use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, connect, listen, socket};
    use std::os::fd::AsRawFd;
    let root = Root::new(&[("run/x", "")]);
    let path = root.0.join("run/s");
    let address = UnixAddr::new(&path).unwrap();
    let open = || socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_NONBLOCK, None).unwrap();
    let listener = open();
    bind(listener.as_raw_fd(), &address).unwrap();
    listen(&listener, Backlog::new(0).unwrap()).unwrap();
    // Its queue is full.
    let waiting: Vec<_> =
        std::iter::repeat_with(open).take_while(|client| connect(client.as_raw_fd(), &address).is_ok()).collect();
    assert!(!waiting.is_empty());
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || tell.send(ask(&path)));
    assert_eq!(told.recv_timeout(std::time::Duration::from_secs(60)), Ok(None));
}
