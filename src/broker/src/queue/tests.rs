//! Checked: with another order than the turn's, or a turn that does not go to the back, or newcomers at the front, those
//! about turns fail and the property with them; without a bound, the one about places; with a line that goes on resting
//! when its head leaves, the one about resting.

use super::*;
use proptest::prelude::*;

const FOREVER: u64 = u64::MAX;

fn of(uid: u32, cgroup: u64) -> Principal {
    Principal { socket: 0, uid, cgroup: Some(cgroup) }
}

/// Serves whoever's turn it is, until nobody is due; the connections in their order.
fn serve_all(queues: &mut Queues, now: u64) -> Vec<u64> {
    let mut order = Vec::new();
    while let Some((who, id)) = queues.turn(0, now) {
        queues.served(who);
        queues.leave(who, id);
        order.push(id);
    }
    order
}

fn joined(queues: &mut Queues, who: Principal, ids: impl IntoIterator<Item = u64>) {
    assert!(ids.into_iter().all(|id| queues.join(who, id, FOREVER)));
}

#[test]
fn a_line_is_first_come_first_served() {
    let mut queues = Queues::default();
    let (a, b) = (of(1, 1), of(2, 1));
    joined(&mut queues, a, [5, 3, 4]);
    assert!(queues.is_busy(a) && !queues.is_busy(b));
    assert_eq!((queues.head(a), queues.head(b)), (Some(5), None));
    queues.leave(a, 3);
    joined(&mut queues, a, [1]);
    assert_eq!(serve_all(&mut queues, 0), [5, 4, 1]);
    assert!(!queues.is_busy(a) && queues.sockets().is_empty() && queues.next().is_none());
}

#[test]
fn uids_have_their_turns_whoever_came_first_and_with_how_many() {
    let mut queues = Queues::default();
    joined(&mut queues, of(1, 1), 0..60);
    joined(&mut queues, of(2, 1), 100..103);
    joined(&mut queues, of(3, 1), 200..201);
    assert_eq!(serve_all(&mut queues, 0)[..8], [0, 100, 200, 1, 101, 2, 102, 3]);
}

#[test]
fn cgroups_of_a_uid_share_its_turns() {
    let mut queues = Queues::default();
    for cgroup in 0..4 {
        joined(&mut queues, of(1, cgroup), 10 * cgroup..10 * cgroup + 3);
    }
    joined(&mut queues, of(2, 1), 100..103);
    assert_eq!(serve_all(&mut queues, 0)[..10], [0, 100, 10, 101, 20, 102, 30, 1, 11, 21]);
}

#[test]
fn who_leaves_and_comes_again_stands_at_the_back() {
    let mut queues = Queues::default();
    joined(&mut queues, of(1, 1), [1]);
    joined(&mut queues, of(2, 1), [2]);
    queues.leave(of(1, 1), 1);
    joined(&mut queues, of(1, 1), [3]);
    // A new cgroup of a uid that waits takes the uid's place and stands behind its others.
    joined(&mut queues, of(2, 2), [4]);
    assert_eq!(serve_all(&mut queues, 0), [2, 3, 4]);
}

#[test]
fn a_principal_has_so_many_places_and_a_uid_so_many_in_whatever_cgroups() {
    let mut queues = Queues::default();
    let places =
        |queues: &mut Queues, who, first| (first..first + 1000).take_while(|id| queues.join(who, *id, FOREVER)).count();
    let taken: Vec<usize> = (0..6).map(|cgroup| places(&mut queues, of(1, cgroup), 1000 * cgroup)).collect();
    assert_eq!(taken, [64, 64, 64, 64, 0, 0]);
    assert_eq!(places(&mut queues, of(2, 1), 10_000), MAX_WAITING);
    assert_eq!(places(&mut queues, Principal { socket: 1, ..of(1, 1) }, 20_000), MAX_WAITING);
    queues.leave(of(1, 0), 0);
    assert_eq!(places(&mut queues, of(1, 9), 30_000), 1);
}

#[test]
fn a_line_that_rests_is_passed_over_and_keeps_its_place() {
    let mut queues = Queues::default();
    joined(&mut queues, of(1, 1), [1]);
    joined(&mut queues, of(2, 1), [2, 3, 4]);
    queues.rest(of(1, 1), 50);
    queues.served(of(2, 1));
    queues.leave(of(2, 1), 2);
    assert_eq!(queues.turn(0, 49), Some((of(2, 1), 3)));
    assert_eq!(queues.turn(0, 50), Some((of(1, 1), 1)));
    queues.rest(of(2, 1), 70);
    assert_eq!((queues.next(), queues.turn(0, 49)), (Some(50), None));
    // Another head may wait for something else.
    queues.leave(of(2, 1), 3);
    assert_eq!(queues.turn(0, 49), Some((of(2, 1), 4)));
}

#[test]
fn a_socket_that_is_held_has_nobody_due_until_a_slot_comes_back() {
    let mut queues = Queues::default();
    let elsewhere = Principal { socket: 1, ..of(1, 1) };
    joined(&mut queues, of(1, 1), [1]);
    joined(&mut queues, of(2, 1), [2]);
    joined(&mut queues, elsewhere, [3]);
    queues.rest(of(2, 1), 80);
    queues.hold(0, 100);
    assert_eq!((queues.turn(0, 99), queues.turn(1, 0)), (None, Some((elsewhere, 3))));
    queues.rest(elsewhere, 300);
    assert_eq!(queues.next(), Some(100));
    assert_eq!(queues.turn(0, 100), Some((of(1, 1), 1)));
    queues.wake(of(2, 1));
    queues.rest(of(1, 1), 90);
    assert_eq!(queues.turn(0, 0), Some((of(2, 1), 2)), "the slot counted in its own windows too");
    queues.rest(of(2, 1), 80);
    assert_eq!(queues.next(), Some(80));
}

#[test]
fn patience_ends_for_each_by_itself_whether_or_not_it_is_first() {
    let mut queues = Queues::default();
    let a = of(1, 1);
    assert!(queues.join(a, 1, 300) && queues.join(a, 2, 200));
    queues.rest(a, 1000);
    assert_eq!((queues.next(), queues.over(199), queues.over(200)), (Some(200), None, Some((a, 2))));
    queues.leave(a, 2);
    assert_eq!((queues.next(), queues.over(299)), (Some(300), None));
    queues.leave(a, 1);
    assert_eq!((queues.next(), queues.over(FOREVER)), (None, None));
}

proptest! {
    /// Nobody starves: with three uids of three principals each, a line has its turn after at most eight of others',
    /// whatever comes and goes meanwhile, and what is kept adds up.
    #[test]
    fn no_line_waits_through_more_turns_than_there_are_lines(
        steps in proptest::collection::vec((0u32..3, 0u64..3, 0u8..4), 1..400),
    ) {
        let mut queues = Queues::default();
        let mut passed: Table<Principal, usize> = Table::default();
        for (id, (uid, cgroup, what)) in steps.into_iter().enumerate() {
            let who = of(uid, cgroup);
            match what {
                0 | 1 => {
                    queues.join(who, id as u64, FOREVER);
                    passed.entry(who).or_default();
                }
                2 => {
                    if let Some(head) = queues.head(who) {
                        queues.leave(who, head);
                    }
                }
                _ => {
                    if let Some((who, head)) = queues.turn(0, 0) {
                        queues.served(who);
                        queues.leave(who, head);
                        passed.values_mut().for_each(|turns| *turns += 1);
                        passed.insert(who, 0);
                    }
                }
            }
            passed.retain(|who, _| queues.is_busy(*who));
            prop_assert!(passed.values().all(|turns| *turns <= 8), "{passed:?}");
            prop_assert_eq!(queues.turn(0, 0).is_some(), !passed.is_empty());
            let room = queues.rooms.get(&0);
            let waiting: usize = room.map_or(0, |r| r.lines.values().map(|l| l.waiting.len()).sum());
            prop_assert_eq!(waiting, queues.patience.len());
            prop_assert_eq!(waiting, room.map_or(0, |r| r.uids.values().map(|u| u.waiting).sum()));
            prop_assert_eq!(room.map_or(0, |r| r.retries.len()), room.map_or(0, |r| r.lines.len()));
        }
    }
}
