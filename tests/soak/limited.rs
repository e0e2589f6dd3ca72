//! The limits that a socket has where nothing is said, 5 in ten seconds, 10 a minute and 100 an hour, seen from outside: no window
//! ever holds more than it may, whoever dies, and nothing is refused that a window had room for.

use super::agents::{content, signed};
use super::link::{Link, Tally, Watch};
use serde_json::json;
use std::thread;
use std::time::{Duration, Instant};

/// Seconds and signatures of each window.
const WINDOWS: [(u64, usize); 3] = [(10, 5), (60, 10), (3600, 100)];
/// nsecd counts whole milliseconds: a window may seem so much shorter.
const TICK: Duration = Duration::from_millis(1);
/// How late a slot may come back.
const SLACK: Duration = Duration::from_secs(1);

/// A signature lay between these two; one whose reply was cut off may have been made, and no more.
struct Made {
    asked: Instant,
    answered: Instant,
    certain: bool,
}

pub fn windows(watch: &Watch, tally: &Tally) {
    let mut link = Link::new(watch, tally, 1);
    let mut made: Vec<Made> = Vec::new();
    while !watch.is_over() {
        let asked = Instant::now();
        let event = json!({"kind": 1, "content": content(), "tags": []});
        let (reply, cut) = link.ask("sign_event", event.clone());
        let answered = Instant::now();
        made.extend((0..cut).map(|_| Made { asked, answered, certain: false }));
        if reply.get("event").is_some() {
            signed(&reply, &event);
            made.push(Made { asked, answered, certain: true });
            over_full(&made);
            tally.right();
        } else {
            let wait =
                reply["retry_after_ms"].as_u64().unwrap_or_else(|| panic!("neither signed nor limited: {reply}"));
            needless(&made, asked, &reply);
            tally.refused();
            // A while of it: the request is refused again, and the waiting counts from anew.
            thread::sleep(Duration::from_millis(wait.clamp(50, 500)));
        }
    }
}

/// Panics if more than a window allows were certainly made within it.
fn over_full(made: &[Made]) {
    let certain: Vec<&Made> = made.iter().filter(|m| m.certain).collect();
    for (seconds, most) in WINDOWS {
        if let Some(first) = certain.len().checked_sub(most + 1) {
            let span = certain[certain.len() - 1].answered.duration_since(certain[first].asked);
            assert!(span + TICK >= Duration::from_secs(seconds), "{} signatures in {span:?}", most + 1);
        }
    }
}

/// Panics if no window can have been full.
fn needless(made: &[Made], now: Instant, reply: &serde_json::Value) {
    let full = |(seconds, most): &(u64, usize)| {
        let inside = |m: &&Made| m.answered + Duration::from_secs(*seconds) + SLACK > now;
        made.iter().filter(inside).count() >= *most
    };
    assert!(WINDOWS.iter().any(full), "refused, but no window was full: {reply}");
}
