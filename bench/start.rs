//! From nothing to the first reply.

use crate::options::Options;
use crate::stats::{Times, table};
use crate::subject::{self, CONFIG};
use crate::support::Setup;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Stdio};
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
        if message[..size].split(|byte| *byte == b'\n').any(|line| line == b"READY=1") {
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

fn end(mut child: Child) {
    kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM).unwrap();
    child.wait().unwrap();
}

/// This part.
pub fn print(options: &Options) {
    let count = options.runs * STARTS;
    let nsecd: Vec<Duration> = (0..count)
        .map(|_| {
            let mut setup = Setup::new(CONFIG);
            let log = std::fs::File::create(setup.dir.join("stderr")).unwrap();
            setup.command.stdout(Stdio::null()).stderr(log);
            let (time, child) = reply_when_ready(&mut setup);
            end(child);
            time
        })
        .collect();
    let mut rows = vec![row("nsecd", nsecd)];
    if let (Some(socket), Some(command)) = (&options.other, &options.other_start) {
        let starts = (0..count).map(|_| {
            let (time, child) = first_reply(socket, || subject::spawn(command));
            end(child);
            let _ = std::fs::remove_file(socket);
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
