//! Node and nostr-tools, which tests/node/install.sh has put into the target directory.

use super::container::libraries;
use super::{missing, skip};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where the modules are; `None`, after saying so, if they were not installed.
pub fn modules() -> Option<PathBuf> {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    let installed = target.join("node/installed").exists();
    if !installed && !missing("node", "--version") {
        skip("nostr-tools is not installed: run tests/node/install.sh");
    }
    installed.then(|| target.join("node/node_modules"))
}

/// What a script of tests/node prints; fails the test if it fails.
pub fn run(modules: &Path, script: &str, socket: &Path, arguments: &[&str]) -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/node").join(script);
    let mut command = Command::new("node");
    let output = command.env("NODE_PATH", modules).arg(script).arg(socket).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// What a container needs to run the scripts of tests/node, from the host and at these paths in it: /bin/node with its libraries,
/// the scripts in /node/scripts, and the modules where Node looks for them.
pub fn volumes(modules: &Path) -> Vec<(PathBuf, PathBuf)> {
    let found = Command::new("node").args(["--print", "process.execPath"]).output().unwrap();
    let node = PathBuf::from(String::from_utf8(found.stdout).unwrap().trim());
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/node");
    let mut all: Vec<_> = libraries(&[&node]).into_iter().map(|path| (path.clone(), path)).collect();
    all.extend([
        (node, "/bin/node".into()),
        (scripts, "/node/scripts".into()),
        (modules.into(), "/node/node_modules".into()),
    ]);
    all
}
