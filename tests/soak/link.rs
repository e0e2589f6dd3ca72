//! A client that is cut off when a broker dies, asks again, and takes nothing else for an excuse.

use crate::support::client::Client;
use crate::support::sys::PATIENCE;
use serde_json::Value;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// What all clients see of the daemon.
pub struct Watch {
    /// The unlimited socket and the limited one.
    pub sockets: [PathBuf; 2],
    /// The brokers that there have been; odd while one is being replaced.
    generation: AtomicU64,
    /// Ends all clients.
    pub over: AtomicBool,
    /// Between two requests of a client: keeps the load below what two processors do.
    pause: Duration,
}

impl Watch {
    pub fn new(sockets: [PathBuf; 2], pause: Duration) -> Watch {
        Watch { sockets, generation: AtomicU64::new(0), over: AtomicBool::new(false), pause }
    }

    /// A broker is about to go, or a new one serves.
    pub fn turn(&self) {
        self.generation.fetch_add(1, Ordering::SeqCst);
    }

    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::SeqCst)
    }

    /// Panics unless a broker has gone since that generation, or is going: what else may cut a client off?
    pub fn excuses(&self, since: u64, what: &str) {
        // A log that is put aside replaces the broker too, and is noticed a moment later.
        let begun = Instant::now();
        while since.is_multiple_of(2) && self.generation() == since {
            assert!(begun.elapsed() < PATIENCE && !self.is_over(), "cut off, and no broker has gone: {what}");
            thread::yield_now();
        }
    }

    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    pub fn rest(&self) {
        thread::sleep(self.pause);
    }
}

/// What came of a kind of client's requests.
#[derive(Default)]
pub struct Tally {
    right: AtomicU64,
    refused: AtomicU64,
    cut: AtomicU64,
}

impl Tally {
    /// Granted, and rightly.
    pub fn right(&self) {
        self.right.fetch_add(1, Ordering::Relaxed);
    }

    /// Refused, and rightly.
    pub fn refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    pub fn counts(&self) -> [u64; 3] {
        [&self.right, &self.refused, &self.cut].map(|count| count.load(Ordering::Relaxed))
    }
}

/// A connection that is made again when it is cut.
pub struct Link<'a> {
    watch: &'a Watch,
    tally: &'a Tally,
    socket: usize,
    open: Option<(Client, u64)>,
}

impl<'a> Link<'a> {
    /// To one of the two sockets.
    pub fn new(watch: &'a Watch, tally: &'a Tally, socket: usize) -> Link<'a> {
        Link { watch, tally, socket, open: None }
    }

    /// A connection of this generation. The listening socket is never gone, so nobody is refused one.
    pub fn connect(&self) -> (Client, u64) {
        let generation = self.watch.generation();
        (Client::connect(&self.watch.sockets[self.socket]), generation)
    }

    /// Sends lines and reads as many replies; how often that was cut off before the last one.
    pub fn ask_all(&mut self, lines: &str, count: usize) -> (Vec<Value>, usize) {
        for cut in 0.. {
            let (mut client, generation) = self.open.take().unwrap_or_else(|| self.connect());
            let _ = client.try_send(lines);
            let replies: Vec<Value> = (0..count).map_while(|_| Some(parsed(&client.line()?))).collect();
            let unavailable = |reply: &Value| reply["code"] == "unavailable";
            if replies.len() == count && !replies.iter().any(unavailable) {
                self.open = Some((client, generation));
                return (replies, cut);
            }
            self.watch.excuses(generation, lines);
            self.tally.cut.fetch_add(1, Ordering::Relaxed);
        }
        unreachable!()
    }

    /// One request and its reply.
    pub fn ask(&mut self, method: &str, params: Value) -> (Value, usize) {
        let (mut replies, cut) = self.ask_all(&crate::support::client::line(method, params), 1);
        (replies.remove(0), cut)
    }

    /// A request over a connection of its own, without a newline: NanoClaw's way.
    pub fn ask_once(&mut self, method: &str, params: Value) -> (Value, usize) {
        let request = crate::support::client::line(method, params);
        for cut in 0.. {
            let (mut client, generation) = self.connect();
            let _ = client.try_send(request.trim_end());
            client.half_close();
            match client.line() {
                Some(line) if !line.contains("\"unavailable\"") => {
                    assert_eq!(client.line(), None, "more than one reply: {request}");
                    return (parsed(&line), cut);
                }
                _ => self.watch.excuses(generation, &request),
            }
            self.tally.cut.fetch_add(1, Ordering::Relaxed);
        }
        unreachable!()
    }
}

fn parsed(line: &str) -> Value {
    serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))
}
