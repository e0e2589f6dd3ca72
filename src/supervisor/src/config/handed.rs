//! A configuration as the broker is handed it, but for what only a start knows: descriptors, public keys, records.

use nsecd_policy::{self as handed, Policy};

use super::{Ceiling, Config, Socket};

/// A number where a descriptor will be.
const NONE: i32 = -1;

/// A socket's policy.
pub fn socket(s: &Socket) -> handed::Socket {
    handed::Socket {
        path: s.path.display().to_string(),
        listener_fd: NONE,
        alert_fd: NONE,
        alert_size: 0,
        peer_uids: s.peer_uids.clone(),
        kinds: s.kinds.clone(),
        max_ttl: s.max_ttl,
        tokenless: s.tokenless.clone(),
        methods: s.methods.clone(),
        accounts: s.accounts.clone(),
        start_sessions: s.start_sessions,
        bind: s.bind,
        on_limit_wait: s.on_limit_wait,
        tokenless_on_limit_wait: s.tokenless_on_limit_wait,
        created_at: s.created_at,
        max_request: s.max_request,
        limits: s.limits,
        total: s.total,
        peers: s.peers.clone(),
        dm: s.dm,
        crypt: s.crypt,
        rules: s.rules.clone(),
        sessions_per_minute: s.sessions_per_minute,
        live_sessions: s.live_sessions,
    }
}

/// Milliseconds in which a ceiling gives one more.
pub fn period_ms(ceiling: &Ceiling) -> u64 {
    (u64::from(ceiling.seconds) * 1000).div_ceil(u64::from(ceiling.tokens).max(1)).max(1)
}

/// The whole policy, to try requests on where no nsecd runs; all accounts have this public key.
pub fn policy(config: &Config, public_key: &str) -> Policy {
    let record = |name: &str| handed::Record { name: name.into(), last: None, oldest: 1 };
    let account = |account: &super::Account| handed::Account {
        name: account.name.clone(),
        public_key: public_key.into(),
        gate_fd: NONE,
        ceiling_period_ms: account.ceiling.as_ref().map_or(1000, period_ms),
        seal_ceiling_period_ms: account.seal_ceiling.flatten().as_ref().map(period_ms),
        kinds: account.kinds.clone(),
        ceiling: account.ceiling,
        created_at: account.created_at,
        record: record(&account.name),
    };
    Policy {
        accounts: config.accounts.iter().map(account).collect(),
        sockets: config.sockets.iter().map(socket).collect(),
        default_account: config.default_account.clone(),
        log_size: config.state.log_size,
        log_keep: config.state.log_keep,
        decisions_fd: NONE,
        decisions_previous_fd: None,
        ecdh_record: None,
        ecdh_fd: None,
        journal_fd: NONE,
        admin_fd: NONE,
        processes: Vec::new(),
        operator_uid: 0,
        boot_id: String::new(),
        syslog_fd: None,
        max_connections: 1,
        max_connections_per_principal: 1,
    }
}
