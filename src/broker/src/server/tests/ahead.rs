//! Who sends many events at once, and who comes after.

use super::{Bench, SIGNED};

/// A principal asks for so many events of some 20 kB, over a connection each.
fn flood(bench: &mut Bench, count: usize) {
    for n in 0..count {
        bench.sign(1, 1, &format!("{n:02}{}", "x".repeat(20_000)));
        // Each in a round of its own: else a principal's share of a round would put it off.
        bench.server.eaten.clear();
    }
}

/// Checked: with nobody ever ahead (`is_ahead`), this fails.
#[test]
fn an_event_waits_behind_a_few_of_another_principal_and_not_behind_all() {
    let mut bench = Bench::new(|socket| socket.total = None);
    flood(&mut bench, 64);
    let other = bench.sign(2, 1, "other");
    let first = bench.gate(SIGNED);
    assert!(first.len() <= 8 && first.iter().any(|content| content == "other"), "{} came before it", first.len());
    assert!(bench.reply(other).is_some());
}

/// Checked: with the connections that are put off never called again (`come_back`), and with the last one called first, this fails.
#[test]
fn whoever_is_put_off_has_its_turn_in_the_order_in_which_it_came() {
    let mut bench = Bench::new(|socket| socket.total = None);
    flood(&mut bench, 30);
    let mut came = Vec::new();
    while came.len() < 30 {
        bench.round();
        let more = bench.gate(SIGNED);
        assert!(!more.is_empty(), "{} of 30 came", came.len());
        came.extend(more.iter().map(|content| content[..2].parse::<usize>().expect("its number")));
    }
    assert_eq!(came, (0..30).collect::<Vec<_>>());
    for id in 0..30 {
        assert!(bench.reply(id).is_some_and(|reply| reply.get("event").is_some()), "{id}");
    }
    assert!(bench.server.ahead.is_empty(), "nothing is remembered of who has nothing there");
}

/// What has been put off is not looked at in vain: epoll reports nothing of it, though it has sent more, and hung up.
///
/// Checked: with the connection left in epoll after its hang-up, this fails.
#[test]
fn a_connection_that_is_put_off_and_hangs_up_is_reported_once() {
    let mut bench = Bench::new(|socket| socket.total = None);
    flood(&mut bench, 10);
    let last = bench.clients.pop().expect("the tenth");
    drop(last);
    let mut events = [nix::sys::epoll::EpollEvent::empty(); 8];
    let mut told = || {
        let ready = bench.server.epoll.wait(&mut events, 0u8).expect("epoll");
        let of: Vec<_> = events[..ready].iter().map(|event| (event.data(), event.events())).collect();
        let of: Vec<_> = of.into_iter().filter(|(id, _)| *id == 9).collect();
        of.iter().for_each(|(id, events)| bench.server.client_ready(*id, *events));
        of.len()
    };
    assert_eq!((told(), told()), (1, 0));
}
