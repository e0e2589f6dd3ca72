//! Finds private keys where none may be: arguments, environment, config file. Such a key is refused, never used,
//! and never repeated: every message that quotes an operator's text passes through [`shown`].

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;

use super::error::Error;

/// The letters of bech32's data part (BIP-173).
const BECH32: &[u8] = b"qpzry9x8gf2tvdw0s3jn54khce6mua7l";

/// Characters after `nsec1` in a key's bech32 form (NIP-19): 52 of data, 6 of checksum.
const NSEC_DATA: usize = 58;

/// Names of environment variables that suggest a private key; compared in upper case.
const KEY_NAMES: [&str; 5] = ["NSEC", "PRIVATE_KEY", "SECRET_KEY", "PRIVKEY", "SECKEY"];

/// Longest stretch of an operator's text that an error repeats, in characters.
const SHOWN: usize = 80;

/// Length of the longest run of bech32 letters that follows an `nsec1`, in either case.
fn nsec_run(text: &[u8]) -> usize {
    let runs = text.windows(5).enumerate().filter(|(_, w)| w.eq_ignore_ascii_case(b"nsec1"));
    let after = |i: usize| text[i + 5..].iter().take_while(|b| BECH32.contains(&b.to_ascii_lowercase())).count();
    runs.map(|(i, _)| after(i)).max().unwrap_or(0)
}

/// Whether `text` holds a private key as NIP-19 writes it.
pub fn holds_nsec(text: &[u8]) -> bool {
    nsec_run(text) >= NSEC_DATA
}

/// Whether `text` is 64 hex digits, alone or behind `--flag=`, `scheme:` or `0x`.
pub fn is_hex_key(text: &[u8]) -> bool {
    text.split(|b| matches!(b, b'=' | b':' | b',')).any(|piece| {
        let piece = piece.trim_ascii();
        let digits = piece.strip_prefix(b"0x").unwrap_or(piece);
        digits.len() == 64 && digits.iter().all(u8::is_ascii_hexdigit)
    })
}

/// Whether the environment variable holds a private key, by its value, or by its name and value.
pub fn variable_holds_key(name: &[u8], value: &[u8]) -> bool {
    let name = name.to_ascii_uppercase();
    let suggests = KEY_NAMES.iter().any(|k| name.windows(k.len()).any(|w| w == k.as_bytes()));
    holds_nsec(value) || (suggests && is_hex_key(value))
}

/// Refuses arguments (without the program's name) that hold a private key. Done before anything else reads them.
pub fn refuse_in_arguments(args: &[OsString]) -> Result<(), Error> {
    let Some(i) = args.iter().position(|a| holds_nsec(a.as_bytes()) || is_hex_key(a.as_bytes())) else {
        return Ok(());
    };
    Err(Error::new(format!(
        "argument {} is a private key; it is not used. Every process on this machine can read a command line, and shells \
         keep it in their history. {}",
        i + 1,
        advice("the command line")
    )))
}

/// Refuses the environment if any of `names`, the variables found to hold a private key, exists.
pub fn refuse_in_environment(names: &[String]) -> Result<(), Error> {
    let Some(name) = names.first() else { return Ok(()) };
    Err(Error::new(format!(
        "the environment variable {} holds a private key; it is not used. Every process of the same uid can read the \
         environment (/proc/PID/environ), and child processes inherit it. {}",
        shown(name),
        advice("the environment")
    )))
}

/// What to say of a key in a config file.
pub fn in_file() -> String {
    format!("this is a private key; it is not used. A key lies in no plain file of nsecd's. {}", advice("this file"))
}

/// How to move a key out of `place`.
fn advice(place: &str) -> String {
    format!(
        "`nsecctl key import FILE` takes the key out of a file, and `nsecctl key import --from-env NAME` out of a variable, into the \
         kernel keyring or a systemd credential (LoadCredentialEncrypted=nsec:...); `keyctl padd user nsec @u` takes it on standard \
         input, and a descriptor hands it over (`--key fd:N`). Then remove it from {place}, and treat it as known to whoever could \
         read that"
    )
}

/// An operator's text as an error may repeat it: escaped, cut, and concealed if it could be part of a key.
pub fn shown(text: &str) -> String {
    let hex_run = text.split(|c: char| !c.is_ascii_hexdigit()).map(str::len).max().unwrap_or(0);
    if nsec_run(text.as_bytes()) >= 8 || hex_run >= 32 {
        return "(not shown: it may be a private key)".to_string();
    }
    let mut out: String = text.escape_debug().take(SHOWN).collect();
    if text.escape_debug().count() > SHOWN {
        out.push('…');
    }
    out
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    const NSEC: &str = "nsec1qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqps52s3re";
    const HEX: &str = "00000000000000000000000000000000000000000000000000000000000000a3";

    #[test]
    fn a_key_is_found_in_every_spelling() {
        for text in [NSEC.to_string(), NSEC.to_uppercase(), format!("--key={NSEC}"), format!("nsec1x {NSEC}\n")] {
            assert!(holds_nsec(text.as_bytes()), "{text}");
        }
        for text in
            [HEX.to_string(), HEX.to_uppercase(), format!("--key={HEX}"), format!("hex:0x{HEX}"), format!("{HEX}\n")]
        {
            assert!(is_hex_key(text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn what_is_no_key_passes() {
        let npub = "npub1qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqps52s3re";
        for text in ["", "nsec1", "nsec", &NSEC[..62], npub, "/etc/nsec1/x"] {
            assert!(!holds_nsec(text.as_bytes()), "{text}");
        }
        for text in [&HEX[1..], &format!("{HEX}0"), &format!("/nix/store/{HEX}/nsecd.toml")] {
            assert!(!is_hex_key(text.as_bytes()), "{text}");
        }
        assert!(!variable_holds_key(b"BUILD_DIGEST", HEX.as_bytes()));
        assert!(variable_holds_key(b"my_private_key", HEX.as_bytes()));
        assert!(variable_holds_key(b"ANYTHING", NSEC.as_bytes()));
        assert!(!variable_holds_key(b"NSEC_FILE", b"/run/key"));
    }

    #[test]
    fn messages_name_the_place_and_never_the_key() {
        let args = ["--key".into(), NSEC.into()];
        let text = refuse_in_arguments(&args).unwrap_err().to_string();
        assert!(
            text.contains("argument 2") && text.contains("keyctl padd user nsec @u") && !text.contains("qqqq"),
            "{text}"
        );
        let text = refuse_in_environment(&["BOT_NSEC".to_string()]).unwrap_err().to_string();
        assert!(text.contains("BOT_NSEC") && text.contains("same uid") && text.contains("--key fd:N"), "{text}");
    }

    #[test]
    fn shown_text_is_escaped_cut_and_concealed() {
        assert_eq!(shown("a\nb"), "a\\nb");
        assert_eq!(shown(&"x".repeat(100)).chars().count(), SHOWN + 1);
        for secret in [&NSEC[..40], NSEC, HEX, &HEX[..40]] {
            assert!(shown(secret).starts_with("(not shown"), "{secret}");
        }
    }
}
