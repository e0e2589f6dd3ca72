//! Tests of the whole configuration, on a machine that is made up.

mod encryption;
mod errors;
mod precedence;
mod roundtrip;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::defaults::Host;
use super::profiles::Profile;
use super::{Config, Context, Error, Ids, raw, resolve};
use crate::cli;
use crate::environment::Environment;

/// A machine with these directories (owner, mode), these files, and the user and group `agents`.
#[derive(Default)]
pub struct Machine {
    pub directories: Vec<(&'static str, u32, u32)>,
    pub files: Vec<&'static str>,
}

impl Host for Machine {
    fn directory(&self, path: &Path) -> Option<(u32, u32)> {
        self.directories.iter().find(|d| path == Path::new(d.0)).map(|d| (d.1, d.2))
    }

    fn exists(&self, path: &Path) -> bool {
        self.files.iter().any(|f| path == Path::new(f)) || self.directory(path).is_some()
    }

    fn is_user(&self, name: &str) -> bool {
        name == "agents"
    }

    fn is_group(&self, name: &str) -> bool {
        name == "agents"
    }
}

/// A start of nsecd.
#[derive(Default)]
pub struct Start<'a> {
    pub args: &'a [&'a str],
    pub env: &'a [(&'a str, &'a str)],
    /// The config file's text.
    pub file: Option<&'a str>,
    pub uid: u32,
    pub machine: Machine,
}

impl Start<'_> {
    pub fn config(&self) -> Result<Config, Error> {
        let args: Vec<OsString> = self.args.iter().map(OsString::from).collect();
        let env = Environment::from_variables(self.env.iter().map(|(n, v)| (n.into(), v.into())));
        let cx = Context { env: &env, ids: Ids { uid: self.uid, gid: self.uid }, pid: 77, host: &self.machine };
        let cli = cli::parse(&args)?;
        let file = raw::read(self.file.unwrap_or_default(), "nsecd.toml")?;
        resolve::resolve(&cli, file, cli.profile.unwrap_or(Profile::Strict), &cx)
    }
}

/// The configuration of a config file alone, as root.
pub fn of_file(text: &str) -> Result<Config, Error> {
    Start { file: Some(text), ..Start::default() }.config()
}

pub fn path(text: &str) -> PathBuf {
    PathBuf::from(text)
}
