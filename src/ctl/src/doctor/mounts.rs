//! Where the admin directory can be reached: mounts of it, of a directory above it, or of something in it, in any mount
//! namespace (SECURITY.md, B25: an agent must not be able to get there).

use super::findings::{Finding, ok, problem};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// A line of mountinfo (proc_pid_mountinfo(5)).
#[derive(Clone, Debug, PartialEq)]
struct Mount {
    /// major:minor of the file system.
    device: String,
    /// What of it is mounted.
    root: PathBuf,
    /// Where.
    point: PathBuf,
}

/// A process's view.
#[derive(Clone, Debug)]
pub(super) struct View {
    /// For people: `process 123 (node)`.
    name: String,
    mounts: Vec<Mount>,
}

/// What can be looked at.
#[derive(Clone, Debug, Default)]
pub(super) struct Views {
    own: Vec<Mount>,
    others: Vec<View>,
    /// Processes whose mounts this user may not look at.
    unseen: usize,
}

impl Views {
    /// One view for each mount namespace with a process.
    pub fn gather() -> Views {
        let read = |pid: &str| fs::read_to_string(format!("/proc/{pid}/mountinfo"));
        let own = read("self").map(|text| parse(&text)).unwrap_or_default();
        let mut seen: BTreeSet<PathBuf> = fs::read_link("/proc/self/ns/mnt").into_iter().collect();
        let mut views = Views { own, ..Views::default() };
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let pid = entry.file_name().to_string_lossy().into_owned();
            if !pid.bytes().all(|b| b.is_ascii_digit()) {
                continue;
            }
            match fs::read_link(entry.path().join("ns/mnt")) {
                Ok(namespace) if seen.contains(&namespace) => {}
                Ok(namespace) => {
                    seen.insert(namespace);
                    let comm = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
                    let name = format!("process {pid} ({})", comm.trim());
                    views.others.extend(read(&pid).ok().map(|text| View { name, mounts: parse(&text) }));
                }
                Err(e) if e.kind() == std::io::ErrorKind::PermissionDenied => views.unseen += 1,
                Err(_) => {}
            }
        }
        views
    }
}

/// Lines of mountinfo; a path's blanks are written as octal numbers there.
fn parse(text: &str) -> Vec<Mount> {
    let path = |text: &str| {
        let plain = [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")];
        PathBuf::from(plain.iter().fold(text.to_owned(), |text, (code, c)| text.replace(code, c)))
    };
    let mount = |line: &str| {
        let fields: Vec<&str> = line.split(' ').collect();
        let [_, _, device, root, point, ..] = fields[..] else { return None };
        Some(Mount { device: device.into(), root: path(root), point: path(point) })
    };
    text.lines().filter_map(mount).collect()
}

/// The mount that a path lies in: the last one of the longest point.
fn of<'a>(mounts: &'a [Mount], path: &Path) -> Option<&'a Mount> {
    mounts.iter().filter(|mount| path.starts_with(&mount.point)).max_by_key(|mount| mount.point.components().count())
}

/// Where a directory with this path in its file system can be reached by a mount.
fn reached(mount: &Mount, device: &str, inside: &Path) -> Option<PathBuf> {
    if mount.device != device {
        return None;
    }
    if let Ok(rest) = inside.strip_prefix(&mount.root) {
        // Not `join` alone: of nothing it leaves a slash behind.
        return Some(mount.point.join(rest).components().collect());
    }
    // Something in it: a socket that is mounted as a file.
    mount.root.starts_with(inside).then(|| mount.point.clone())
}

/// Judges them.
pub(super) fn judge(views: &Views, admin: &Path) -> Finding {
    const CHECK: &str = "mounts of the admin directory";
    let Some(home) = of(&views.own, admin) else {
        return ok(CHECK, "no mount has it");
    };
    let inside = home.root.join(admin.strip_prefix(&home.point).unwrap_or(admin));
    let root = of(&views.own, Path::new("/"));
    let mut found = Vec::new();
    let own = View { name: "this machine".into(), mounts: views.own.clone() };
    for view in std::iter::once(&own).chain(&views.others) {
        // A service of this machine's in a mount namespace of its own sees it where it is; a container has another root.
        let top = of(&view.mounts, Path::new("/"));
        let is_container = top.map(|m| (&m.device, &m.root)) != root.map(|m| (&m.device, &m.root));
        let ways = view.mounts.iter().filter_map(|mount| reached(mount, &home.device, &inside));
        for way in ways.filter(|way| is_container || !way.starts_with(admin)) {
            found.push(format!("{} at {}", view.name, way.display()));
        }
    }
    found.dedup();
    let unseen = match views.unseen {
        0 => String::new(),
        1 => "; 1 process cannot be looked into".to_owned(),
        count => format!("; {count} processes cannot be looked into: as root it is fewer"),
    };
    match found.is_empty() {
        true => ok(CHECK, format!("none that another could use{unseen}")),
        false => problem(
            CHECK,
            format!("{} can be reached by {}", admin.display(), found.join(", ")),
            "mount the directory of the agent's own socket and nothing above it; or another admin directory (`[admin] dir`)",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: &str = "1 0 8:1 / / rw - ext4 /dev/sda1 rw\n2 1 0:25 / /run rw - tmpfs tmpfs rw\n";

    fn judged(own: &str, other: &str) -> Finding {
        let others = vec![View { name: "process 7 (node)".into(), mounts: parse(other) }];
        judge(&Views { own: parse(own), others, unseen: 0 }, Path::new("/run/nsecd/admin"))
    }

    #[test]
    fn a_mount_that_reaches_it_is_found_and_nothing_else() {
        let container = "9 8 0:99 / / rw - overlay overlay rw\n";
        for (line, way) in [
            ("5 9 0:25 /nsecd/admin /mnt rw - tmpfs tmpfs rw", Some("/mnt")),
            ("5 9 0:25 /nsecd /nsecd rw - tmpfs tmpfs rw", Some("/nsecd/admin")),
            ("5 9 0:25 / /run rw - tmpfs tmpfs rw", Some("/run/nsecd/admin")),
            ("5 9 0:25 /nsecd/admin/admin.sock /s\\040x rw - tmpfs tmpfs rw", Some("/s x")),
            ("5 9 8:1 / /host rw - ext4 /dev/sda1 rw", None),
            ("5 9 0:25 /nsecd/agents /run/nostr rw - tmpfs tmpfs rw", None),
            ("5 9 0:25 /nsecd/administrator /x rw - tmpfs tmpfs rw", None),
        ] {
            let finding = judged(HOST, &format!("{container}{line}\n"));
            assert_eq!(finding.fix.is_some(), way.is_some(), "{line}: {}", finding.found);
            let said = way.map(|way| format!("process 7 (node) at {way}"));
            assert!(said.is_none_or(|said| finding.found.ends_with(&said)), "{line}: {}", finding.found);
        }
        // A service of the machine's own in a namespace of its own.
        assert_eq!(judged(HOST, HOST).fix, None);
        let bound = format!("{HOST}3 1 0:25 /nsecd /srv/x rw - tmpfs tmpfs rw\n");
        assert!(judged(&bound, HOST).found.ends_with("this machine at /srv/x/admin"));
        assert!(judged(HOST, &bound).found.ends_with("process 7 (node) at /srv/x/admin"));
    }
}
