//! A start with too few descriptors, however few: ready, or ended with a message, and nothing between.

use super::calls::ended_wrongly;
use crate::support::daemon::{DM, Setup};
use crate::support::fault::start;
use crate::support::{not_root, sys};

/// Checked: without the message of a start that failed this is red.
#[test]
fn with_however_few_descriptors_a_start_is_ready_or_ends_with_a_message() {
    if not_root("tracing what is not dumpable") {
        return;
    }
    let (mut ready, mut ended) = (0, 0);
    for most in (4..=40).step_by(2).chain([64, 256]) {
        let mut setup = Setup::new(DM);
        sys::limit_descriptors(&mut setup.command, most);
        let end = start(setup, None);
        (ready, ended) = if end.ready { (ready + 1, ended) } else { (ready, ended + 1) };
        let wrong = ended_wrongly(&end, false);
        assert!(wrong.is_empty(), "{most} descriptors: {}\n{}", wrong.join("; "), end.stderr);
    }
    assert!(ready > 0 && ended > 0, "control: {ready} were ready, {ended} ended");
}
