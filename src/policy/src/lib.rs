//! What the supervisor hands to the broker: the policy as typed data, and the control frames; and what the operator asks of the
//! supervisor ([`operator`]).
//!
//! The supervisor writes a [`Policy`] on the policy pipe (length as u32 big-endian, then JSON); the broker
//! only ever reads it. Nothing here is influenced by an agent.

pub mod control;
pub mod hello;
pub mod operator;
pub mod reload;
pub mod rules;
pub mod time;
pub mod units;

use serde::{Deserialize, Serialize};

/// Everything the broker may decide by. File descriptors are numbers in the broker's own table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// The accounts with a gate, the default account (if there is one) named `default`.
    pub accounts: Vec<Account>,
    /// The agent sockets, in the configuration's order.
    pub sockets: Vec<Socket>,
    /// Name of the account that an absent, empty or `default` account parameter means.
    pub default_account: String,
    /// Bytes after which an alert log or the decision log is rotated ([state] log_size).
    pub log_size: u64,
    /// Old files of the decision log and of records that are kept ([state] log_keep, at least 1).
    pub log_keep: u32,
    /// The decision log, opened for reading and appending.
    pub decisions_fd: i32,
    /// The file before it, for reading, if there is one.
    pub decisions_previous_fd: Option<i32>,
    /// The ECDH holder's record, if there is one.
    pub ecdh_record: Option<Record>,
    /// Sequenced-packet socket to the default account's ECDH holder, non-blocking on this side; `None`: no socket offers
    /// encryption.
    pub ecdh_fd: Option<i32>,
    /// The journal, opened for reading and appending.
    pub journal_fd: i32,
    /// The admin socket: a listening, non-blocking Unix stream socket, which is the operator's.
    pub admin_fd: i32,
    /// nsecd's own processes but for the broker that reads this.
    pub processes: Vec<Process>,
    /// The uid that nsecd runs as: beside root the only one that may use the admin socket.
    pub operator_uid: u32,
    /// This boot's random id (proc_sys_kernel(5)).
    pub boot_id: String,
    /// Connected, non-blocking datagram socket to syslog; `None`: operators' lines go to stderr only.
    pub syslog_fd: Option<i32>,
    /// Connections in all; at this number the broker stops accepting.
    pub max_connections: usize,
    /// Connections per principal; at this number its oldest idle one gives way.
    pub max_connections_per_principal: usize,
}

/// A running process of nsecd's, as the supervisor has started it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// For people: "the gate of account default".
    pub name: String,
    /// Its pid in the supervisor's PID namespace.
    pub pid: i32,
    /// The uid that it has given itself.
    pub uid: u32,
    /// Optional steps of its lock that are missing (`hello::names`).
    pub missing: Vec<String>,
}

/// One key: its name on the wire, its public key, the broker's end of the pair to its gate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// Name on the wire.
    pub name: String,
    /// x-only public key (BIP-340), 64 lower-case hex digits.
    pub public_key: String,
    /// Stream socket to the gate, non-blocking on this side.
    pub gate_fd: i32,
    /// Milliseconds in which the account's ceiling gives one more signature: what a client is told to wait.
    pub ceiling_period_ms: u64,
    /// The same of the ceiling of kind 13, where it has one of its own.
    pub seal_ceiling_period_ms: Option<u64>,
    /// Kinds that its gate signs.
    pub kinds: Kinds,
    /// How fast its gate signs; `None`: unlimited.
    pub ceiling: Option<Ceiling>,
    /// Seconds before and after now that created_at may lie for its gate; `None`: any.
    pub created_at: Option<(i64, i64)>,
    /// Its gate's record.
    pub record: Record,
}

/// A token bucket: `burst` signatures at once, and `tokens` more every `seconds`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ceiling {
    /// Signatures that a full bucket holds; at least 1.
    pub burst: u32,
    /// Signatures regained in `seconds`; at least 1.
    pub tokens: u32,
    /// 1, 60 or 3600.
    pub seconds: u32,
}

/// A record as it lies there when broker and gates start: what the decision log's outcomes are counted from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Its file's name without `.record`.
    pub name: String,
    /// Sequence number of its last row, 0 before the first; `None`: no record is kept.
    pub last: Option<u64>,
    /// Sequence number of the oldest row that is kept.
    pub oldest: u64,
}

/// One listening socket and its ceiling.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Socket {
    /// Path as configured; for logs only, the broker cannot open it.
    pub path: String,
    /// Listening, non-blocking Unix stream socket.
    pub listener_fd: i32,
    /// Alert log, opened for appending.
    pub alert_fd: i32,
    /// The alert log's size in bytes when it was handed over.
    pub alert_size: u64,
    /// Uids that may connect; `None`: any whom the socket's mode lets in. 65534 is always refused.
    pub peer_uids: Option<Vec<u32>>,
    /// The ceiling of kinds a session may hold.
    pub kinds: Kinds,
    /// The longest TTL of a session, in seconds.
    pub max_ttl: u64,
    /// Kinds signed without a session token.
    pub tokenless: Kinds,
    /// Methods this socket offers.
    pub methods: Vec<Method>,
    /// Accounts this socket may use, by name.
    pub accounts: Vec<String>,
    /// Who may start sessions.
    pub start_sessions: StartSessions,
    /// Who owns a session.
    pub bind: Bind,
    /// What a rate-limited request with a token meets: seconds to wait for a slot; 0 refuses at once.
    pub on_limit_wait: u64,
    /// The same for requests without a token.
    pub tokenless_on_limit_wait: u64,
    /// Seconds before and after now that created_at may lie, e.g. (-3600, 900); `None`: any.
    pub created_at: Option<(i64, i64)>,
    /// Largest request in bytes.
    pub max_request: usize,
    /// Windows per session and per principal; `None`: unlimited.
    pub limits: Option<Limits>,
    /// Windows of the whole socket; `None`: unlimited.
    pub total: Option<Limits>,
    /// Public keys (64 lower-case hex digits) that may be written to and read from; `None`: anybody's.
    pub peers: Option<Vec<String>>,
    /// What a principal may do with direct messages; `None`: unlimited.
    pub dm: Option<DmLimits>,
    /// How often a principal may encrypt and decrypt with nip44 and nip04; `None`: unlimited.
    pub crypt: Option<CryptLimits>,
    /// Rules on whole events, at most one for a kind.
    pub rules: Vec<rules::Rule>,
    /// Sessions that a principal may start in a minute.
    pub sessions_per_minute: u32,
    /// Live sessions of one principal; its least recently used one ends for a new one.
    pub live_sessions: usize,
}

/// Sliding windows over signatures made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Signatures in `burst_window`.
    pub burst: u32,
    /// Seconds.
    pub burst_window: u64,
    /// Signatures in 60 s.
    pub per_minute: u32,
    /// Signatures in 3600 s.
    pub per_hour: u32,
}

/// Limits on direct messages, each of one principal's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DmLimits {
    /// Gift wraps opened at once, after a while without any: the backlog of a reconnect.
    pub unwrap_burst: u32,
    /// Gift wraps opened in a minute, beyond that.
    pub unwrap_per_minute: u32,
    /// Gift wraps in a minute that turn out not to be for this key, or forged: strangers' junk.
    pub failed_per_minute: u32,
    /// Messages wrapped in a minute.
    pub wrap_per_minute: u32,
}

impl DmLimits {
    /// All principals of a socket together may do this many times what one may, and the same goes for [`CryptLimits`]: new
    /// cgroups bring no new budgets beyond that.
    pub const SOCKET_FACTOR: u32 = 4;
}

/// Limits on nip44 and nip04, each of one principal's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CryptLimits {
    /// In 60 s.
    pub per_minute: u32,
    /// In 3600 s.
    pub per_hour: u32,
}

/// A set of event kinds (NIP-01).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kinds {
    /// Every kind, 0 to 65535.
    Any,
    /// These, in the order configured.
    List(Vec<u16>),
}

impl Kinds {
    /// Whether `kind` is in the set.
    pub fn contains(&self, kind: u16) -> bool {
        match self {
            Kinds::Any => true,
            Kinds::List(list) => list.contains(&kind),
        }
    }
}

/// What a socket may offer beyond sessions and public keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// sign_event.
    SignEvent,
    /// nip44_encrypt, nip44_decrypt.
    Nip44,
    /// nip04_encrypt, nip04_decrypt.
    Nip04,
    /// wrap_dm, unwrap_gift_wrap.
    Dm,
}

/// Who may start sessions, besides narrower ones of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StartSessions {
    /// Any principal, within the socket's ceiling.
    #[serde(rename = "self")]
    Own,
    /// Any principal, and its first session holds it from then on: no later session, and no request without a token,
    /// goes beyond the first one's kinds, account and end.
    Once,
    /// The operator only, over the admin socket.
    Admin,
}

impl StartSessions {
    /// The word of the configuration.
    pub fn name(self) -> &'static str {
        match self {
            StartSessions::Own => "self",
            StartSessions::Once => "once",
            StartSessions::Admin => "admin",
        }
    }
}

/// Who owns a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Bind {
    /// The first principal that signs with it.
    FirstUse,
    /// The principal that started it.
    Starter,
}
