//! Who sends without end, over as many connections as it may have, keeps nobody out and holds no more than its budget.
//!
//! Checked: with `yielding_of_all` for `yielding_to`, or without the youngest of the largest, the first fails; without `hurry` or with a
//! place in the listening socket's way for good, the two about waiting; without the parked in `patience`, the one about waking; with
//! BUFFER for FREE, the one about bytes.

use super::*;

const KEY: &str = r#"{"method":"get_public_key"}"#;

/// So many connections may be there in all and of each principal.
fn bench(most: usize, most_each: usize) -> Bench {
    let mut bench = Bench::new(|socket| socket.total = None);
    bench.server.crowd.limit(most, most_each);
    bench
}

fn refusal(bench: &mut Bench, id: u64) -> String {
    let reply = bench.reply(id).expect("a reply");
    // The numbers of the bench's clients are those of the connections, refused or not.
    bench.server.next_client += 1;
    reply["error"].as_str().expect("a refusal").to_owned()
}

/// One that has an event with the gate for good.
fn at_work(bench: &mut Bench, uid: u32, count: usize) {
    for _ in 0..count {
        bench.sign(uid, 1, "at work");
    }
}

#[test]
fn two_that_have_every_place_at_work_leave_one_for_whoever_has_few_and_take_none_of_theirs() {
    let mut bench = bench(20, 10);
    let kept = bench.ask(4, 1, KEY);
    assert!(bench.reply(kept).is_some());
    at_work(&mut bench, 1, 10);
    at_work(&mut bench, 2, 9);
    assert!(bench.server.crowd.is_full());
    for uid in [3, 5, 6] {
        let id = bench.ask(uid, 1, KEY);
        assert!(bench.reply(id).expect("served").get("pubkey").is_some());
    }
    assert_eq!((bench.server.crowd.count(), bench.server.parked[0].is_some()), (20, false));
    bench.send(kept, KEY);
    assert!(bench.reply(kept).expect("it is there").get("pubkey").is_some());
    assert_eq!(bench.gate(SIGNED).len(), 19, "what was begun goes on, and counts");
}

#[test]
fn nobody_at_work_gives_way_to_one_that_has_as_much() {
    let mut bench = bench(20, 20);
    at_work(&mut bench, 1, 6);
    at_work(&mut bench, 2, 14);
    let waits = bench.connect(1, 1);
    assert!(bench.server.parked[0].is_some() && bench.server.crowd.count() == 20);
    bench.pass(500);
    bench.server.unpark();
    assert_eq!(refusal(&mut bench, waits), "Too many connections: 20 in all with requests in flight");
    assert_eq!(bench.gate(SIGNED).len(), 20);
}

#[test]
fn one_too_many_waits_for_a_place_a_moment_and_then_keeps_nobody_waiting() {
    let mut bench = bench(100, 2);
    at_work(&mut bench, 1, 2);
    let third = bench.connect(1, 1);
    bench.pass(499);
    bench.server.unpark();
    assert!(bench.server.parked[0].is_some() && bench.reply(third).is_none(), "it waits");
    bench.pass(1);
    bench.server.unpark();
    assert_eq!(refusal(&mut bench, third), "Too many connections: 2 with requests in flight");
    for passes in [0, 29_000] {
        bench.pass(passes);
        let next = bench.connect(1, 1);
        assert!(bench.server.parked[0].is_none(), "nor does the next one wait");
        assert!(refusal(&mut bench, next).starts_with("Too many"));
        let other = bench.ask(2, 1, KEY);
        assert!(bench.reply(other).is_some());
    }
    bench.pass(1_000);
    let later = bench.connect(1, 1);
    assert!(bench.server.parked[0].is_some() && bench.reply(later).is_none(), "later one may again");
}

#[test]
fn one_that_waits_has_the_place_that_comes_free() {
    let mut bench = bench(100, 2);
    at_work(&mut bench, 1, 2);
    let third = bench.connect(1, 1);
    bench.gate(SIGNED);
    bench.reply(0);
    bench.server.eaten.clear();
    bench.server.unpark();
    bench.send(third, KEY);
    assert!(bench.reply(third).expect("served").get("pubkey").is_some());
}

#[test]
fn one_that_waits_for_a_place_is_looked_at_in_time_though_nothing_happens() {
    let mut bench = bench(100, 1);
    bench.round();
    at_work(&mut bench, 1, 1);
    let before = bench.server.patience().as_millis();
    bench.connect(1, 1);
    assert_eq!((before > Some(501), bench.server.patience().as_millis()), (true, Some(501)));
    // Nor is it looked at again and again while it can find none.
    bench.server.accepting = false;
    bench.pass(1_000);
    assert!(bench.server.patience().as_millis() > Some(1_000));
}

#[test]
fn requests_sent_ahead_over_many_connections_are_held_within_the_budget() {
    const EACH: usize = 60_000;
    const COUNT: usize = 400;
    let mut bench = Bench::new(|socket| socket.total = None);
    let line = r#"{"method":"sign_event","params":{"kind":1,"content":"one of many"}}"#;
    let lines = [line].repeat(EACH / (line.len() + 1)).join("\n");
    for _ in 0..COUNT {
        bench.ask(1, 1, &lines);
    }
    let held: usize = bench.server.clients.values().map(|client| client.connection.weight()).sum();
    assert!(held > COUNT * FREE / 2, "{held}: nothing is held");
    assert!(held < 8 * 1024 * 1024 + COUNT * FREE + BUFFER, "{held}");
    let served =
        bench.server.clients.values().filter(|c| !matches!(c.connection.state, State::Lingering { .. })).count();
    assert_eq!(served, COUNT, "for that nobody is refused");
}
