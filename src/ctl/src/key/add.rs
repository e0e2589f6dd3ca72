//! `key add`.

use super::memory::Locked;
use super::place::{self, Means, Place};
use super::secret::Secret;
use super::{Done, Fault, ncryptsec, prompt, store};
use clap::{Args, ValueHint};
use serde_json::json;
use std::io::{IsTerminal, stdin};
use std::path::{Path, PathBuf};

/// `key add`.
#[derive(Args, Debug, PartialEq)]
pub(crate) struct Add {
    /// Where to: keyring:DESCRIPTION or credential:NAME
    #[arg(long, value_name = "PLACE", default_value = "keyring:nsec", value_parser = place::parse)]
    to: Place,
    /// The password of an ncryptsec1… is this file's first line; /dev/fd/N is a descriptor [default: it is asked for]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    password_file: Option<PathBuf>,
    #[command(flatten)]
    with: Means,
}

impl Add {
    pub(super) fn run(self) -> Result<Done, Fault> {
        self.to.free(&self.with)?;
        let text = match stdin().is_terminal() {
            true => prompt::ask("private key (not shown)")?,
            false => Locked::read(stdin()).map_err(|e| Fault::usage(format!("reading standard input: {e}")))?,
        };
        let secret = secret_of(text.bytes(), self.password_file.as_deref())?;
        store(&secret, &self.to, &self.with)?;
        let lines =
            vec![format!("stored in  {}, and read back: the same key", self.to.show()), self.to.use_of(&self.with)];
        Ok(Done { public: secret.public(), lines, more: json!({"stored": self.to.show()}) })
    }
}

/// The key in a text, which may be encrypted.
pub(super) fn secret_of(text: &[u8], password_file: Option<&Path>) -> Result<Secret, Fault> {
    if !text.trim_ascii().starts_with(ncryptsec::PREFIX) {
        return Secret::of_text(text);
    }
    let password = match password_file {
        None => prompt::ask("password of the ncryptsec1… (not shown)")?,
        Some(path) => {
            let all = crate::named::open(path).and_then(Locked::read);
            let all = all.map_err(|e| Fault::usage(format!("reading {}: {e}", path.display())))?;
            Locked::of(all.bytes().split(|b| *b == b'\n').next().unwrap_or_default())
        }
    };
    ncryptsec::open(text, &password)
}
