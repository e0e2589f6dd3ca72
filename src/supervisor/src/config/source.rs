//! Where a key comes from, as text. Never reads a key; refuses what would have nsecd read one from a file or variable.

use super::secrets;
use super::units;

/// One place of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A file of that name in $CREDENTIALS_DIRECTORY (systemd.exec(5), LoadCredential=).
    Credential(String),
    /// The kernel keyring's `user` key of that description.
    Keyring(String),
    /// A descriptor that nsecd inherited.
    Fd(i32),
    /// A throw-away key, made at the start.
    Ephemeral,
}

/// What `source` or `--key` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySource {
    /// The credential `nsec` if it is there, then the keyring's usual names.
    Auto,
    /// That place only.
    One(Source),
}

/// The keyring descriptions that `auto` tries, in order: those of the reference daemon.
pub const AUTO_KEYRING: [&str; 3] = ["nsec", "wn_nsec", "nostr-nsec"];

/// The credential that `auto` tries first.
pub const AUTO_CREDENTIAL: &str = "nsec";

/// Reads a source; the error says what was expected.
pub fn parse(text: &str) -> Result<KeySource, String> {
    if secrets::holds_nsec(text.as_bytes()) || secrets::is_hex_key(text.as_bytes()) {
        return Err(secrets::in_file());
    }
    let expected = "expected credential:NAME, keyring:DESCRIPTION, fd:N, ephemeral or auto";
    let source = match (text, text.split_once(':')) {
        ("auto", _) => return Ok(KeySource::Auto),
        ("ephemeral", _) => Some(Source::Ephemeral),
        (_, Some(("credential", name))) => credential(name).map(Source::Credential),
        (_, Some(("keyring", description))) => keyring(description).map(Source::Keyring),
        (_, Some(("fd", number))) => descriptor(number).map(Source::Fd),
        (_, Some(("file" | "env", _))) => {
            return Err(format!(
                "{expected}; a plain file or a variable can be read by every process of the same user: `nsecctl key import FILE` or \
                 `nsecctl key import --from-env NAME` takes the key out of it. From a shell: `--key fd:3 3<FILE`, then delete FILE"
            ));
        }
        _ => None,
    };
    source.map(KeySource::One).ok_or_else(|| expected.to_string())
}

/// A file name, since it is opened in the credentials directory.
fn credential(name: &str) -> Option<String> {
    let plain = !name.contains('/') && !matches!(name, "" | "." | "..") && !name.contains(char::is_control);
    (plain && name.len() <= 255).then(|| name.to_string())
}

fn keyring(description: &str) -> Option<String> {
    let plain = !description.is_empty() && !description.contains(char::is_control);
    (plain && description.len() <= 255).then(|| description.to_string())
}

/// Standard input or a descriptor beyond standard error; the largest is the kernel's default limit.
fn descriptor(number: &str) -> Option<i32> {
    // `units::size` reads plain decimal digits only.
    let n = units::size(&format!("{number}B"))?;
    i32::try_from(n).ok().filter(|n| *n == 0 || (3..1024).contains(n))
}

impl Source {
    /// The text that [`parse`] reads back.
    pub fn show(&self) -> String {
        match self {
            Source::Credential(name) => format!("credential:{name}"),
            Source::Keyring(description) => format!("keyring:{description}"),
            Source::Fd(n) => format!("fd:{n}"),
            Source::Ephemeral => "ephemeral".to_string(),
        }
    }
}

/// Whether these are `auto`'s, the only ones that are several.
pub fn is_auto(sources: &[Source]) -> bool {
    sources.len() != 1
}

/// The text of an account's sources.
pub fn show(sources: &[Source]) -> String {
    match sources {
        [one] => one.show(),
        _ => "auto".to_string(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn sources_read_back() {
        for text in ["credential:nsec", "keyring:nostr:my-business", "fd:0", "fd:3", "ephemeral"] {
            let Ok(KeySource::One(source)) = parse(text) else { panic!("{text}") };
            assert_eq!(source.show(), text);
        }
        assert_eq!(parse("auto"), Ok(KeySource::Auto));
    }

    #[test]
    fn other_sources_are_refused() {
        for bad in [
            "",
            "nsec",
            "credential:",
            "credential:../x",
            "keyring:",
            "fd:",
            "fd:1",
            "fd:2",
            "fd:-1",
            "fd:+3",
            "fd:9999",
        ] {
            assert!(parse(bad).unwrap_err().starts_with("expected credential:NAME"), "{bad}");
        }
        for bad in ["file:/etc/nsec", "env:NSEC"] {
            assert!(parse(bad).unwrap_err().contains("fd:3 3<FILE"), "{bad}");
        }
        let hex = "8".repeat(64);
        for bad in [hex.clone(), format!("hex:{hex}"), format!("nsec1{}", "q".repeat(58))] {
            let text = parse(&bad).unwrap_err();
            assert!(text.contains("private key") && !text.contains("888"), "{bad}");
        }
    }
}
