//! Listening sockets that outlive nsecd: the test holds them and hands them over, as systemd's socket units do
//! (sd_listen_fds(3)).

use super::daemon::Setup;
use super::sys;
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Stdio};

/// Becomes nsecd with LISTEN_PID set to its own pid, which nobody knows before it is there.
const SHELL: &str = r#"export LISTEN_PID=$$; exec "$@""#;

impl Setup {
    /// Binds these sockets, in the order of the configuration, and hands them over at every start. `owner` is the one user who
    /// may connect; `None`: ours.
    pub fn held(mut self, sockets: &[&Path], owner: Option<u32>) -> Setup {
        let bind = |path: &&Path| {
            let listener = UnixListener::bind(path).unwrap();
            fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
            chown(path, owner, owner).unwrap();
            OwnedFd::from(listener)
        };
        let names = sockets.iter().map(|path| path.file_stem().unwrap().to_str().unwrap());
        let mut command = Command::new("/bin/sh");
        command.args(["-c", SHELL, "sh"]).arg(self.command.get_program()).args(self.command.get_args());
        command.env_clear().current_dir("/").stdin(Stdio::null());
        command.envs(self.command.get_envs().filter_map(|(name, value)| value.map(|v| (name, v))));
        command.env("LISTEN_FDS", sockets.len().to_string()).env("LISTEN_FDNAMES", names.collect::<Vec<_>>().join(":"));
        // The command keeps them for the next start.
        sys::give_fds(&mut command, sockets.iter().map(bind).zip(3..).collect());
        self.command = command;
        self
    }
}

/// The inode of a socket's file: another one is another socket, under the same name.
pub fn inode(path: &Path) -> u64 {
    std::os::unix::fs::MetadataExt::ino(&fs::metadata(path).unwrap())
}
