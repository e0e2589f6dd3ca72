//! Asking whoever serves a socket: the public keys of its accounts. The other end may be anybody: replies are bounded in size and
//! time, and its uid is told.

use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, UnixAddr, getsockopt, sockopt::PeerCredentials};
use serde_json::{Value, json};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(10);
const MOST: usize = 64 << 10;

/// Who answers there, and with what.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Answer {
    /// Whose process listens.
    pub uid: u32,
    /// The default account's public key, 64 hex digits.
    pub public: String,
    /// The other accounts, by name.
    pub accounts: Vec<(String, String)>,
    /// The default account's name.
    pub default: String,
}

/// Asks. `None`: nobody does, or not in this protocol.
pub(super) fn ask(socket: &Path) -> Option<Answer> {
    let stream = connect(socket).ok()?;
    let uid = getsockopt(&stream, PeerCredentials).ok()?.uid();
    drop(stream);
    let reply = exchange(socket, "get_public_key").ok()?;
    let public = key(&reply["pubkey"])?;
    // A daemon without accounts does not know this.
    let listed = exchange(socket, "list_accounts").unwrap_or(Value::Null);
    let mut answer = Answer { uid, public, accounts: Vec::new(), default: "default".into() };
    for account in listed["accounts"].as_array().into_iter().flatten() {
        let (Some(name), Some(public)) = (account["name"].as_str(), key(&account["pubkey"])) else { continue };
        match account["default"] == true {
            true => answer.default = name.into(),
            false => answer.accounts.push((name.into(), public)),
        }
    }
    Some(answer)
}

/// Connects at once or not at all: where nobody accepts, connect(2) waits for ever.
fn connect(path: &Path) -> io::Result<UnixStream> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket::socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    socket::connect(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
    let stream = UnixStream::from(socket);
    stream.set_nonblocking(false)?;
    Ok(stream)
}

fn key(value: &Value) -> Option<String> {
    let text = value.as_str()?;
    (text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit())).then(|| text.to_ascii_lowercase())
}

fn exchange(socket: &Path, method: &str) -> io::Result<Value> {
    let mut stream = connect(socket)?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all((json!({"method": method, "params": {}}).to_string() + "\n").as_bytes())?;
    let (until, mut line, mut part) = (Instant::now() + PATIENCE, Vec::new(), [0; 4096]);
    // One that sends a byte now and then does not hold us up either.
    while !line.contains(&b'\n') && line.len() < MOST {
        let left = until.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        stream.set_read_timeout(Some(left))?;
        let count = stream.read(&mut part)?;
        line.extend_from_slice(&part[..count]);
        if count == 0 || Instant::now() > until {
            break;
        }
    }
    Ok(serde_json::from_slice(line.split(|b| *b == b'\n').next().unwrap_or_default())?)
}
