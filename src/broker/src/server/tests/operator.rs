//! The operator among agents that hold all there is, with the gate and the moment of each event in the test's hands.
//!
//! Checked: red where the operator is accepted only while agents are, and where his bytes are counted among theirs.

use super::*;

/// What the operator is answered over this connection.
pub(super) fn ask(bench: &mut Bench, operator: &mut UnixStream, line: &str) -> Option<Value> {
    operator.write_all(format!("{line}\n").as_bytes()).expect("room");
    bench.server.serve_operator();
    reply(bench, operator)
}

fn reply(bench: &mut Bench, operator: &mut UnixStream) -> Option<Value> {
    // The operator too has a share of a round.
    bench.round();
    bench.server.serve_operator();
    let mut text = Vec::new();
    let _ = operator.read_to_end(&mut text);
    (!text.is_empty()).then(|| serde_json::from_slice(&text).expect("one line"))
}

pub(super) fn connect(bench: &mut Bench) -> UnixStream {
    let operator = UnixStream::connect_addr(&bench.desk).expect("a place");
    operator.set_nonblocking(true).expect("set");
    operator
}

const WHO: &str = r#"{"method":"get_public_key"}"#;

#[test]
fn agents_that_hold_every_place_leave_the_operator_his_own() {
    let mut bench = Bench::new(|s| (s.total, s.max_request) = (None, 1 << 20));
    // All of them with the gate: none gives way.
    let mut n = 0;
    while !bench.server.crowd.is_full() {
        bench.sign(n / 100, u64::from(n % 100), "x");
        n += 1;
    }
    bench.server.accepting = false;
    assert!(bench.server.crowd.yielding_of_all(bench.clock.now().boot).is_none(), "control");
    let mut operator = connect(&mut bench);
    assert!(ask(&mut bench, &mut operator, WHO).expect("at once").get("pubkey").is_some());
    let told = ask(&mut bench, &mut operator, r#"{"method":"status"}"#).expect("at once");
    assert_eq!(told["connections"], serde_json::json!({"agents": 1000, "most": 1000, "admin": 1}));
    assert_eq!(told["sockets"][0]["principals_left_out"], n - 100);
}

#[test]
fn agents_that_hold_every_byte_leave_the_operator_his_own() {
    let mut bench = Bench::new(|s| s.max_request = 1 << 20);
    let part = format!("{{\"method\":\"sign_event\",\"params\":{{\"content\":\"{}", "x".repeat(900_000));
    let mut refused = 0;
    for n in 0..100 {
        let id = bench.connect(n / 8, 1);
        let mut left = part.as_bytes();
        while !left.is_empty() {
            match bench.clients[id as usize].write(left) {
                Ok(written) => left = &left[written..],
                Err(_) if bench.server.clients.contains_key(&id) => {
                    bench.server.eaten.clear();
                    bench.server.client_ready(id, EpollFlags::EPOLLIN);
                }
                Err(_) => break,
            }
        }
        refused += usize::from(bench.reply(id).is_some());
    }
    assert!(refused > 0, "control: there are no more");
    let mut operator = connect(&mut bench);
    assert!(ask(&mut bench, &mut operator, WHO).expect("at once").get("pubkey").is_some());
    let sign = format!(r#"{{"method":"sign_event","params":{{"kind":1,"content":"{}"}}}}"#, "y".repeat(100_000));
    assert_eq!(ask(&mut bench, &mut operator, &sign), None, "the gate has it");
    assert_eq!(bench.gate(SIGNED), ["y".repeat(100_000)]);
    assert!(reply(&mut bench, &mut operator).expect("a reply").get("event").is_some());
}

/// Without descriptors the operator's socket is left alone, and no connection of his may be there whose end would show that there are some.
#[test]
fn the_operator_is_accepted_again_at_the_sweep_after_descriptors_were_lacking() {
    let mut bench = Bench::new(|_| {});
    bench.round();
    bench.server.stop_operators();
    let mut operator = connect(&mut bench);
    assert_eq!(ask(&mut bench, &mut operator, WHO), None, "control");
    bench.pass(SWEEP);
    bench.round();
    assert!(reply(&mut bench, &mut operator).expect("at once").get("pubkey").is_some());
}
