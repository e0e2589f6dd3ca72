//! B20: brokers, gates and whole daemons that die under load lose nothing, answer nothing wrongly, and gain nothing.
//!
//! Checked: with a broker that does not read its journal, and with one that writes a slot only when its signature has come,
//! this fails.

use super::{Strike, recorded, struck};
use crate::support::client::{self, Client, code};
use crate::support::daemon::Setup;
use crate::support::{PUBLIC_KEY, event};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::path::Path;
use std::sync::RwLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

/// Signatures that the principal may have in the hour that this does not take.
const MOST: usize = 3000;
const CLIENTS: usize = 4;
/// Restarts of the daemon; before each of them five brokers and five gates are killed.
const ROUNDS: usize = 20;

/// What the clients see of the daemon.
struct World<'a> {
    socket: &'a Path,
    /// Held while nothing listens.
    down: RwLock<()>,
    over: AtomicBool,
}

impl World<'_> {
    /// Asks until there is a reply, each time over a connection of its own; the reply and how often it was asked for.
    fn ask(&self, method: &str, params: &Value) -> (Value, usize) {
        let line = client::line(method, params.clone());
        for asked in 1.. {
            if let Some(reply) = self.try_ask(&line) {
                return (reply, asked);
            }
        }
        unreachable!()
    }

    /// `None` if it was cut off before the reply.
    fn try_ask(&self, line: &str) -> Option<Value> {
        let Ok(mut client) = Client::try_connect(self.socket) else {
            drop(self.down.read().unwrap());
            return None;
        };
        client.try_send(line).ok()?;
        client.half_close();
        let all = client.rest();
        let reply = all.strip_suffix('\n')?;
        // One reply to one request, then the end.
        assert!(!reply.contains('\n'), "{all}");
        Some(serde_json::from_str(reply).unwrap_or_else(|e| panic!("{e}: {reply}")))
    }
}

/// One event that was asked for.
struct Wanted {
    asked: usize,
    signed: bool,
}

/// Signs events of its own until all is over and its principal's window is full; what it asked for, by id.
fn agent(world: &World, n: usize, created_at: u64) -> (String, HashMap<String, Wanted>) {
    let (reply, _) = world.ask("session_start", &json!({"scope": "1", "ttl": 3600}));
    let token = reply["session"]["token"].as_str().unwrap_or_else(|| panic!("{reply}")).to_string();
    let (mut wanted, mut full) = (HashMap::new(), false);
    for i in 0.. {
        if full && world.over.load(Ordering::Relaxed) {
            break;
        }
        let mut event = json!({"kind": 1, "content": format!("{n}: {i}"), "created_at": created_at, "tags": []});
        event["session_token"] = json!(token);
        let (reply, asked) = world.ask("sign_event", &event);
        event["pubkey"] = json!(PUBLIC_KEY);
        let id = event::id(&event);
        let signed = reply.get("event").is_some();
        if signed {
            assert_eq!(event::signed(&reply, PUBLIC_KEY)["id"], json!(id), "not what was asked for");
        } else {
            assert_eq!(code(&reply), "rate_limited", "{reply}");
            full = true;
            // Other requests are answered as ever.
            assert_eq!(world.ask("get_public_key", &json!({})).0, json!({"pubkey": PUBLIC_KEY}));
        }
        wanted.insert(id, Wanted { asked, signed });
    }
    (token, wanted)
}

#[test]
fn two_hundred_killed_brokers_and_gates_and_twenty_restarts_under_load_lose_and_gain_nothing() {
    let config = format!(
        "[key]\nceiling = \"none\"\n[limits]\nsessions_per_minute = 1000\nlive_sessions = 1000\n\
         [[socket]]\npath = \"/run/x.sock\"\nkinds = [1]\ntotal = \"none\"\n\
         limits = {{ burst = {MOST}, burst_window = \"1h\", per_minute = {MOST}, per_hour = {MOST} }}\n"
    );
    let setup = Setup::new(&config);
    let socket = setup.socket.clone();
    let world = World { socket: &socket, down: RwLock::new(()), over: AtomicBool::new(false) };
    let created_at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let mut nsecd = setup.start();
    let key = nsecd.connect().public_key();
    let (nsecd, agents) = thread::scope(|scope| {
        let world = &world;
        let agents: Vec<_> = (0..CLIENTS).map(|n| scope.spawn(move || agent(world, n, created_at))).collect();
        for round in 0..ROUNDS {
            for _ in 0..5 {
                // Each returns when the replacement has served a request.
                nsecd = struck(struck(nsecd, Strike::Broker), Strike::Gate);
            }
            let down = world.down.write().unwrap();
            nsecd = struck(nsecd, if round % 2 == 0 { Strike::Stop } else { Strike::Kill });
            drop(down);
        }
        world.over.store(true, Ordering::Relaxed);
        (nsecd, agents.into_iter().map(|agent| agent.join().unwrap()).collect::<Vec<_>>())
    });
    assert_eq!(nsecd.connect().public_key(), key);
    let mut rows: HashMap<String, usize> = HashMap::new();
    for id in recorded(&nsecd.dir.join("state/default.record")) {
        *rows.entry(id).or_default() += 1;
    }
    let all: usize = rows.values().sum();
    let mut signed = 0;
    for (token, wanted) in &agents {
        let own = wanted.values().filter(|w| w.signed).count();
        let info = nsecd.connect().ask("session_info", json!({ "token": token }));
        let count = info["session"]["signCount"].as_u64().unwrap_or_else(|| panic!("{info}")) as usize;
        assert!(count >= own, "{count} signatures known, {own} made");
        signed += own;
        for (id, Wanted { asked, signed }) in wanted {
            let found = rows.remove(id).unwrap_or_default();
            assert!(found <= *asked && found >= usize::from(*signed), "{found} rows, asked for {asked} times");
        }
    }
    assert!(rows.is_empty(), "signed, but never asked for: {rows:?}");
    assert!(all <= MOST, "{all} signatures");
    // Slots that died with their broker are lost, no others.
    let lost = CLIENTS * ROUNDS * 11;
    assert!(signed + lost >= MOST, "{signed} signatures of {MOST}");
    assert_eq!(
        code(&nsecd.connect().ask(
            "sign_event",
            json!({"kind": 1, "content": "one more",
        "session_token": agents[0].0})
        )),
        "rate_limited"
    );
}
