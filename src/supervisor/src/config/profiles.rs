//! The two profiles: what a socket offers when nobody says. `strict` also fills the omitted keys of a `[[socket]]`.

use nsecd_policy::{Bind, CryptLimits, DmLimits, Kinds, Limits, Method, StartSessions};

use super::Ceiling;

/// A profile by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// A token for everything, few kinds, no encryption.
    Strict,
    /// What an unmodified NanoClaw installation needs on its one shared socket.
    NanoClaw,
}

/// What a profile says of its socket. Durations in seconds, sizes in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Defaults {
    pub mode: u32,
    pub kinds: Kinds,
    pub max_ttl: u64,
    pub tokenless: Kinds,
    pub methods: Vec<Method>,
    pub start_sessions: StartSessions,
    pub bind: Bind,
    pub on_limit_wait: u64,
    pub tokenless_on_limit_wait: u64,
    pub created_at: Option<(i64, i64)>,
    pub max_request: u64,
}

/// The windows of a session and of a principal.
pub const LIMITS: Limits = Limits { burst: 5, burst_window: 10, per_minute: 10, per_hour: 100 };

/// Direct messages of a principal: the backlog of a reconnect is opened at once.
pub const DM: DmLimits =
    DmLimits { unwrap_burst: 200, unwrap_per_minute: 60, failed_per_minute: 600, wrap_per_minute: 30 };

/// nip44 and nip04 of a principal.
pub const CRYPT: CryptLimits = CryptLimits { per_minute: 60, per_hour: 600 };

/// How fast the ECDH holder answers at least, unless something else is written.
pub const ECDH_CEILING: Ceiling = Ceiling { burst: 600, tokens: 10, seconds: 1 };

/// Where created_at of a seal may lie: NIP-59 has it up to two days in the past, and an hour is left for its way.
pub const SEALS: (i64, i64) = (-49 * 3_600, 900);

/// Sessions that a principal may start in a minute.
pub const SESSIONS_PER_MINUTE: u32 = 6;

/// Live sessions of one principal.
pub const LIVE_SESSIONS: u32 = 8;

/// A socket's total is this many times its limits.
pub const TOTAL_FACTOR: u32 = 4;

/// Bytes at which a log is rotated, and how many old ones are kept.
pub const LOG: (u64, u32) = (64 << 20, 8);

impl Profile {
    /// The profile of that name.
    pub fn named(name: &str) -> Option<Profile> {
        match name {
            "strict" => Some(Profile::Strict),
            "nanoclaw" => Some(Profile::NanoClaw),
            _ => None,
        }
    }

    /// What the profile's socket offers.
    pub fn defaults(self) -> Defaults {
        let strict = Defaults {
            mode: 0o600,
            kinds: Kinds::List(vec![1, 7, 1111, 9734, 24242]),
            max_ttl: 86_400,
            tokenless: Kinds::List(Vec::new()),
            methods: vec![Method::SignEvent],
            start_sessions: StartSessions::Own,
            bind: Bind::FirstUse,
            on_limit_wait: 0,
            tokenless_on_limit_wait: 0,
            created_at: Some((-3_600, 900)),
            max_request: 512 << 10,
        };
        let nanoclaw = Kinds::List(vec![1, 6, 7, 1111, 9734, 24242, 30023]);
        match self {
            Profile::Strict => strict,
            // Its tools send no token, were never limited, and never try again: they wait instead.
            Profile::NanoClaw => Defaults {
                kinds: nanoclaw.clone(),
                tokenless: nanoclaw,
                methods: vec![Method::SignEvent, Method::Dm],
                tokenless_on_limit_wait: 20,
                ..strict
            },
        }
    }
}
