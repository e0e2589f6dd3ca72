//! From nothing to the first reply.

use crate::options::Options;
use crate::stats::{Times, table};
use crate::subject::{self, CONFIG};
use crate::support::daemon::is_ready;
use crate::support::{Dir, Setup};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};
use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// For one start.
const PATIENCE: Duration = Duration::from_secs(10);
/// Starts in a run.
const STARTS: usize = 5;

/// From `spawn` to the first reply of a daemon that says when it is ready (sd_notify(3)): asked then, since asking again and again would take
/// its core from it.
fn reply_when_ready(setup: &mut Setup) -> (Duration, Child) {
    let path = setup.dir.join("notify");
    let notify = UnixDatagram::bind(&path).unwrap();
    notify.set_read_timeout(Some(PATIENCE)).unwrap();
    setup.command.env("NOTIFY_SOCKET", path);
    let begun = Instant::now();
    let child = setup.command.spawn().unwrap();
    let mut message = [0; 4096];
    loop {
        let size = notify.recv(&mut message).expect("ready in time");
        if is_ready(&message[..size]) {
            break;
        }
    }
    assert!(subject::served(&setup.socket));
    (begun.elapsed(), child)
}

/// The same of any other: asked until it answers.
fn first_reply(socket: &Path, spawn: impl FnOnce() -> Child) -> (Duration, Child) {
    let begun = Instant::now();
    let mut child = spawn();
    while !subject::served(socket) {
        assert!(child.try_wait().unwrap().is_none(), "ended before it served");
        thread::sleep(Duration::from_micros(100));
    }
    (begun.elapsed(), child)
}

/// Gives this thread, and what it starts, the system users that the package makes, in a mount namespace of its own; needs root. The files
/// are to be kept as long.
fn with_system_users() -> Dir {
    unshare(CloneFlags::CLONE_NEWNS).unwrap();
    let mount = |arguments: &[&str]| assert!(Command::new("mount").args(arguments).status().unwrap().success());
    mount(&["--make-rprivate", "/"]);
    let dir = Dir::new(None);
    // Numbers that no distribution gives away.
    let users = ["nsecd-keyholder", "nsecd-gate", "nsecd-ecdh", "nsecd-broker"].into_iter().zip(59_001..);
    let passwd = |(user, id): (&str, u32)| format!("{user}:x:{id}:{id}::/nonexistent:/usr/sbin/nologin\n");
    let group = |(user, id): (&str, u32)| format!("{user}:x:{id}:\n");
    for (file, lines) in
        [("passwd", users.clone().map(passwd).collect::<String>()), ("group", users.map(group).collect())]
    {
        // The first line of a name counts.
        let text = lines + &fs::read_to_string(Path::new("/etc").join(file)).unwrap();
        let ours = dir.join(file);
        fs::write(&ours, text).unwrap();
        mount(&["--bind", ours.to_str().unwrap(), &format!("/etc/{file}")]);
    }
    dir
}

/// That many starts of nsecd.
fn nsecd(count: usize) -> Vec<Duration> {
    let start = |_| {
        let mut setup = Setup::new(CONFIG);
        let log = fs::File::create(setup.dir.join("stderr")).unwrap();
        setup.command.stdout(Stdio::null()).stderr(log);
        let (time, child) = reply_when_ready(&mut setup);
        end(child);
        time
    };
    (0..count).map(start).collect()
}

fn end(mut child: Child) {
    kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM).unwrap();
    child.wait().unwrap();
}

/// This part.
pub fn print(options: &Options) {
    let count = options.runs * STARTS;
    let mut rows = Vec::new();
    if geteuid().is_root() {
        let installed = thread::spawn(move || {
            let _files = with_system_users();
            nsecd(count)
        });
        rows.push(row("nsecd, with the package's system users", installed.join().unwrap()));
        rows.push(row("nsecd, without them", nsecd(count)));
    } else {
        rows.push(row("nsecd", nsecd(count)));
    }
    if let (Some(socket), Some(command)) = (&options.other, &options.other_start) {
        let starts = (0..count).map(|_| {
            let (time, child) = first_reply(socket, || subject::spawn(command));
            end(child);
            let _ = fs::remove_file(socket);
            time
        });
        rows.push(row("other", starts.collect()));
    }
    let title = format!("Start to first reply (get_public_key), {count} starts; target: 15 ms");
    table(&title, &["daemon", "median, ms", "slowest, ms"], &rows);
}

fn row(name: &str, times: Vec<Duration>) -> Vec<String> {
    let times = Times::from(times);
    let ms = |share: usize| format!("{:.1}", times.percentile(share) / 1000.0);
    vec![name.to_owned(), ms(50), ms(100)]
}
