//! Where else an imported key may lie: what can be seen is named, what cannot is said. Looks, and changes nothing.

use super::memory::Locked;
use super::secret::Secret;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Files that shells and others keep lines in that were typed.
const HISTORIES: [&str; 8] = [
    ".bash_history",
    ".zsh_history",
    ".histfile",
    ".sh_history",
    ".local/share/fish/fish_history",
    ".python_history",
    ".node_repl_history",
    ".viminfo",
];

/// A place, and what to do about it.
pub(super) type Copy = (String, String);

/// Copies of what lay in `file`.
pub(super) fn of_file(file: &Path) -> Vec<Copy> {
    let mut all = Vec::new();
    if let Ok(meta) = fs::metadata(file) {
        if meta.nlink() > 1 {
            all.push((
                format!("{} other names of the same file (hard links)", meta.nlink() - 1),
                "remove them too".into(),
            ));
        }
        if meta.mode() & 0o044 != 0 {
            let who = if meta.mode() & 0o004 != 0 { "everyone" } else { "its group" };
            all.push((format!("{} can be read by {who}", file.display()), "treat the key as known to them".into()));
        }
    }
    all.extend(
        beside(file).into_iter().map(|path| (path.display().to_string(), format!("shred -u {}", quoted(&path)))),
    );
    all.extend(git(file));
    all
}

/// Copies of the key that this process can read: in shells' histories, in other processes' environments.
pub(super) fn of_key(secret: &Secret) -> Vec<Copy> {
    let (nsec, hex) = (secret.nsec(), secret.hex());
    let has = |path: &Path| {
        // A FIFO of that name would keep us waiting.
        let is_file = fs::metadata(path).is_ok_and(|meta| meta.is_file());
        let Some(text) = is_file.then(|| File::open(path).ok()).flatten().and_then(|file| bounded(&file)) else {
            return false;
        };
        [nsec.bytes(), hex.as_bytes()].iter().any(|key| contains(&text, key))
    };
    let mut all = Vec::new();
    let home = std::env::var_os("HOME").map(PathBuf::from);
    for path in home.into_iter().flat_map(|home| HISTORIES.map(|name| home.join(name))).filter(|path| has(path)) {
        all.push((
            path.display().to_string(),
            "remove the lines that have it, and end the shells that would write it again".into(),
        ));
    }
    let own = std::process::id().to_string();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.bytes().all(|b| b.is_ascii_digit()) && name != own && has(&entry.path().join("environ")) {
            let comm = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
            all.push((
                format!("the environment of process {name} ({})", shown(&comm.trim())),
                "take it out of what starts that process, and start it anew".into(),
            ));
        }
    }
    all
}

/// What cannot be seen from here.
pub(super) fn unseen() -> String {
    let swaps = fs::read_to_string("/proc/swaps").unwrap_or_default();
    let swap = if swaps.lines().count() > 1 { ", swap (there is some)" } else { "" };
    format!(
        "what cannot be seen from here: backups and snapshots, other machines, synchronised folders, container images and volumes, other \
         users' files, what an agent was shown or has written{swap}; a file system that copies on write, or a solid-state disk, may keep \
         what shred overwrites. Whoever may have read the key has it for good: then only a new key helps"
    )
}

/// Most of a history or an environment that is looked through.
const MOST: u64 = 16 << 20;

fn bounded(file: &File) -> Option<zeroize::Zeroizing<Vec<u8>>> {
    use std::io::Read;
    let mut text = zeroize::Zeroizing::new(Vec::new());
    file.take(MOST).read_to_end(&mut text).ok()?;
    Some(text)
}

fn contains(text: &[u8], key: &[u8]) -> bool {
    !key.is_empty() && text.windows(key.len()).any(|window| window.eq_ignore_ascii_case(key))
}

/// What editors and people leave beside a file.
fn beside(file: &Path) -> Vec<PathBuf> {
    let (Some(dir), Some(name)) = (file.parent(), file.file_name().and_then(|name| name.to_str())) else {
        return vec![];
    };
    let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
    let is_copy = |other: &str| {
        let rest = other.strip_prefix('.').unwrap_or(other);
        let swap = rest.strip_prefix(name).is_some_and(|end| end.starts_with(".sw"));
        let after = other.strip_prefix(name).is_some_and(|end| {
            end.starts_with('~')
                || [".bak", ".orig", ".old", ".save", ".backup", ".tmp"].iter().any(|e| end.starts_with(e))
        });
        swap || after
            || other == format!("#{name}#")
            || other == format!(".{}.un~", name)
            || other == format!(".#{name}")
    };
    let names = fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.file_name());
    let mut found: Vec<_> =
        names.filter(|other| other.to_str().is_some_and(is_copy)).map(|name| dir.join(name)).collect();
    found.sort();
    found
}

/// The git repository that it lies in. Only looked at: git itself runs what a repository's configuration names, and whose work tree this is
/// may be the one from whom the key is to be kept.
fn git(file: &Path) -> Option<Copy> {
    let file = fs::canonicalize(file).ok()?;
    let top = file.ancestors().skip(1).find(|dir| dir.join(".git").symlink_metadata().is_ok())?;
    let name = file.strip_prefix(top).ok()?;
    // A plain file, or nothing: a FIFO would hold us up.
    let index = top.join(".git/index");
    let plain = fs::symlink_metadata(&index).is_ok_and(|meta| meta.is_file());
    let text = if plain { File::open(&index).ok().and_then(|index| bounded(&index)) } else { None };
    let tracked = text.is_some_and(|text| contains(&text, name.as_os_str().as_encoded_bytes()));
    let place = if tracked {
        format!("the git repository of {}: its index names it", shown(&top.display()))
    } else {
        format!("the git repository of {}, if any commit had it", shown(&top.display()))
    };
    let fix = "look with git log --all -- FILE, in a copy that only you could write to (git runs what a repository's configuration names); rewrite its history \
               (git filter-repo --invert-paths), here and in every clone; where it was pushed, treat the key as known";
    Some((place, fix.into()))
}

/// Others' words as a terminal may show them.
fn shown(text: &dyn std::fmt::Display) -> String {
    text.to_string().escape_debug().to_string()
}

/// Wipes nothing: how the operator does.
pub(super) fn destroy(file: &Path) -> String {
    format!("shred -u {}", quoted(file))
}

/// A path as a shell takes it for one word, whoever chose its name.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_alphanumeric() || "/._-+,:@~".contains(c);
    if !text.starts_with('-') && text.chars().all(plain) { text } else { format!("'{}'", text.replace('\'', "'\\''")) }
}

/// What a file holds.
pub(super) fn read(file: &Path) -> std::io::Result<Locked> {
    Locked::read(crate::named::open(file)?)
}
