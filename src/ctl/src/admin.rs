//! The admin socket: JSON of the operator's, to the broker.

use crate::cli::AdminDir;
use crate::order;
use nsecd_policy::operator::ADMIN_SOCKET;
use serde_json::{Value, json};
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long nsecd may take: it answers at once, but for a broker that is being started.
const PATIENCE: Duration = Duration::from_secs(60);
/// Bytes of a reply at most; none of nsecd's has a tenth of that.
const LONGEST: u64 = 16 << 20;

/// Where it listens.
pub(crate) fn socket(admin: &AdminDir) -> Result<PathBuf, String> {
    order::socket(admin.admin_dir.as_deref(), ADMIN_SOCKET)
}

/// One request's line and its reply's.
pub(crate) fn exchange(path: &Path, request: &str) -> io::Result<String> {
    let mut stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    // Who is refused for its uid may be so before it has asked; the refusal is there to be read all the same.
    let sent = stream.write_all(request.as_bytes());
    match reply(stream)? {
        line if line.is_empty() => Err(sent.err().unwrap_or_else(|| ErrorKind::UnexpectedEof.into())),
        line => Ok(line),
    }
}

/// A reply's line; empty if there is none.
///
/// # Errors
/// The stream's; or the line is longer than any of nsecd's: whoever answers is no nsecd, or has been taken over.
pub(crate) fn reply(stream: UnixStream) -> io::Result<String> {
    let mut line = String::new();
    BufReader::new(stream.take(LONGEST)).read_line(&mut line)?;
    if line.len() as u64 == LONGEST && !line.ends_with('\n') {
        return Err(io::Error::other(format!("a reply of more than {LONGEST} bytes is none of nsecd's")));
    }
    Ok(line)
}

/// What may be wrong where nobody answers.
pub(crate) fn advice(e: &io::Error) -> String {
    match e.kind() {
        ErrorKind::ConnectionRefused | ErrorKind::NotFound => format!("{e}: no nsecd serves it"),
        ErrorKind::PermissionDenied => format!("{e}: it is for root and the user that nsecd runs as"),
        ErrorKind::UnexpectedEof => {
            "nsecd closed the connection without an answer: its broker has ended, see its log".into()
        }
        _ => format!("{e}: see nsecd's log"),
    }
}

/// Asks, and takes the reply apart; an error is one of nsecd's (1) or of the way there (3).
pub(crate) fn ask(admin: &AdminDir, method: &str, params: Value) -> Result<Value, (String, u8)> {
    let path = socket(admin).map_err(|what| (what, 3))?;
    let request = json!({"method": method, "params": params}).to_string() + "\n";
    let reply = exchange(&path, &request).map_err(|e| (format!("{}: {}", path.display(), advice(&e)), 3))?;
    let reply: Value =
        serde_json::from_str(&reply).map_err(|e| (format!("the reply from {} is not JSON: {e}", path.display()), 3))?;
    match reply["error"].as_str() {
        Some(text) => Err((text.to_owned(), 1)),
        None => Ok(reply),
    }
}

/// A file's `[[rule]]` tables, in the words of `[[socket.rule]]`, as the protocol has them.
pub(crate) fn rules(file: &Path) -> Result<Value, String> {
    let wrong = |what: String| format!("{}: {what}", file.display());
    let text = crate::named::text(file).map_err(|e| wrong(e.to_string()))?;
    let mut table: toml::Table = text.parse().map_err(|e: toml::de::Error| wrong(e.to_string()))?;
    let rules = table.remove("rule");
    if let Some(other) = table.keys().next() {
        return Err(wrong(format!("unknown table {other}: expected [[rule]] tables")));
    }
    let rules = rules.ok_or_else(|| wrong("expected [[rule]] tables".into()))?;
    let mut rules = serde_json::to_value(rules).map_err(|e| wrong(e.to_string()))?;
    for rule in rules.as_array_mut().into_iter().flatten() {
        for key in rule["recipients"].as_array_mut().into_iter().flatten() {
            let text = key.as_str().unwrap_or_default();
            *key = json!(public_key(text).ok_or_else(|| wrong(format!("{text} is no public key, npub1… or hex")))?);
        }
        // Looking for it has put it there.
        if let Some(members) = rule.as_object_mut() {
            members.retain(|_, value| !value.is_null());
        }
    }
    Ok(rules)
}

/// The 64 hex digits of an `npub1…` (NIP-19), or of hex.
fn public_key(text: &str) -> Option<String> {
    if text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Some(text.to_ascii_lowercase());
    }
    let decoded = bech32::primitives::decode::CheckedHrpstring::new::<bech32::Bech32>(text).ok()?;
    let key: Vec<u8> = decoded.byte_iter().collect();
    let is_npub = decoded.hrp().as_str().eq_ignore_ascii_case("npub");
    (is_npub && key.len() == 32).then(|| key.iter().map(|b| format!("{b:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_rules_becomes_the_protocols() {
        let file = std::env::temp_dir().join(format!("nsecctl-rules-{}", std::process::id()));
        let read = |text: &str| {
            std::fs::write(&file, text).expect("temp file");
            rules(&file)
        };
        let npub = "npub10elfcs4fr0l0r8af98jlmgdh9c8tcxjvz9qkw038js35mp4dma8qzvjptg";
        let text = format!(
            "[[rule]]\nkind = 1\nper_day = 5\nrecipients = [\"{npub}\"]\n[[rule]]\nkind = 27235\ntag = {{ u = [\"https://a/*\"] }}\n"
        );
        let hex = "7e7e9c42a91bfef19fa929e5fda1b72e0ebc1a4c1141673e2794234d86addf4e";
        let expected = json!([
            {"kind": 1, "per_day": 5, "recipients": [hex]},
            {"kind": 27235, "tag": {"u": ["https://a/*"]}},
        ]);
        assert_eq!(read(&text), Ok(expected));
        for (text, what) in [
            ("", "expected [[rule]] tables"),
            ("rule = 1\nx = 2", "unknown table x"),
            ("[[rule]]\nkind = 1\nrecipients = [\"npub1x\"]", "npub1x is no public key"),
            ("[[rule", "TOML parse error"),
        ] {
            let found = read(text).expect_err(text);
            assert!(found.contains(what), "{text}: {found}");
        }
        std::fs::remove_file(&file).expect("temp file");
    }
}
