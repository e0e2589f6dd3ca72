//! The environment variables that nsecd honours, read once and typed. No other variable's value is kept: of those that
//! hold a private key only the name remains, so that the start can be refused.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use crate::config::secrets;

/// The environment as nsecd sees it. An empty variable counts as unset.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Environment {
    /// NOSTR_SIGNER_SOCKET: the first agent socket's path, as the reference daemon reads it.
    pub signer_socket: Option<OsString>,
    /// SIGNER_ALERT_LOG: the first socket's alert log, as the reference daemon reads it.
    pub alert_log: Option<OsString>,
    /// SIGNER_SESSION_FILE: the journal; the reference daemon has its session file there.
    pub session_file: Option<OsString>,
    /// NOSTR_SIGNER_DEFAULT_ACCOUNT: which account is the default one.
    pub default_account: Option<OsString>,
    /// CREDENTIALS_DIRECTORY (systemd.exec(5)).
    pub credentials_directory: Option<PathBuf>,
    /// RUNTIME_DIRECTORY (systemd.exec(5)): the first of the list.
    pub runtime_directory: Option<PathBuf>,
    /// STATE_DIRECTORY (systemd.exec(5)): the first of the list.
    pub state_directory: Option<PathBuf>,
    /// XDG_RUNTIME_DIR (XDG Base Directory Specification).
    pub xdg_runtime_dir: Option<PathBuf>,
    /// XDG_STATE_HOME (XDG Base Directory Specification).
    pub xdg_state_home: Option<PathBuf>,
    /// HOME.
    pub home: Option<PathBuf>,
    /// LISTEN_PID (sd_listen_fds(3)): the process that LISTEN_FDS is meant for.
    pub listen_pid: Option<u32>,
    /// LISTEN_FDS (sd_listen_fds(3)): how many sockets were passed, from descriptor 3 on.
    pub listen_fds: Option<u32>,
    /// LISTEN_FDNAMES (sd_listen_fds(3)): their names.
    pub listen_fdnames: Vec<String>,
    /// NOTIFY_SOCKET (sd_notify(3)): a path, or an abstract name after `@`.
    pub notify_socket: Option<OsString>,
    /// WATCHDOG_USEC (sd_watchdog_enabled(3)), microseconds.
    pub watchdog_usec: Option<u64>,
    /// WATCHDOG_PID (sd_watchdog_enabled(3)): the process that WATCHDOG_USEC is meant for.
    pub watchdog_pid: Option<u32>,
    /// Names of the variables that hold a private key, in the environment's order.
    pub key_variables: Vec<String>,
}

impl Environment {
    /// The calling process's environment.
    pub fn from_process() -> Environment {
        Environment::from_variables(std::env::vars_os())
    }

    /// The environment made of these names and values; of two of a name the last counts.
    pub fn from_variables(variables: impl IntoIterator<Item = (OsString, OsString)>) -> Environment {
        let mut e = Environment::default();
        for (name, value) in variables {
            if secrets::variable_holds_key(name.as_bytes(), value.as_bytes()) {
                e.key_variables.push(name.to_string_lossy().into_owned());
            } else if let Some(name) = name.to_str().filter(|_| !value.is_empty()) {
                e.set(name, value);
            }
        }
        e
    }

    fn set(&mut self, name: &str, value: OsString) {
        match name {
            "NOSTR_SIGNER_SOCKET" => self.signer_socket = Some(value),
            "SIGNER_ALERT_LOG" => self.alert_log = Some(value),
            "SIGNER_SESSION_FILE" => self.session_file = Some(value),
            "NOSTR_SIGNER_DEFAULT_ACCOUNT" => self.default_account = Some(value),
            "CREDENTIALS_DIRECTORY" => self.credentials_directory = directory(&value),
            "RUNTIME_DIRECTORY" => self.runtime_directory = first_directory(&value),
            "STATE_DIRECTORY" => self.state_directory = first_directory(&value),
            "XDG_RUNTIME_DIR" => self.xdg_runtime_dir = directory(&value),
            "XDG_STATE_HOME" => self.xdg_state_home = directory(&value),
            "HOME" => self.home = directory(&value),
            "LISTEN_PID" => self.listen_pid = number(&value),
            "LISTEN_FDS" => self.listen_fds = number(&value),
            "LISTEN_FDNAMES" => self.listen_fdnames = value.to_string_lossy().split(':').map(String::from).collect(),
            "NOTIFY_SOCKET" => self.notify_socket = Some(value),
            "WATCHDOG_USEC" => self.watchdog_usec = number(&value),
            "WATCHDOG_PID" => self.watchdog_pid = number(&value),
            _ => {}
        }
    }
}

/// An absolute directory; the XDG specification has relative ones ignored, and systemd sets none.
fn directory(value: &OsStr) -> Option<PathBuf> {
    Some(PathBuf::from(value)).filter(|p| p.is_absolute())
}

/// The first of systemd's colon-separated list.
fn first_directory(value: &OsStr) -> Option<PathBuf> {
    directory(OsStr::from_bytes(value.as_bytes().split(|b| *b == b':').next()?))
}

fn number<T: std::str::FromStr>(value: &OsStr) -> Option<T> {
    value.to_str()?.parse().ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn environment(pairs: &[(&str, &str)]) -> Environment {
        Environment::from_variables(pairs.iter().map(|(n, v)| (n.into(), v.into())))
    }

    #[test]
    fn variables_are_typed() {
        let e = environment(&[
            ("STATE_DIRECTORY", "/var/lib/nsecd:/var/lib/other"),
            ("XDG_RUNTIME_DIR", "run"),
            ("HOME", ""),
            ("LISTEN_FDS", "2"),
            ("LISTEN_FDNAMES", "signer:other"),
            ("WATCHDOG_USEC", "soon"),
            ("NOSTR_SIGNER_SOCKET", "/run/nostr/signer.sock"),
        ]);
        assert_eq!(e.state_directory, Some(PathBuf::from("/var/lib/nsecd")));
        assert_eq!((e.xdg_runtime_dir, e.home, e.watchdog_usec), (None, None, None));
        assert_eq!((e.listen_fds, e.listen_fdnames.len()), (Some(2), 2));
        assert_eq!(e.signer_socket, Some("/run/nostr/signer.sock".into()));
    }

    #[test]
    fn of_a_variable_with_a_key_only_the_name_is_kept() {
        let hex = "5".repeat(64);
        let e = environment(&[("BOT_PRIVATE_KEY", &hex), ("DIGEST", &hex)]);
        assert_eq!(e.key_variables, ["BOT_PRIVATE_KEY"]);
        assert!(!format!("{e:?}").contains("555"));
    }
}
