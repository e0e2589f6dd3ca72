//! A client that costs nothing: a request's bytes out, a reply's line in, nothing read of it but its end.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// A sign_event of kind 1 without a token: an ordinary note, about 300 bytes in canonical form.
pub const SIGN: &str = concat!(
    r#"{"method":"sign_event","params":{"kind":1,"content":"What a signature costs is what the machine asks for it, "#,
    r#"and little besides: this note is as long as notes are, #benchmark","tags":[["t","benchmark"],["client","nsecd"]]}}"#,
    "\n"
);
/// The cheapest request.
pub const PUBLIC_KEY: &str = "{\"method\":\"get_public_key\",\"params\":{}}\n";

/// One connection.
pub struct Client {
    stream: UnixStream,
    buffer: Vec<u8>,
}

impl Client {
    /// Connects; a daemon that does not answer ends the benchmark instead of hanging it.
    pub fn connect(socket: &Path) -> Client {
        Client::try_connect(socket).unwrap_or_else(|e| panic!("connecting to {}: {e}", socket.display()))
    }

    /// Connects, or says why not.
    pub fn try_connect(socket: &Path) -> std::io::Result<Client> {
        Ok(Client { stream: UnixStream::connect(socket)?, buffer: vec![0; 64 * 1024] })
    }

    /// With a time limit for each read and write.
    pub fn patient(socket: &Path, patience: Duration) -> std::io::Result<Client> {
        let client = Client::try_connect(socket)?;
        client.stream.set_read_timeout(Some(patience))?;
        client.stream.set_write_timeout(Some(patience))?;
        Ok(client)
    }

    /// Sends requests.
    pub fn send(&mut self, requests: &str) {
        self.stream.write_all(requests.as_bytes()).unwrap();
    }

    /// Reads so many replies; panics if the last of them is an error.
    pub fn replies(&mut self, count: usize) {
        let (mut lines, mut last) = (0, 0);
        while lines < count {
            last = self.stream.read(&mut self.buffer).unwrap();
            assert!(last > 0, "the connection was closed before {count} replies: {lines}");
            lines += self.buffer[..last].iter().filter(|byte| **byte == b'\n').count();
        }
        let text = &self.buffer[..last];
        assert!(!text.starts_with(b"{\"error\""), "refused: {}", String::from_utf8_lossy(text));
    }

    /// One request and its reply.
    pub fn ask(&mut self, request: &str) {
        self.send(request);
        self.replies(1);
    }

    /// The same where nobody need be there.
    pub fn try_ask(&mut self, request: &str) -> std::io::Result<()> {
        self.stream.write_all(request.as_bytes())?;
        let size = self.stream.read(&mut self.buffer)?;
        if size == 0 || self.buffer[..size].starts_with(b"{\"error\"") {
            return Err(std::io::Error::other(String::from_utf8_lossy(&self.buffer[..size]).into_owned()));
        }
        Ok(())
    }
}

/// A connection for one request.
pub fn once(socket: &Path, request: &str) {
    Client { stream: UnixStream::connect(socket).unwrap(), buffer: Vec::new() }.small(request);
}

impl Client {
    /// One request and its reply, which is small.
    fn small(&mut self, request: &str) {
        let mut buffer = [0; 4096];
        self.send(request);
        let mut size = 0;
        while size == 0 || buffer[size - 1] != b'\n' {
            let more = self.stream.read(&mut buffer[size..]).unwrap();
            assert!(more > 0, "closed without a reply");
            size += more;
        }
        assert!(!buffer.starts_with(b"{\"error\""), "refused: {}", String::from_utf8_lossy(&buffer[..size]));
    }
}
