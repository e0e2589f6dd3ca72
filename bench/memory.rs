//! Memory of each role: idle, after many requests, and under many connections.

use crate::attackers::ATTACKS;
use crate::client::{Client, PUBLIC_KEY, SIGN};
use crate::options::Options;
use crate::peers::Peer;
use crate::stats::table;
use crate::subject::{CONFIG, Subject};
use crate::support::{daemon, sys};
use std::thread;
use std::time::{Duration, Instant};

/// Signatures between the first and the second look.
const MANY: usize = 100_000;
const AHEAD: usize = 50;
const CONNECTIONS: usize = 1000;
/// How long each attack lasts.
const ATTACK: Duration = Duration::from_secs(2);

type Memory = Vec<(String, u64)>;

/// The most of each process that is seen while an attack lasts.
fn under(subject: &Subject, attack: &str) -> Memory {
    let _attacker = Peer::start(attack, &[subject.socket.to_str().unwrap()], None);
    let (begun, mut most) = (Instant::now(), subject.memory());
    while begun.elapsed() < ATTACK {
        thread::sleep(Duration::from_millis(20));
        for (of, (_, now)) in most.iter_mut().zip(subject.memory()) {
            of.1 = of.1.max(now);
        }
    }
    most
}

fn looks(subject: &Subject) -> Vec<(String, Memory)> {
    let socket = &subject.socket;
    let mut looks = vec![("idle".to_owned(), subject.memory())];
    let mut client = Client::connect(socket);
    let requests = SIGN.repeat(AHEAD);
    for _ in 0..MANY / AHEAD {
        client.send(&requests);
        client.replies(AHEAD);
    }
    drop(client);
    looks.push((format!("after {MANY} signatures"), subject.memory()));
    let clients: Vec<Client> = (0..CONNECTIONS)
        .map(|_| {
            let mut client = Client::connect(socket);
            client.ask(PUBLIC_KEY);
            client
        })
        .collect();
    looks.push((format!("under {CONNECTIONS} connections"), subject.memory()));
    drop(clients);
    for (attack, what) in ATTACKS {
        looks.push((format!("under {what}"), under(subject, attack)));
        crate::support::until("served after the attack", || crate::subject::served(socket));
    }
    looks.push(("after all that".into(), subject.memory()));
    looks
}

/// This part.
pub fn print(options: &Options) {
    sys::raise_nofile();
    // One after the other: a page that two daemons share counts half for each.
    show(&Subject::nsecd(CONFIG));
    let encrypting = Subject::nsecd(daemon::DM).memory();
    let cells: Vec<String> = encrypting.iter().map(|(name, kib)| format!("{name} {kib}")).collect();
    let together: u64 = encrypting.iter().map(|(_, kib)| kib).sum();
    println!("\nWith direct messages, idle: {}, together {together}.", cells.join(", "));
    if let Some(other) = Subject::other(options) {
        show(&other);
    }
}

fn show(subject: &Subject) {
    let looks = looks(subject);
    let names = looks[0].1.iter().map(|(name, _)| name.as_str());
    let head: Vec<&str> = ["when"].into_iter().chain(names).chain(["together"]).collect();
    let row = |(when, memory): &(String, Memory)| {
        let together: u64 = memory.iter().map(|(_, kib)| kib).sum();
        let cells = memory.iter().map(|(_, kib)| kib.to_string());
        [when.clone()].into_iter().chain(cells).chain([together.to_string()]).collect()
    };
    let rows: Vec<Vec<String>> = looks.iter().map(row).collect();
    let title =
        format!("Memory of {} (PSS, KiB, the most that was seen; target: 4096 together, and flat)", subject.name);
    table(&title, &head, &rows);
}
