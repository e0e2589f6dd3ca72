//! A blocking client of the agent socket, as small as the protocol.

use super::sys::PATIENCE;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;

/// One connection.
pub struct Client {
    reader: BufReader<UnixStream>,
}

impl Client {
    /// Connects; panics if nobody listens.
    pub fn connect(socket: &Path) -> Client {
        Client::try_connect(socket).unwrap_or_else(|e| panic!("connecting to {}: {e}", socket.display()))
    }

    /// Connects, or says why not.
    pub fn try_connect(socket: &Path) -> std::io::Result<Client> {
        Client::over(UnixStream::connect(socket)?)
    }

    /// Over a connection that somebody has made.
    pub fn over(stream: UnixStream) -> std::io::Result<Client> {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Client { reader: BufReader::new(stream) })
    }

    /// The stream itself.
    pub fn stream(&self) -> &UnixStream {
        self.reader.get_ref()
    }

    /// Writes all of `bytes`.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes).unwrap();
    }

    /// Writes all of `bytes`; fails if nsecd has closed.
    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> std::io::Result<()> {
        self.reader.get_mut().write_all(bytes.as_ref())
    }

    /// Ends our side of the stream.
    pub fn half_close(&mut self) {
        // Fails only when nsecd has gone, and then the reads say so.
        let _ = self.stream().shutdown(Shutdown::Write);
    }

    /// The next line without its newline; `None` at the end of the stream.
    pub fn line(&mut self) -> Option<String> {
        let mut line = Vec::new();
        match self.reader.read_until(b'\n', &mut line) {
            Ok(0) => None,
            Ok(_) => Some(String::from_utf8(line).unwrap().trim_end_matches('\n').into()),
            // nsecd closed with input of ours unread.
            Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => None,
            Err(e) => panic!("reading a reply: {e}"),
        }
    }

    /// The next line as JSON; panics at the end of the stream.
    pub fn reply(&mut self) -> Value {
        let line = self.line().expect("a reply, not the end of the stream");
        serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line}"))
    }

    /// Everything up to the end of the stream.
    pub fn rest(&mut self) -> String {
        let mut all = Vec::new();
        match self.reader.read_to_end(&mut all) {
            Err(e) if e.kind() != std::io::ErrorKind::ConnectionReset => panic!("reading to the end: {e}"),
            _ => String::from_utf8(all).unwrap(),
        }
    }

    /// One request and its reply.
    pub fn ask(&mut self, method: &str, params: Value) -> Value {
        self.send(line(method, params));
        self.reply()
    }

    /// Asks for a signature under `token` (`None`: without one).
    pub fn sign(&mut self, kind: u32, token: Option<&str>) -> Value {
        let mut params = json!({"kind": kind, "content": "hello"});
        if let Some(token) = token {
            params["session_token"] = json!(token);
        }
        self.ask("sign_event", params)
    }

    /// Starts a session and returns its token.
    pub fn session(&mut self, params: Value) -> String {
        let reply = self.ask("session_start", params);
        reply["session"]["token"].as_str().unwrap_or_else(|| panic!("no session: {reply}")).into()
    }

    /// Asks for the public key: the cheapest proof that nsecd serves.
    pub fn public_key(&mut self) -> String {
        let reply = self.ask("get_public_key", json!({}));
        reply["pubkey"].as_str().unwrap_or_else(|| panic!("no public key: {reply}")).into()
    }
}

/// A request's line, newline included.
pub fn line(method: &str, params: Value) -> String {
    json!({"method": method, "params": params}).to_string() + "\n"
}

/// The text of a refusal; panics if it was none.
pub fn refusal(reply: &Value) -> &str {
    reply["error"].as_str().unwrap_or_else(|| panic!("not refused: {reply}"))
}

/// The machine-readable word of a refusal.
pub fn code(reply: &Value) -> &str {
    reply["code"].as_str().unwrap_or_else(|| panic!("no code: {reply}"))
}

/// Panics unless the reply is a refusal.
pub fn refused(reply: &Value) {
    assert!(!refusal(reply).is_empty());
}
