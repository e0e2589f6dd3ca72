use std::fs;
use std::time::{Duration, Instant};

use super::Scratch;
use crate::decisionlog::DecisionLog;
use crate::setup::State;

/// Checked: where nothing is looked for while a complaint is young, as it was once, this fails.
#[test]
fn a_log_out_of_reach_is_looked_for_every_second_and_found_again() {
    let scratch = Scratch::new();
    let (path, aside) = (scratch.join("state"), scratch.join("aside"));
    let state = State::open(&path, false).unwrap();
    let mut log = DecisionLog::open(&state).unwrap();
    let start = Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    assert!(log.found_missing(&state, at(0)).is_none());
    // Nothing at the directory's path: it cannot be put back.
    fs::rename(&path, &aside).unwrap();
    assert!(log.found_missing(&state, at(2)).is_none());
    // The directory is back and the log is not: that is mended at the next look.
    fs::rename(&aside, &path).unwrap();
    fs::remove_file(path.join("decisions.log")).unwrap();
    assert!(log.found_missing(&state, at(4)).is_some());
    assert!(path.join("decisions.log").exists());
}
