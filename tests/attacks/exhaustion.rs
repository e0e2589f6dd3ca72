//! A10 to A12: what delayed every client of the reference daemon or filled its memory delays and fills nothing here.
//!
//! Checked: with nobody giving way to a newcomer (`Crowd::yielding`), or with neither a request's size nor a principal's
//! bytes bounded, tests of this file fail.

use crate::support::daemon::{OPEN, Setup};
use crate::support::{Client, Nsecd, PUBLIC_KEY, client, event, process, sys};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde_json::json;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

/// A broker's memory stays under this many kB whatever is done to it: a few connections' worth of the largest
/// request (512 KiB), far from the gigabytes that the reference grew to.
const BOUND: u64 = 96 << 10;

/// Lets another client sign until `attack` has ended, at least once; it must never be refused or closed.
fn while_another_signs(nsecd: &Nsecd, attack: impl FnOnce() + Send) {
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let other = scope.spawn(|| {
            let mut client = nsecd.connect();
            let mut signed = 0;
            while !over.load(Ordering::Relaxed) || signed == 0 {
                event::signed(&client.sign(1, None), PUBLIC_KEY);
                signed += 1;
            }
            signed
        });
        let attacker = scope.spawn(attack);
        let outcome = attacker.join();
        over.store(true, Ordering::Relaxed);
        assert!(outcome.is_ok() && other.join().unwrap() > 0);
    });
    nsecd.serves();
}

/// The most memory that the broker has ever held, in kB.
fn peak(nsecd: &Nsecd) -> u64 {
    process::kilobytes(nsecd.role("nsecd-broker"), "VmHWM")
}

/// Writes until all is written or nsecd closes.
fn pour(socket: &std::path::Path, bytes: &[u8]) {
    let mut client = Client::connect(socket);
    let _ = client.try_send(bytes);
    client.half_close();
    client.rest();
}

#[test]
fn eight_megabytes_of_unterminated_json_cost_another_client_nothing() {
    let nsecd = Nsecd::start(OPEN);
    let values = "[{},{},".to_string() + &"{},".repeat(8 << 20 >> 2);
    let open = "[".repeat(8 << 20);
    let text = format!("{{\"method\":\"{}", "\\u0041".repeat(8 << 17));
    let keys = format!("{{\"method\":\"sign_event\",\"params\":{{{}", "\"a\":{},".repeat(8 << 17));
    while_another_signs(&nsecd, || {
        for bytes in [&values, &open, &text, &keys] {
            pour(&nsecd.socket, bytes.as_bytes());
            let inside = format!("{{\"method\":\"sign_event\",\"params\":{{\"tags\":{bytes}");
            pour(&nsecd.socket, inside.as_bytes());
        }
    });
    assert!(peak(&nsecd) < BOUND, "{} kB", peak(&nsecd));
}

#[test]
fn a_request_of_one_byte_writes_costs_no_more_than_its_length() {
    // Quadratic work would be 6·10¹⁰ steps: this test would not end before its client's patience does.
    let nsecd = Nsecd::start(OPEN);
    let mut slow = nsecd.connect();
    let request = client::line("sign_event", json!({"kind": 1, "content": "[{},".repeat(60_000)}));
    let (head, tail) = request.split_at(request.len() - 5_000);
    while_another_signs(&nsecd, || {
        slow.send(head);
        for byte in tail.as_bytes() {
            slow.send([*byte]);
        }
        event::signed(&slow.reply(), PUBLIC_KEY);
    });
}

#[test]
fn four_times_sixty_megabytes_in_leave_memory_flat() {
    let nsecd = Nsecd::start(OPEN);
    while_another_signs(&nsecd, || {
        thread::scope(|scope| {
            for start in ["", "{\"method\":\"", "{\"a\":[", " "] {
                let socket = &nsecd.socket;
                scope.spawn(move || {
                    let mut client = Client::connect(socket);
                    let block = [b' '; 1 << 20];
                    let _ = client.try_send(start);
                    for _ in 0..60 {
                        if client.try_send(block).is_err() {
                            break;
                        }
                    }
                });
            }
        });
    });
    assert!(peak(&nsecd) < BOUND, "{} kB", peak(&nsecd));
}

#[test]
fn replies_that_nobody_reads_are_bounded_and_hold_up_only_their_own_client() {
    let nsecd = Nsecd::start(OPEN);
    let request = client::line("sign_event", json!({"kind": 1, "content": "x".repeat(100_000)}));
    while_another_signs(&nsecd, || {
        let mut clients: Vec<Client> = (0..8).map(|_| nsecd.connect()).collect();
        for client in &mut clients {
            client.stream().set_nonblocking(true).unwrap();
            // nsecd must stop reading from a client that does not: the writes come to a halt.
            let mut halted = false;
            for _ in 0..2_000 {
                let (mut stream, mut left) = (client.stream(), request.as_bytes());
                while !left.is_empty() {
                    match stream.write(left) {
                        Ok(n) => left = &left[n..],
                        Err(_) => {
                            halted = true;
                            break;
                        }
                    }
                }
                if halted {
                    break;
                }
            }
            assert!(halted, "200 MB of requests were taken without a reply being read");
        }
    });
    assert!(peak(&nsecd) < BOUND, "{} kB", peak(&nsecd));
}

/// Checked: with what waits not charged to its principal, the broker holds 96 MB here.
#[test]
fn requests_that_wait_for_a_slot_are_held_within_a_budget() {
    let nsecd = Nsecd::start(
        "[[socket]]\npath = \"/run/x.sock\"\nkinds = [1]\ntokenless = [1]\ntokenless_on_limit = \"wait 5m\"\n\
         limits = { burst = 1, burst_window = \"60s\", per_minute = 1, per_hour = 60 }\n",
    );
    // Small on the wire, large in memory: 40,000 empty tags.
    let tags = vec!["[]"; 40_000].join(",");
    let request =
        format!("{{\"method\":\"sign_event\",\"params\":{{\"kind\":1,\"content\":\"x\",\"tags\":[{tags}]}}}}\n");
    let mut clients: Vec<Client> = (0..60).map(|_| nsecd.connect()).collect();
    // As half requests they are within the budget; then all are completed.
    let (most, rest) = request.split_at(request.len() - 2);
    clients.iter_mut().for_each(|client| client.send(most));
    nsecd.serves();
    clients.iter_mut().for_each(|client| client.send(rest));
    // The first is signed, a few wait, and all others are told at once that they may not.
    let told = |clients: &[Client]| {
        let mut fds: Vec<_> = clients.iter().map(|c| PollFd::new(c.stream().as_fd(), PollFlags::POLLIN)).collect();
        poll(&mut fds, PollTimeout::ZERO).unwrap()
    };
    for _ in 0..20_000 {
        if told(&clients) >= 40 {
            break;
        }
        nsecd.serves();
    }
    assert!(told(&clients) >= 40, "sixty megabytes wait");
    nsecd.serves();
    assert!(peak(&nsecd) < 40 << 10, "{} kB", peak(&nsecd));
}

/// Checked: without `give_back_memory`, memory stays.
#[test]
fn what_requests_sent_ahead_have_taken_is_given_back_when_they_are_gone() {
    sys::raise_nofile();
    let nsecd = Nsecd::start(OPEN);
    let held = || process::kilobytes(nsecd.role("nsecd-broker"), "RssAnon");
    let before = held();
    let requests = client::line("sign_event", json!({"kind": 1, "content": "one of many"})).repeat(700);
    let clients: Vec<Client> = (0..1_000)
        .map(|_| {
            let client = nsecd.connect();
            client.stream().set_nonblocking(true).unwrap();
            let _ = client.stream().write(requests.as_bytes());
            client
        })
        .collect();
    let mut most = 0;
    crate::support::until("much is held", || {
        most = most.max(held());
        most > before + (12 << 10)
    });
    drop(clients);
    crate::support::until("it is given back", || {
        thread::sleep(Duration::from_millis(50));
        held() < before + (4 << 10)
    });
    assert!(peak(&nsecd) < 40 << 10, "{} kB", peak(&nsecd));
}

/// `what_is_buffered_is_no_idleness` of the broker's own tests holds the rule that this depends on.
#[test]
fn requests_sent_ahead_are_all_answered_though_the_principal_is_at_its_cap() {
    let mut setup = Setup::new(OPEN);
    sys::limit_descriptors(&mut setup.command, 160);
    let nsecd = setup.start();
    let line = client::line("get_public_key", json!({}));
    thread::scope(|scope| {
        for _ in 0..120 {
            scope.spawn(|| {
                let mut client = nsecd.connect();
                client.send(line.repeat(20));
                for _ in 0..20 {
                    assert_eq!(client.reply()["pubkey"], PUBLIC_KEY);
                }
            });
        }
    });
}

#[test]
fn ten_thousand_idle_connections_leave_room_for_another_client_of_the_same_uid() {
    let nofile = sys::raise_nofile() as usize;
    let tried = 10_000.min(nofile.saturating_sub(500));
    if tried < 10_000 {
        crate::support::skip(&format!("only {tried} connections can be tried (RLIMIT_NOFILE {nofile})"));
    }
    let nsecd = Nsecd::start(OPEN);
    let mut served_before = nsecd.connect();
    served_before.public_key();
    while_another_signs(&nsecd, || {
        let mut idle = Vec::with_capacity(tried);
        for n in 0..tried {
            idle.push(nsecd.connect());
            if n % 250 == 0 {
                event::signed(&nsecd.connect().sign(1, None), PUBLIC_KEY);
            }
        }
        event::signed(&nsecd.connect().sign(1, None), PUBLIC_KEY);
    });
    assert!(peak(&nsecd) < BOUND, "{} kB", peak(&nsecd));
}

#[test]
fn a_thousand_unfinished_requests_leave_room_for_another_client() {
    sys::raise_nofile();
    let nsecd = Nsecd::start(OPEN);
    while_another_signs(&nsecd, || {
        let mut unfinished = Vec::new();
        for n in 0..1_000 {
            let mut client = nsecd.connect();
            // A connection beyond the bound may be closed on us; what counts is the other client.
            let _ = client.try_send("{\"method\":\"sign_event\",\"params\":{\"content\":\"");
            unfinished.push(client);
            if n % 100 == 0 {
                event::signed(&nsecd.connect().sign(1, None), PUBLIC_KEY);
            }
        }
        event::signed(&nsecd.connect().sign(1, None), PUBLIC_KEY);
    });
    assert!(peak(&nsecd) < BOUND, "{} kB", peak(&nsecd));
}

#[test]
fn a_client_with_a_request_in_flight_is_never_dropped_for_another() {
    sys::raise_nofile();
    let nsecd = Nsecd::start(
        "[[socket]]\npath = \"/run/x.sock\"\nkinds = [1]\ntokenless = [1]\ntokenless_on_limit = \"wait 20s\"\n\
         limits = { burst = 1, burst_window = \"2s\" }\ntotal = \"none\"\n",
    );
    event::signed(&nsecd.connect().sign(1, None), PUBLIC_KEY);
    let mut waiting = nsecd.connect();
    waiting.send(client::line("sign_event", json!({"kind": 1, "content": "waits for its slot"})));
    let idle: Vec<Client> = (0..1_500).map(|_| nsecd.connect()).collect();
    event::signed(&waiting.reply(), PUBLIC_KEY);
    drop(idle);
}

/// A12 where messages are allowed: errands that wait for the ceiling of key agreements hold no connection but their own.
/// Checked: with as many places for them as there are connections, this fails.
#[test]
fn errands_that_wait_for_a_key_take_no_place_from_others_whether_their_clients_stay_or_go() {
    sys::raise_nofile();
    let socket = |name: &str| {
        format!(
            "[[socket]]\npath = \"@DIR@/{name}\"\nkinds = [1]\ntokenless = [1]\nlimits = \"none\"\ntotal = \"none\"\n\
                 methods = [\"sign_event\", \"nip44\"]\ncrypt = \"none\"\n"
        )
    };
    let nsecd = Nsecd::start(&format!("[key]\necdh_ceiling = \"1, 1/h\"\n{}{}", socket("a"), socket("b")));
    let other = nsecd.dir.join("b");
    let encrypt = client::line("nip44_encrypt", json!({"plaintext": "x", "peer_pubkey": PUBLIC_KEY}));
    assert!(
        nsecd.connect().ask("nip44_encrypt", json!({"plaintext": "x", "peer_pubkey": PUBLIC_KEY}))["result"]
            .is_string()
    );
    let both_sign = || {
        event::signed(&nsecd.connect().sign(1, None), PUBLIC_KEY);
        event::signed(&Client::connect(&other).sign(1, None), PUBLIC_KEY);
    };
    let mut stay = Vec::new();
    for n in 0..4_000 {
        let mut client = nsecd.connect();
        // Beyond the bound it may be refused and closed.
        let _ = client.try_send(&encrypt);
        if n < 1_500 {
            drop(client);
        } else {
            stay.push(client);
        }
        if n % 100 == 0 {
            both_sign();
        }
    }
    both_sign();
    drop(stay);
}

#[test]
fn a_half_read_reply_never_mixes_with_the_next() {
    let nsecd = Nsecd::start(OPEN);
    let mut client = nsecd.connect();
    for n in 0..50 {
        client.send(client::line("sign_event", json!({"kind": 1, "content": format!("{n}:{}", "y".repeat(1_000))})));
    }
    let mut some = [0; 10];
    (&mut client.stream()).read_exact(&mut some).unwrap();
    let first = String::from_utf8(some.to_vec()).unwrap() + &client.line().unwrap();
    let first = serde_json::from_str(&first).unwrap();
    assert!(event::signed(&first, PUBLIC_KEY)["content"].as_str().unwrap().starts_with("0:"));
    for n in 1..50 {
        let reply = client.reply();
        assert!(event::signed(&reply, PUBLIC_KEY)["content"].as_str().unwrap().starts_with(&format!("{n}:")));
    }
}
