//! A10 to A12: what filled the reference daemon's memory or held up its other clients. Each goes on until it is ended.

use crate::client::{Client, SIGN};
use crate::support::sys;
use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::Duration;

/// What an attacker is called, and what it does.
pub const ATTACKS: [(&str, &str); 4] = [
    ("unterminated", "A10: 8 MB of unterminated JSON, again and again"),
    ("flood", "A11: 4 × 60 MB of input at once, again and again"),
    ("unread", "A11: 64 connections that send requests and read no reply"),
    ("idle", "A12: 10,000 idle connections, and new ones for those that gave way"),
];

/// Is one.
pub fn be(attack: &str, socket: &Path) {
    match attack {
        "unterminated" => unterminated(socket),
        "flood" => flood(socket),
        "unread" => unread(socket),
        "idle" => idle(socket),
        _ => panic!("no attack: {attack}"),
    }
}

fn unterminated(socket: &Path) -> ! {
    let values = format!("{{\"method\":\"sign_event\",\"params\":{{\"tags\":[{}", "{},".repeat(8 << 20 >> 2));
    loop {
        let Ok(mut stream) = UnixStream::connect(socket) else { continue };
        let _ = stream.write_all(values.as_bytes());
        let _ = stream.shutdown(Shutdown::Write);
        let _ = stream.read_to_end(&mut Vec::new());
    }
}

fn flood(socket: &Path) {
    thread::scope(|scope| {
        for start in ["", "{\"method\":\"", "{\"a\":[", " "] {
            scope.spawn(move || {
                let block = [b' '; 1 << 20];
                loop {
                    let Ok(mut stream) = UnixStream::connect(socket) else { continue };
                    let _ = stream.write_all(start.as_bytes());
                    // Closed at the limit, as it should be: then the next one.
                    let _ = (0..60).try_for_each(|_| stream.write_all(&block));
                }
            });
        }
    });
}

fn unread(socket: &Path) {
    let long = SIGN.replace("What", &"x".repeat(100_000));
    thread::scope(|scope| {
        for _ in 0..64 {
            let long = &long;
            scope.spawn(move || {
                loop {
                    let Ok(mut stream) = UnixStream::connect(socket) else { continue };
                    // Comes to a halt when nothing is taken any more; ends when the daemon closes.
                    while stream.write_all(long.as_bytes()).is_ok() {}
                }
            });
        }
    });
}

fn idle(socket: &Path) -> ! {
    let most = 10_000.min(sys::raise_nofile() as usize - 500);
    let mut held = VecDeque::new();
    loop {
        match Client::try_connect(socket) {
            Ok(client) => held.push_back(client),
            Err(_) => thread::sleep(Duration::from_millis(1)),
        }
        if held.len() > most {
            held.pop_front();
        }
    }
}
