//! `key import`.

use super::memory::Locked;
use super::place::{self, Means, Place};
use super::{Done, Fault, copies, sought, store};
use clap::{ArgGroup, Args, ValueHint};
use serde_json::json;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use zeroize::Zeroize;

/// `key import`.
#[derive(Args, Debug, PartialEq)]
#[command(group(ArgGroup::new("source").required(true)))]
pub(crate) struct Import {
    /// A file with the key: alone, as NAME=value (.env, /proc/PID/environ), or in JSON
    #[arg(value_name = "FILE", group = "source", value_hint = ValueHint::FilePath)]
    file: Option<PathBuf>,
    /// Take it from this variable of nsecctl's own environment
    #[arg(long, value_name = "NAME", group = "source")]
    from_env: Option<String>,
    /// The variable's name, or the JSON field's path as in accounts.0.nsec [default: the only one that is a key]
    #[arg(long, value_name = "NAME", conflicts_with = "from_env")]
    field: Option<String>,
    /// Where to: keyring:DESCRIPTION or credential:NAME
    #[arg(long, value_name = "PLACE", default_value = "keyring:nsec", value_parser = place::parse)]
    to: Place,
    /// The password of an ncryptsec1… is this file's first line; /dev/fd/N is a descriptor [default: it is asked for]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    password_file: Option<PathBuf>,
    #[command(flatten)]
    with: Means,
}

impl Import {
    pub(super) fn run(self) -> Result<Done, Fault> {
        self.to.free(&self.with)?;
        let text = match (&self.file, &self.from_env) {
            (Some(file), _) => {
                copies::read(file).map_err(|e| Fault::usage(format!("reading {}: {e}", file.display())))?
            }
            (None, name) => variable(name.as_deref().unwrap_or_default())?,
        };
        let (secret, name) = sought::find(text.bytes(), self.field.as_deref(), self.password_file.as_deref())?;
        store(&secret, &self.to, &self.with)?;
        let public = secret.public();
        let mut lines = vec![
            format!("stored in  {}, read back, and a test signature of it is the public key's", self.to.show()),
            self.to.use_of(&self.with),
            "nothing was deleted: the key still lies where it was, and perhaps elsewhere".into(),
        ];
        let mut left = Vec::new();
        match (&self.file, &self.from_env) {
            (Some(file), _) if file.starts_with("/proc") => left.push((
                format!("{} in {}", name.as_deref().unwrap_or("the key"), file.display()),
                "take it out of what starts that process, and start it anew".to_owned(),
            )),
            (Some(file), _) => {
                let fix = match &name {
                    None => copies::destroy(file),
                    Some(name) => format!("take {name} out of it into a new file, then {}", copies::destroy(file)),
                };
                left.push((file.display().to_string(), fix));
                left.extend(copies::of_file(file));
            }
            (None, name) => left.push((
                format!("the variable {}", name.as_deref().unwrap_or_default()),
                "remove it where it is set (a unit's Environment=, a compose file, ~/.profile, …), and start anew what has inherited it".into(),
            )),
        }
        left.extend(copies::of_key(&secret));
        lines.extend(left.iter().map(|(place, fix)| format!("  - {place}\n      {fix}")));
        lines.push(copies::unseen());
        let copies: Vec<_> = left.iter().map(|(place, fix)| json!({"place": place, "fix": fix})).collect();
        let more = json!({"stored": self.to.show(), "found": name, "left": copies});
        Ok(Done { public, lines, more })
    }
}

/// A variable of this process's own, whose environment nobody else of this user can read any more.
fn variable(name: &str) -> Result<Locked, Fault> {
    let value = std::env::var_os(name).ok_or_else(|| Fault::usage(format!("there is no variable {name}")))?;
    let mut value = value.into_vec();
    let text = Locked::of(&value);
    value.zeroize();
    Ok(text)
}
