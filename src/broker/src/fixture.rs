//! What the unit tests decide by: two sockets, two accounts, a few principals.

use nsecd_policy::{Account, Bind, Kinds, Limits, Method as Offer, Policy, Record, Socket, StartSessions};

use crate::clock::Now;
use crate::ledger::Ledger;
use crate::policy::{Engine, Verdict};
use crate::principal::Principal;
use crate::request;

/// The default account's key.
pub const KEY: &str = "f9308a019258c31049344f85f89d5229b531c845836f99b08601f113bce036f9";
/// When tests begin.
pub const START: Now = Now { boot: 10_000_000, wall: 1_800_000_000_000 };
pub const A: Principal = Principal { socket: 0, uid: 1000, cgroup: None };
pub const B: Principal = Principal { socket: 0, uid: 1001, cgroup: None };

fn socket(path: &str) -> Socket {
    Socket {
        path: path.into(),
        listener_fd: -1,
        alert_fd: -1,
        alert_size: 0,
        peer_uids: None,
        kinds: Kinds::List(vec![1, 7, 1111]),
        max_ttl: 3600,
        tokenless: Kinds::List(vec![1]),
        methods: vec![Offer::SignEvent],
        accounts: vec!["default".into()],
        start_sessions: StartSessions::Own,
        bind: Bind::FirstUse,
        on_limit_wait: 0,
        tokenless_on_limit_wait: 20,
        created_at: Some((-3600, 900)),
        max_request: 65536,
        limits: Some(Limits { burst: 5, burst_window: 10, per_minute: 10, per_hour: 100 }),
        total: Some(Limits { burst: 20, burst_window: 10, per_minute: 40, per_hour: 400 }),
        peers: None,
        dm: None,
        crypt: None,
        rules: Vec::new(),
        sessions_per_minute: 6,
        live_sessions: 8,
    }
}

/// The policy, its first socket changed.
pub fn policy_with(change: impl FnOnce(&mut Socket)) -> Policy {
    let mut first = socket("/run/a.sock");
    change(&mut first);
    let record = |name: &str| Record { name: name.into(), last: Some(0), oldest: 1 };
    let account = |name: &str, public_key: &str| Account {
        name: name.into(),
        public_key: public_key.into(),
        gate_fd: -1,
        ceiling_period_ms: 1000,
        seal_ceiling_period_ms: None,
        kinds: Kinds::Any,
        ceiling: None,
        created_at: None,
        record: record(name),
    };
    let mut second = socket("/run/b.sock");
    second.accounts = vec!["business".into(), "default".into()];
    Policy {
        accounts: vec![account("business", &"b".repeat(64)), account("default", KEY)],
        sockets: vec![first, second],
        default_account: "default".into(),
        log_size: 1 << 20,
        log_keep: 8,
        decisions_fd: -1,
        decisions_previous_fd: None,
        ecdh_record: Some(record("default.ecdh")),
        ecdh_fd: None,
        journal_fd: -1,
        admin_fd: -1,
        processes: Vec::new(),
        operator_uid: 1000,
        boot_id: "boot-1".into(),
        syslog_fd: None,
        max_connections: 100,
        max_connections_per_principal: 10,
    }
}

/// An engine that remembers nothing yet.
pub fn engine_with(change: impl FnOnce(&mut Socket)) -> Engine {
    let policy = policy_with(change);
    let ledger = Ledger::new(&policy);
    Engine::new(policy, ledger)
}

pub fn at(seconds: u64) -> Now {
    Now { boot: START.boot + 1000 * seconds, wall: START.wall + 1000 * seconds }
}

/// 32 bytes that no other call in this process has got.
pub fn unique() -> [u8; 32] {
    use std::sync::atomic::{AtomicU64, Ordering};
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&COUNT.fetch_add(1, Ordering::Relaxed).to_be_bytes());
    bytes
}

pub fn ask(engine: &mut Engine, who: Principal, now: Now, text: &str) -> Verdict {
    let call = request::parse(text.as_bytes()).expect("a call");
    engine.decide(&call, who, false, now, &mut unique)
}

/// sign_event with content "x".
pub fn sign(engine: &mut Engine, who: Principal, now: Now, kind: u16, token: Option<&str>) -> Verdict {
    let token = token.map_or(String::new(), |t| format!(",\"session_token\":\"{t}\""));
    ask(engine, who, now, &format!(r#"{{"method":"sign_event","params":{{"kind":{kind},"content":"x"{token}}}}}"#))
}

/// The token in a reply to session_start.
pub fn token(line: &str) -> String {
    line.split('"').nth(5).expect("a token").to_owned()
}

/// A file of this test's own, without a name.
pub fn scratch() -> std::fs::File {
    let name = format!("nsecd-broker-{}-{}", std::process::id(), crate::reply::hex(&unique()[..8]));
    let path = std::env::temp_dir().join(name);
    let file = std::fs::File::options().read(true).append(true).create_new(true).open(&path).expect("temp file");
    std::fs::remove_file(&path).expect("unlink");
    file
}
