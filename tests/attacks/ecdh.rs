//! B14, B27, A6's other half: what a hijacked broker gets out of the ECDH holder.
//!
//! The tests hold the broker's end of a real holder under its real sandbox.
//! Checked: with an empty packet taken for a closed end, or with the test of ops, peers, point or size, the nonce, the start from the record, the row, or the wiping of stack or
//! reply taken out, tests of this file fail.

use crate::support::ecdh::{Ecdh, Options};
use crate::support::event::{hex, unhex};
use crate::support::freeze::Words;
use crate::support::{Dir, KEY_HEX, PUBLIC_KEY, SCAN_KEY, missing, not_root, process, sys};
use nix::sys::socket::{ControlMessage, MsgFlags, Shutdown, recv, send, sendmsg, shutdown};
use nsecd_broker::nostr::{nip04, nip44};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{IoSlice, Write};
use std::os::fd::AsRawFd;
use std::process::Command;

const OVER_CEILING: u8 = 1;
const NOT_RECORDED: u8 = 2;
const NOT_ALLOWED: u8 = 3;
const MALFORMED: u8 = 5;

/// The x-only public key of secret 5, whose messages the recorded cases have.
const PEER: &str = "2f8bde4d1a07209355b4a7250a5c5128e88b84bddc619ab7cba8d569b240efe4";
/// That of secret 2.
const OTHER: &str = "c6047f9441ed7d6d3045406e95c07cd85c778e4b8cef3ca7abac09b95c709ee5";

fn bytes(text: &str) -> [u8; 32] {
    unhex(text).try_into().unwrap()
}

fn field(row: &Value, name: &str) -> [u8; 32] {
    bytes(row[name].as_str().unwrap())
}

/// NIP-44's vectors: the rows of a section, which must be as many as were published.
fn vectors(section: &str, expected: usize) -> Vec<Value> {
    let all: Value = serde_json::from_str(include_str!("../../src/broker/tests/data/nip44.json")).unwrap();
    let rows = all.pointer(section).and_then(Value::as_array).unwrap().clone();
    assert_eq!(rows.len(), expected, "{section}");
    rows
}

/// RFC 2104 and RFC 5869, written out: neither the holder's nor the broker's code judges the holder.
fn hmac(key: &[u8], message: &[u8]) -> [u8; 32] {
    let pad = |byte: u8| (0..64).map(|i| key.get(i).copied().unwrap_or(0) ^ byte).collect::<Vec<_>>();
    let inner = Sha256::digest([&pad(0x36), message].concat());
    Sha256::digest([&pad(0x5c)[..], &inner].concat()).into()
}

fn expand(conversation: &[u8; 32], nonce: &[u8; 32]) -> [u8; 76] {
    let one = hmac(conversation, &[&nonce[..], &[1]].concat());
    let two = hmac(conversation, &[&one[..], nonce, &[2]].concat());
    let three = hmac(conversation, &[&two[..], nonce, &[3]].concat());
    [one, two, three].concat()[..76].try_into().unwrap()
}

fn open(payload: &str, keys: [u8; 76]) -> Result<String, nip44::Error> {
    let opened = nip44::Payload::parse(payload)?.open(&nip44::MessageKeys::new(Box::new(keys.into())))?;
    Ok(opened.to_string())
}

#[test]
fn message_keys_are_those_of_nip_44s_vectors() {
    // The yardstick first: it derives the published message keys from the published conversation key.
    let all: Value = serde_json::from_str(include_str!("../../src/broker/tests/data/nip44.json")).unwrap();
    let conversation = field(&all["v2"]["valid"]["get_message_keys"], "conversation_key");
    for row in vectors("/v2/valid/get_message_keys/keys", 32) {
        let published = ["chacha_key", "chacha_nonce", "hmac_key"].map(|name| row[name].as_str().unwrap()).concat();
        assert_eq!(hex(&expand(&conversation, &field(&row, "nonce"))), published);
    }
    let mut agreed = 0;
    for row in vectors("/v2/valid/get_conversation_key", 35) {
        let dir = Dir::new(None);
        let mut holder = Ecdh::start(&dir, Options { key: row["sec1"].as_str().unwrap(), ..Options::default() });
        for nonce in [[0; 32], [0xa5; 32]] {
            let expected = expand(&field(&row, "conversation_key"), &nonce);
            assert_eq!(holder.ask(1, &field(&row, "pub2"), &nonce), Ok(expected));
            agreed += 1;
        }
    }
    assert_eq!(agreed, 70);
}

#[test]
fn published_messages_open_with_the_keys_that_either_party_is_answered() {
    for row in vectors("/v2/valid/encrypt_decrypt", 10) {
        for (own, peer) in [("sec1", "sec2"), ("sec2", "sec1")] {
            let peer = secp256k1::SecretKey::from_secret_bytes(field(&row, peer)).unwrap().x_only_public_key().0;
            let dir = Dir::new(None);
            let mut holder = Ecdh::start(&dir, Options { key: row[own].as_str().unwrap(), ..Options::default() });
            let keys = holder.ask(1, &peer.to_byte_array(), &field(&row, "nonce")).unwrap();
            assert_eq!(open(row["payload"].as_str().unwrap(), keys).as_deref(), Ok(row["plaintext"].as_str().unwrap()));
        }
    }
}

#[test]
fn a_reply_opens_one_message_and_no_other_of_the_same_peer() {
    // B27. Each of a thousand nonces has keys of its own, none of which is the conversation key or leads to another's.
    let dir = Dir::new(None);
    let mut holder = Ecdh::start(&dir, Options::default());
    let nonce = |n: u16| Sha256::digest(n.to_be_bytes()).into();
    let mut seen = std::collections::HashSet::new();
    let keys: Vec<[u8; 76]> = (0..1000).map(|n| holder.ask(1, &bytes(PEER), &nonce(n)).unwrap()).collect();
    for key in &keys {
        for part in [&key[..32], &key[32..44], &key[44..]] {
            assert!(seen.insert(part.to_vec()), "a key that two messages share");
        }
    }
    let sealed = |n: u16| {
        nip44::encrypt("secret", &nonce(n), &nip44::MessageKeys::new(Box::new(keys[usize::from(n)].into()))).unwrap()
    };
    for n in 0..100 {
        assert_eq!(open(&sealed(n), keys[usize::from(n)]).as_deref(), Ok("secret"));
        for other in (0..100).filter(|other| *other != n) {
            assert_eq!(open(&sealed(n), keys[usize::from(other)]), Err(nip44::Error::Mac));
        }
    }
    let conversation = conversation(KEY_HEX, PEER);
    assert_eq!(keys[0], expand(&conversation, &nonce(0)));
    assert!(keys.iter().all(|key| key.windows(32).all(|part| part != conversation)));
}

/// The shared point's x, and the conversation key that follows.
fn shared(secret: &str, peer: &str) -> [u8; 32] {
    let secret = secp256k1::SecretKey::from_secret_bytes(bytes(secret)).unwrap();
    let peer = secp256k1::XOnlyPublicKey::from_byte_array(bytes(peer)).unwrap();
    let point = peer.public_key(secp256k1::Parity::Even);
    secp256k1::ecdh::shared_secret_point(&point, &secret)[..32].try_into().unwrap()
}

fn conversation(secret: &str, peer: &str) -> [u8; 32] {
    hmac(b"nip44-v2", &shared(secret, peer))
}

#[test]
fn only_allowed_operations_are_answered() {
    let dir = Dir::new(None);
    for allowed in ["", "1", "2", "3", "1,2", "1,3", "1,2,3"] {
        let mut holder = Ecdh::start(&dir, Options { ops: allowed, ..Options::default() });
        let before = holder.rows().len();
        for op in 0..=255u8 {
            let expected = allowed.split(',').any(|n| n == op.to_string());
            let result = holder.ask(op, &bytes(PEER), &[1; 32]);
            assert_eq!(result.err(), (!expected).then_some(NOT_ALLOWED), "op {op} where {allowed:?} are allowed");
        }
        assert_eq!(holder.rows().len() - before, allowed.split(',').filter(|n| !n.is_empty()).count());
    }
}

#[test]
fn nip_04_is_answered_with_the_shared_x_where_it_is_allowed() {
    let dir = Dir::new(None);
    let mut holder = Ecdh::start(&dir, Options { ops: "2", ..Options::default() });
    let key = holder.ask(2, &bytes(PEER), &[0; 32]).unwrap();
    assert_eq!((&key[..32], &key[32..]), (&shared(KEY_HEX, PEER)[..], &[0; 44][..]));
    // What the reference daemon's library encrypted.
    let message = nip04::Message::parse("AUWpKbGz2Np5ZC75dTuQGA==?iv=AQEBAQEBAQEBAQEBAQEBAQ==").unwrap();
    assert_eq!(message.open(key[..32].try_into().unwrap()).unwrap().as_str(), "hello");
    // Nothing of it stays for who asks next and may not.
    assert_eq!(holder.ask(1, &bytes(PEER), &[0; 32]), Err(NOT_ALLOWED));
}

#[test]
fn only_peers_on_the_list_are_agreed_with() {
    let dir = Dir::new(None);
    let peers = format!("{PEER},self");
    let mut holder = Ecdh::start(&dir, Options { ops: "1,2,3", peers: &peers, ..Options::default() });
    for op in [1, 2] {
        assert!(holder.ask(op, &bytes(PEER), &[1; 32]).is_ok());
        assert!(holder.ask(op, &bytes(PUBLIC_KEY), &[1; 32]).is_ok());
        assert_eq!(holder.ask(op, &bytes(OTHER), &[1; 32]), Err(NOT_ALLOWED));
    }
    // A gift wrap's author is a one-time key: op 3 is not held to the list, and its row says so.
    assert!(holder.ask(3, &bytes(OTHER), &[1; 32]).is_ok());
    assert_eq!(holder.rows().iter().map(|row| row.1).collect::<Vec<_>>(), [1, 1, 2, 2, 3]);
    for (peers, own) in [(PEER, Err(NOT_ALLOWED)), ("", Err(NOT_ALLOWED)), ("any", Ok(()))] {
        let mut holder = Ecdh::start(&dir, Options { peers, ..Options::default() });
        assert_eq!(holder.ask(1, &bytes(PUBLIC_KEY), &[1; 32]).map(|_| ()), own, "{peers}");
    }
}

#[test]
fn what_is_no_point_is_malformed_and_leaves_no_row() {
    let dir = Dir::new(None);
    let mut holder = Ecdh::start(&dir, Options { ops: "1,2,3", ..Options::default() });
    let mut points = vec![[0; 32], [0xff; 32]];
    // p, p+1 (whose x = 1 would be on the curve), and BIP-340's "public key not on the curve".
    points.push(bytes("fffffffffffffffffffffffffffffffffffffffffffffffffffffffefffffc2f"));
    points.push(bytes("fffffffffffffffffffffffffffffffffffffffffffffffffffffffefffffc30"));
    points.push(bytes("eefdea4cdb677750a420fee807eacf21eb9898ae79b9768766e4faa04a2d4a34"));
    for row in vectors("/v2/invalid/get_conversation_key", 8) {
        let peer = field(&row, "pub2");
        points.extend(secp256k1::XOnlyPublicKey::from_byte_array(peer).is_err().then_some(peer));
    }
    assert!(points.len() >= 7, "{}", points.len());
    for point in points {
        for op in [1, 2, 3] {
            assert_eq!(holder.ask(op, &point, &[1; 32]), Err(MALFORMED), "{}", hex(&point));
        }
    }
    assert_eq!(holder.rows(), []);
    assert!(holder.ask(1, &bytes(PEER), &[1; 32]).is_ok());
    assert_eq!(holder.rows(), [(1, 1, bytes(PEER))]);
}

#[test]
fn secrets_that_are_no_key_start_no_holder() {
    let mut refused = 0;
    for row in vectors("/v2/invalid/get_conversation_key", 8) {
        let secret = row["sec1"].as_str().unwrap();
        if secp256k1::SecretKey::from_secret_bytes(bytes(secret)).is_ok() {
            continue;
        }
        let (source, mut writer) = std::io::pipe().unwrap();
        writer.write_all(secret.as_bytes()).unwrap();
        drop(writer);
        let arguments = ["1", "any", "none", "none", "0", "fd"];
        let mut command = crate::support::role::command(env!("CARGO_BIN_EXE_nsecd-ecdh"), &arguments);
        sys::give_fds(&mut command, Words::new().fds(6).into());
        let output = command.stdin(source).output().unwrap();
        assert_eq!(output.status.code(), Some(65));
        assert!(!String::from_utf8_lossy(&output.stderr).contains(secret));
        refused += 1;
    }
    assert!(refused >= 3, "{refused}");
}

#[test]
fn packets_of_any_other_size_are_malformed_and_the_next_one_is_served() {
    let dir = Dir::new(None);
    let mut holder = Ecdh::start(&dir, Options::default());
    let keys = holder.ask(1, &bytes(PEER), &[1; 32]).unwrap();
    let whole = [&[1], &bytes(PEER)[..], &[1; 32]].concat();
    for size in (0..=200).chain([4096, 65_536, 131_072]).filter(|size| *size != 65) {
        let packet: Vec<u8> = whole.iter().copied().chain(std::iter::repeat(0)).take(size).collect();
        send(holder.broker.as_raw_fd(), &packet, MsgFlags::empty()).unwrap();
        let reply = holder.receive().expect("a reply");
        assert_eq!((reply.request, reply.status, reply.key), ([0; 65], MALFORMED, [0; 76]), "{size} bytes");
    }
    assert_eq!(holder.ask(1, &bytes(PEER), &[1; 32]), Ok(keys));
    assert_eq!(holder.rows().len(), 2);
}

/// B14. An empty packet reads as a closed end does: taken for one, it would end the holder, and nsecd with it.
#[test]
fn an_empty_packet_ends_nothing_for_the_next_broker() {
    let dir = Dir::new(None);
    let mut holder = Ecdh::start(&dir, Options::default());
    // The supervisor's, from which the next broker gets its own.
    let kept = holder.broker.try_clone().unwrap();
    for _ in 0..100 {
        send(holder.broker.as_raw_fd(), b"", MsgFlags::empty()).unwrap();
        send(holder.broker.as_raw_fd(), b"x", MsgFlags::empty()).unwrap();
    }
    // Killed with its replies unread.
    holder.broker = kept;
    for _ in 0..200 {
        assert_eq!(holder.receive().unwrap().status, MALFORMED);
    }
    assert!(holder.ask(1, &bytes(PEER), &[1; 32]).is_ok());
    assert_eq!(holder.rows().len(), 1);
}

#[test]
fn the_last_closed_end_ends_the_holder() {
    let dir = Dir::new(None);
    for unread in [false, true] {
        let mut holder = Ecdh::start(&dir, Options::default());
        if unread {
            send(holder.broker.as_raw_fd(), b"x", MsgFlags::empty()).unwrap();
        }
        holder.broker = File::open("/dev/null").unwrap();
        assert_eq!(holder.role.child.wait().unwrap().code(), Some(4));
    }
}

/// A broker under its filter cannot call shutdown(2); were it to, this is what is left.
#[test]
fn an_end_that_was_shut_down_gets_no_key_and_keeps_no_processor_busy() {
    let dir = Dir::new(None);
    let holder = Ecdh::start(&dir, Options::default());
    shutdown(holder.broker.as_raw_fd(), Shutdown::Write).unwrap();
    // It answers until nobody makes room for more, and waits.
    let waits = || process::status(holder.role.child.id() as i32)["State"].starts_with('S');
    assert!((0..1000).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(5));
        (0..20).all(|_| waits())
    }));
    let mut replies = 0;
    let mut reply = [0; 143];
    while let Ok(142) = recv(holder.broker.as_raw_fd(), &mut reply, MsgFlags::MSG_DONTWAIT) {
        assert!(reply[65] == MALFORMED && reply[66..].iter().all(|b| *b == 0));
        replies += 1;
        if replies > 100 {
            break;
        }
    }
    assert!(replies > 0);
}

#[test]
fn requests_sent_ahead_are_answered_in_order_each_with_its_own_fields() {
    let dir = Dir::new(None);
    let mut holder = Ecdh::start(&dir, Options { peers: PEER, ..Options::default() });
    let request = |n: u8| [&[1], &bytes(if n.is_multiple_of(2) { PEER } else { OTHER })[..], &[n; 32]].concat();
    for n in 0..10 {
        holder.broker.write_all(&request(n)).unwrap();
    }
    for n in 0..10 {
        let reply = holder.receive().unwrap();
        assert_eq!(reply.request[..], request(n));
        assert_eq!(reply.status, if n % 2 == 0 { 0 } else { NOT_ALLOWED });
        assert_eq!(reply.key == [0; 76], n % 2 == 1, "a refusal carries the key of the reply before");
    }
}

#[test]
fn over_the_ceiling_no_key_is_made_and_no_restart_refills_it() {
    let dir = Dir::new(None);
    let options = || Options { ops: "1,2,3", ceiling: "3,1,100000", peers: PEER, ..Options::default() };
    let mut holder = Ecdh::start(&dir, options());
    // What is refused for another reason takes no token.
    assert_eq!(holder.ask(1, &bytes(OTHER), &[1; 32]), Err(NOT_ALLOWED));
    assert_eq!(holder.ask(3, &[0; 32], &[1; 32]), Err(MALFORMED));
    for op in [1, 2, 3] {
        assert!(holder.ask(op, &bytes(PEER), &[1; 32]).is_ok());
    }
    for op in [1, 2, 3] {
        assert_eq!(holder.ask(op, &bytes(PEER), &[1; 32]), Err(OVER_CEILING));
    }
    drop(holder);
    let mut again = Ecdh::start(&dir, options());
    assert_eq!(again.ask(1, &bytes(PEER), &[1; 32]), Err(OVER_CEILING));
    assert_eq!(again.rows().len(), 3);
}

#[test]
fn each_key_has_its_row_and_without_a_row_there_is_none() {
    let dir = Dir::new(None);
    let mut holder = Ecdh::start(&dir, Options { ops: "1,2", ..Options::default() });
    for n in 0..5u64 {
        let (op, peer) = if n % 2 == 0 { (1, PEER) } else { (2, OTHER) };
        assert!(holder.ask(op, &bytes(peer), &[n as u8; 32]).is_ok());
        assert_eq!(holder.rows().last(), Some(&(n + 1, op.into(), bytes(peer))));
    }
    drop(holder);
    let mut unrecorded = Ecdh::start(&dir, Options { ops: "1,2", read_only: true, ..Options::default() });
    for op in [1, 2] {
        assert_eq!(unrecorded.ask(op, &bytes(PEER), &[1; 32]), Err(NOT_RECORDED));
    }
    assert_eq!(unrecorded.rows().len(), 5);
}

#[test]
fn it_holds_its_own_descriptors_and_takes_none_from_a_hijacked_broker() {
    if not_root("reading the descriptors of a non-dumpable process") {
        return;
    }
    let dir = Dir::new(None);
    let mut holder = Ecdh::start(&dir, Options::default());
    assert_eq!((holder.role.hello.role, hex(&holder.role.hello.public_key)), (b'E', PUBLIC_KEY.to_owned()));
    let pid = holder.role.child.id() as i32;
    let before = process::descriptors(pid);
    assert_eq!(before.keys().copied().collect::<Vec<_>>(), [3, 4, 5]);
    let request = [&[1], &bytes(PEER)[..], &[1; 32]].concat();
    let passed = [holder.record.as_raw_fd(); 8];
    let rights = [ControlMessage::ScmRights(&passed)];
    sendmsg::<()>(holder.broker.as_raw_fd(), &[IoSlice::new(&request)], &rights, MsgFlags::empty(), None).unwrap();
    assert_eq!(holder.receive().unwrap().status, 0);
    assert_eq!(process::descriptors(pid), before);
    let status = process::status(pid);
    assert_eq!((status["Seccomp"].as_str(), status["NoNewPrivs"].as_str()), ("2", "1"));
    assert_eq!(status["CapEff"], "0000000000000000");
}

/// Which of these secrets lie in readable memory: sixteen bytes in a row, as they are, reversed, or in 8-byte limbs.
fn residue<'a>(pid: i32, secrets: &[(&'a str, [u8; 32])]) -> Vec<&'a str> {
    let memory: Vec<Vec<u8>> = process::mappings(pid).iter().map(|mapping| process::read(pid, mapping)).collect();
    let lies = |part: &[u8]| memory.iter().any(|m| m.windows(part.len()).any(|window| window == part));
    let mut found = Vec::new();
    for (name, secret) in secrets {
        let reversed: Vec<u8> = secret.iter().rev().copied().collect();
        let limbs: Vec<u8> = secret.chunks(8).flat_map(|limb| limb.iter().rev().copied()).collect();
        if [secret.to_vec(), reversed, limbs].iter().flat_map(|form| form.chunks(16)).any(lies) {
            found.push(*name);
        }
    }
    found
}

#[test]
fn no_secret_lies_in_readable_memory_and_none_but_the_key_stays_at_all() {
    if not_root("reading another process's memory") {
        return;
    }
    let nonce = [0x3c; 32];
    let keys = expand(&conversation(SCAN_KEY, PEER), &nonce);
    let secrets = [
        ("key", bytes(SCAN_KEY)),
        ("shared x", shared(SCAN_KEY, PEER)),
        ("conversation key", conversation(SCAN_KEY, PEER)),
        ("message keys, first", keys[..32].try_into().unwrap()),
        ("message keys, last", keys[44..].try_into().unwrap()),
    ];
    // In secret memory nothing can be read; in ordinary memory, the control, the key alone is left when a reply is out.
    let without: fn(&mut Command) = sys::without_memfd_secret;
    for (prepare, expected) in [((|_| ()) as fn(&mut Command), vec![]), (without, vec!["key"])] {
        let dir = Dir::new(None);
        let mut holder = Ecdh::start(&dir, Options { key: SCAN_KEY, ops: "1,2", prepare, ..Options::default() });
        for _ in 0..50 {
            assert_eq!(holder.ask(1, &bytes(PEER), &nonce), Ok(keys));
            assert!(holder.ask(2, &bytes(PEER), &nonce).is_ok());
        }
        // The reply's wiping comes after the reply: this one has nothing to wipe and waits for it.
        assert_eq!(holder.ask(9, &bytes(PEER), &nonce), Err(NOT_ALLOWED));
        assert_eq!(residue(holder.role.child.id() as i32, &secrets), expected);
    }
}

#[test]
fn the_key_holder_links_nothing_of_a_key_agreement() {
    if missing("nm", "--version") {
        return;
    }
    let symbols = |binary: &str| String::from_utf8(Command::new("nm").arg(binary).output().unwrap().stdout).unwrap();
    let linked = |binary: &str| {
        let symbols = symbols(binary);
        assert!(symbols.contains("secp256k1"), "{binary} has no symbols");
        ["secp256k1_v0_14_ecdh", "4hmac", "4sha2"].map(|name| symbols.contains(name))
    };
    assert_eq!(linked(env!("CARGO_BIN_EXE_nsecd-keyholder")), [false; 3]);
    assert!(linked(env!("CARGO_BIN_EXE_nsecd-ecdh"))[0], "the control");
    assert!(!symbols(env!("CARGO_BIN_EXE_nsecd-ecdh")).contains("schnorrsig_sign"), "it signs nothing");
}
