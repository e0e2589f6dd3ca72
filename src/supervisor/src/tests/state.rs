use std::fs;
use std::os::unix::fs::MetadataExt;

use super::{Scratch, mode, root};
use crate::setup::State;
use crate::uids::{DYNAMIC, Ids};

#[test]
fn a_state_directory_serves_one_nsecd() {
    let scratch = Scratch::new();
    let path = scratch.join("state");
    let first = State::open(&path, false).unwrap();
    assert_eq!(mode(&path), 0o700);
    assert!(State::open(&path, false).err().unwrap().to_string().contains("another nsecd uses"));
    drop(first);
    State::open(&path, false).unwrap();
}

#[test]
fn an_ephemeral_state_directory_is_new_and_gone_at_exit() {
    let scratch = Scratch::new();
    let path = scratch.join("state");
    let state = State::open(&path, true).unwrap();
    state.record("default", None).unwrap();
    assert!(State::open(&path, true).is_err());
    assert!(path.join("default.record").exists());
    drop(state);
    assert!(scratch.names().is_empty());
    fs::create_dir(&path).unwrap();
    assert!(State::open(&path, true).is_err());
    assert_eq!(scratch.names(), ["state"]);
}

#[test]
fn a_record_passes_from_one_gates_uid_to_the_next_and_from_nobody_else() {
    if !root("records of other uids") {
        return;
    }
    let scratch = Scratch::new();
    let state = State::open(&scratch.join("state"), false).unwrap();
    let path = scratch.join("state/default.record");
    let gate = |uid| Some(Ids { uid, gid: uid });
    for uid in [*DYNAMIC.start(), *DYNAMIC.end()] {
        state.record("default", gate(uid)).unwrap();
        assert_eq!((fs::metadata(&path).unwrap().uid(), mode(&path)), (uid, 0o600));
    }
    std::os::unix::fs::chown(&path, Some(1234), None).unwrap();
    assert!(state.record("default", gate(*DYNAMIC.start())).is_err());
}
