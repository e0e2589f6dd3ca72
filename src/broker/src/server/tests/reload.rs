//! A broker at rest: what is in flight comes to its end, what is asked waits, and half a configuration is none.
//!
//! Checked: with `Quiet` told at once, with calls decided at rest, with what was held dropped, or with the descriptors not
//! counted, one of these fails.

use nsecd_policy::reload::Reload;

use super::*;

impl Bench {
    /// Frames that have come to the supervisor.
    fn told(&mut self) -> Vec<Control> {
        let mut frames = Vec::new();
        let mut frame = [0; control::LEN];
        while let Ok(n @ 1..) = self._supervisor[0].read(&mut frame) {
            frames.extend(Control::decode(&frame[..n]));
        }
        frames
    }

    /// Hands a configuration over.
    fn hand(&mut self, policy: Policy) -> Vec<Control> {
        let reload = Reload { policy, gone_sockets: Vec::new(), uid: Some(0), digest: "d".repeat(64) };
        let json = serde_json::to_vec(&reload).expect("JSON");
        let length = u32::try_from(json.len()).expect("short").to_be_bytes();
        self._supervisor[1].write_all(&[&length[..], &json].concat()).expect("room");
        self.server.policy_ready().expect("the supervisor is there");
        self.told()
    }
}

#[test]
fn at_rest_what_is_in_flight_ends_and_what_is_asked_waits_for_its_turn() {
    let mut bench = Bench::new(|s| s.total = None);
    let first = bench.sign(1, 1, "first");
    bench.server.rest();
    let second = bench.sign(1, 1, "second");
    let third = bench.sign(2, 1, "third");
    bench.round();
    assert_eq!(bench.told(), [], "one is in flight");
    assert_eq!(bench.gate(SIGNED), ["first"]);
    assert_eq!(bench.reply(first).expect("answered")["event"]["content"], "first");
    bench.round();
    bench.round();
    assert_eq!(bench.told().iter().filter(|f| **f == Control::Quiet).count(), 1);
    assert_eq!(bench.gate(SIGNED), [""; 0]);
    let mut policy = bench.server.policy.clone();
    policy.sockets[0].peer_uids = Some(vec![1]);
    assert_eq!(bench.hand(policy), [Control::Reloaded]);
    assert_eq!(bench.gate(SIGNED), ["second"]);
    assert_eq!(bench.reply(second).expect("answered")["event"]["content"], "second");
    assert_eq!(bench.reply(third), None, "nobody of that uid may be connected any more");
}

#[test]
fn a_configuration_without_its_descriptors_is_not_taken_over_and_the_old_one_goes_on() {
    let mut bench = Bench::new(|s| s.total = None);
    bench.server.rest();
    bench.round();
    assert_eq!(bench.told(), [Control::Quiet]);
    let held = bench.sign(1, 1, "held");
    let mut policy = bench.server.policy.clone();
    let mut more = policy.sockets[0].clone();
    more.path = "/run/more.sock".into();
    policy.sockets[0].kinds = Kinds::List(vec![]);
    policy.sockets.push(more);
    let before = bench.server.policy.clone();
    assert_eq!(bench.hand(policy), [Control::NotReloaded]);
    assert_eq!(bench.server.policy, before);
    assert!(bench.server.is_at_rest() && bench.reply(held).is_none());
    bench.server.resume().expect("the gate is there");
    assert_eq!(bench.gate(SIGNED), ["held"]);
    assert!(bench.reply(held).expect("answered").get("event").is_some());
}

#[test]
fn only_at_rest_may_a_gate_end_and_another_takes_its_place() {
    let mut bench = Bench::new(|s| s.total = None);
    bench.server.rest();
    bench.round();
    let (gate, broker) = pair();
    drop(std::mem::replace(&mut bench.gate, gate));
    bench.server.gate_ready(0).expect("it may end");
    let held = bench.sign(1, 1, "held");
    assert!(bench.server.resume().is_err(), "without a gate there is no going on");
    bench.server.rest();
    bench.server.descriptor_came(Control::NewGate(0), Some(broker.into()));
    bench.server.resume().expect("there is one again");
    assert_eq!(bench.gate(SIGNED), ["held"]);
    assert!(bench.reply(held).is_some());
    bench.gate = pair().0;
    assert!(bench.server.gate_ready(0).is_err(), "control");
}
