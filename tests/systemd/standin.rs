//! A stand-in for the reference daemon: the same socket, the same keyring entries, as careless. It is this test binary itself,
//! started inside the machine as `nostr-signer standin::serves --exact --ignored`.

use linux_keyutils::{KeyRing, KeyRingIdentifier};
use secp256k1::Keypair;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

#[test]
#[ignore = "no test: a daemon, which the tests of adoption start in their machine"]
fn serves() {
    let runtime = std::env::var("XDG_RUNTIME_DIR").unwrap();
    let socket = Path::new(&runtime).join("nostr-signer.sock");
    let default = ["nsec", "wn_nsec", "nostr-nsec"].into_iter().find_map(key).expect("no key in @u");
    let business = key("nostr:business");
    let _ = std::fs::remove_file(&socket);
    let listener = UnixListener::bind(&socket).unwrap();
    for stream in listener.incoming() {
        let stream = stream.unwrap();
        std::thread::spawn(move || serve(stream, &default, business.as_ref()));
    }
}

fn serve(stream: UnixStream, default: &Keypair, business: Option<&Keypair>) {
    let mut out = stream.try_clone().unwrap();
    for line in BufReader::new(stream).lines() {
        let Ok(request) = line.map(|line| serde_json::from_str::<Value>(&line).unwrap_or_default()) else { return };
        let params = &request["params"];
        let pair = if params["account"] == "business" { business.unwrap() } else { default };
        let reply = match request["method"].as_str().unwrap_or_default() {
            "get_public_key" => json!({"pubkey": public(pair)}),
            "list_accounts" => {
                let more = business.map(|b| json!({"name": "business", "pubkey": public(b), "default": false}));
                let mut all = vec![json!({"name": "default", "pubkey": public(default), "default": true})];
                all.extend(more);
                json!({"accounts": all})
            }
            "session_start" => json!({"session": {"token": "a".repeat(64), "expiresAt": 0, "allowedKinds": [1]}}),
            "sign_event" => json!({"event": signed(params, pair)}),
            other => json!({"error": format!("Unknown method: {other}")}),
        };
        if writeln!(out, "{reply}").is_err() {
            return;
        }
    }
}

fn public(pair: &Keypair) -> String {
    hex(&pair.x_only_public_key().0.to_byte_array())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn signed(params: &Value, pair: &Keypair) -> Value {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let (kind, content, tags) = (&params["kind"], &params["content"], json!([]));
    let id: [u8; 32] = Sha256::digest(json!([0, public(pair), now, kind, tags, content]).to_string()).into();
    let sig = secp256k1::schnorr::sign_with_aux_rand(&id, pair, &[7; 32]);
    json!({"kind": kind, "content": content, "tags": tags, "created_at": now, "pubkey": public(pair), "id": hex(&id), "sig": hex(&sig.to_byte_array())})
}

/// A key of the user keyring, an nsec1… .
fn key(description: &str) -> Option<Keypair> {
    let user = KeyRing::from_special_id(KeyRingIdentifier::User, true).unwrap();
    KeyRing::from_special_id(KeyRingIdentifier::Process, true).unwrap().link_keyring(user).unwrap();
    let text = user.search(description).ok()?.read_to_vec().unwrap();
    let text = String::from_utf8(text).unwrap();
    // NIP-19, without looking at the checksum.
    let digits = text.trim().strip_prefix("nsec1").expect("an nsec1…");
    let value = |c: char| "qpzry9x8gf2tvdw0s3jn54khce6mua7l".find(c).unwrap() as u32;
    let (mut bytes, mut bits, mut have) = (Vec::new(), 0u32, 0);
    for c in digits[..52].chars() {
        (bits, have) = ((bits << 5 | value(c)) & 0xfff, have + 5);
        if have >= 8 {
            have -= 8;
            bytes.push((bits >> have) as u8);
        }
    }
    Some(Keypair::from_secret_bytes(bytes[..32].try_into().unwrap()).unwrap())
}
