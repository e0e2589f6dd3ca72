//! B15: signatures are fresh, checked before they leave, and made by a library that passes BIP-340's vectors.

use crate::support::role::{ask_holder, key_holder};
use crate::support::{KEY_HEX, KEY_NSEC, PUBLIC_KEY, event, missing, not_root, process};
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::process::Command;

/// Checked: with the number of the key-holder's auxiliary randomness standing still this fails.
#[test]
fn two_signatures_of_one_id_differ_and_both_verify() {
    let (role, mut gate) = key_holder(KEY_HEX.as_bytes());
    assert_eq!(event::hex(&role.hello.public_key), PUBLIC_KEY);
    let replies = [(); 3].map(|()| ask_holder(&mut gate, &[9; 32]));
    for reply in &replies {
        assert_eq!((&reply[..32], reply[32]), (&[9; 32][..], 0));
        assert!(event::verifies(&[9; 32], &role.hello.public_key, &reply[33..]));
    }
    assert!(replies[0] != replies[1] && replies[1] != replies[2] && replies[0] != replies[2]);
}

#[test]
fn every_form_of_a_key_gives_the_same_public_key() {
    let raw = event::unhex(KEY_HEX);
    let upper = KEY_HEX.to_uppercase();
    for form in [KEY_HEX.as_bytes(), upper.as_bytes(), KEY_NSEC.as_bytes(), &raw] {
        for newline in ["", "\n"] {
            let (role, _gate) = key_holder(&[form, newline.as_bytes()].concat());
            assert_eq!(event::hex(&role.hello.public_key), PUBLIC_KEY);
        }
    }
}

#[test]
fn a_frame_of_any_other_size_ends_the_key_holder_without_an_answer() {
    for size in [1, 31, 33, 64, 97, 4096] {
        let (mut role, mut gate) = key_holder(KEY_HEX.as_bytes());
        gate.write_all(&vec![9; size]).unwrap();
        let mut reply = Vec::new();
        gate.read_to_end(&mut reply).unwrap();
        assert!(reply.is_empty(), "{size} bytes were answered");
        assert_eq!(role.child.wait().unwrap().code(), Some(3), "{size} bytes");
    }
}

#[test]
fn bip340_vectors_verify_as_published() {
    let mut rows = 0;
    for row in include_str!("../wire/data/bip340.csv").lines().skip(1) {
        let fields: Vec<&str> = row.splitn(8, ',').collect();
        let [public_key, message, signature] = [2, 4, 5].map(|i| event::unhex(fields[i]));
        assert_eq!(event::verifies(&message, &public_key, &signature), fields[6] == "TRUE", "vector {}", fields[0]);
        rows += 1;
    }
    assert_eq!(rows, 19);
}

#[test]
fn the_key_of_a_bip340_vector_signs_that_vectors_message() {
    for row in include_str!("../wire/data/bip340.csv").lines().skip(1) {
        let fields: Vec<&str> = row.splitn(8, ',').collect();
        let Ok(id) = <[u8; 32]>::try_from(event::unhex(fields[4])) else { continue };
        if fields[1].is_empty() {
            continue;
        }
        let (role, mut gate) = key_holder(fields[1].as_bytes());
        assert_eq!(event::hex(&role.hello.public_key), fields[2].to_lowercase());
        let reply = ask_holder(&mut gate, &id);
        assert!(event::verifies(&id, &event::unhex(fields[2]), &reply[33..]));
    }
}

/// A fault as hardware makes it: root alters the running key-holder's table of multiples of the generator, from
/// which signatures are made, but not the other table, with which they are verified.
/// Checked: without the verification in the key-holder's vault the wrong signature comes out and this fails.
#[test]
fn a_faulty_signature_never_leaves_the_key_holder() {
    if not_root("altering another process's memory") || missing("nm", "--version") {
        return;
    }
    let (role, mut gate) = key_holder(KEY_HEX.as_bytes());
    let pid = role.child.id() as i32;
    let (address, size) = table(pid);
    let memory = File::options().read(true).write(true).open(format!("/proc/{pid}/mem")).unwrap();
    let mut sound = vec![0; size];
    memory.read_exact_at(&mut sound, address).unwrap();
    let faulty: Vec<u8> = sound.iter().map(|b| b ^ 1).collect();

    memory.write_all_at(&faulty, address).unwrap();
    let reply = ask_holder(&mut gate, &[9; 32]);
    assert_eq!(reply[..32], [9; 32]);
    assert_ne!(reply[32], 0, "a signature that cannot be right was called one");
    assert_eq!(reply[33..], [0; 64]);

    memory.write_all_at(&sound, address).unwrap();
    let reply = ask_holder(&mut gate, &[9; 32]);
    assert!(reply[32] == 0 && event::verifies(&[9; 32], &role.hello.public_key, &reply[33..]));
}

/// Address and bytes of the running key-holder's signing table.
fn table(pid: i32) -> (u64, usize) {
    let binary = env!("CARGO_BIN_EXE_nsecd-keyholder");
    let symbols = Command::new("nm").args(["-S", binary]).output().unwrap().stdout;
    let symbols = String::from_utf8(symbols).unwrap();
    let line = symbols.lines().find(|l| l.contains("ecmult_gen_prec_table")).expect("the table's symbol");
    let words: Vec<&str> = line.split_whitespace().collect();
    let [offset, size] = [0, 1].map(|i| u64::from_str_radix(words[i], 16).unwrap());
    let base = process::mappings(pid).into_iter().find(|m| m.name.ends_with("nsecd-keyholder")).unwrap().start;
    (base + offset, size as usize)
}
