//! Users and groups by name.
//!
//! At the start the system's own name services answer, whatever they are. Under the supervisor's filter they would not be allowed
//! what they may do, so later only the files are read that every system has.

use nix::unistd::{Gid, Group, Uid, User};

use crate::fault::Fault;

/// Who knows the names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Names {
    /// The system (nsswitch.conf(5)).
    System,
    /// /etc/passwd and /etc/group alone.
    Files,
}

impl Names {
    /// The uid of a user.
    pub fn user(self, name: &str) -> Option<Uid> {
        match self {
            Names::System => User::from_name(name).ok().flatten().map(|user| user.uid),
            Names::Files => find("/etc/passwd", 0, name).and_then(|line| number(&line, 2)).map(Uid::from_raw),
        }
    }

    /// The gid of a group.
    pub fn group(self, name: &str) -> Option<Gid> {
        match self {
            Names::System => Group::from_name(name).ok().flatten().map(|group| group.gid),
            Names::Files => find("/etc/group", 0, name).and_then(|line| number(&line, 2)).map(Gid::from_raw),
        }
    }

    /// The gid that a user has when it logs in.
    pub fn primary_group(self, uid: Uid) -> Option<Gid> {
        match self {
            Names::System => User::from_uid(uid).ok().flatten().map(|user| user.gid),
            Names::Files => {
                find("/etc/passwd", 2, &uid.to_string()).and_then(|line| number(&line, 3)).map(Gid::from_raw)
            }
        }
    }

    /// Whether a user or a group has this number, or it cannot be told.
    pub fn is_taken(self, id: u32) -> bool {
        match self {
            Names::System => {
                User::from_uid(Uid::from_raw(id)).map_or(true, |user| user.is_some())
                    || Group::from_gid(Gid::from_raw(id)).map_or(true, |group| group.is_some())
            }
            Names::Files => ["/etc/passwd", "/etc/group"].iter().any(|file| find(file, 2, &id.to_string()).is_some()),
        }
    }

    /// The error where nobody knows a name.
    pub fn unknown(self, what: &str, name: &str) -> Fault {
        Fault::new(match self {
            Names::System => format!("this system knows no {what} {name}"),
            Names::Files => format!(
                "/etc/passwd and /etc/group, which a reload goes by, know no {what} {name}: give the number, or restart nsecd"
            ),
        })
    }
}

/// The line of passwd(5) or group(5) whose `n`-th field is `value`.
fn find(file: &str, n: usize, value: &str) -> Option<String> {
    let text = std::fs::read(file).ok()?;
    let text = String::from_utf8_lossy(&text);
    text.lines().find(|line| line.split(':').nth(n) == Some(value)).map(str::to_owned)
}

fn number(line: &str, n: usize) -> Option<u32> {
    line.split(':').nth(n)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_say_of_root_what_the_system_says() {
        for names in [Names::System, Names::Files] {
            assert_eq!((names.user("root"), names.group("root")), (Some(Uid::from_raw(0)), Some(Gid::from_raw(0))));
            assert_eq!(names.primary_group(Uid::from_raw(0)), Some(Gid::from_raw(0)));
            assert!(names.is_taken(0) && !names.is_taken(4_000_000_123));
            assert_eq!((names.user("no such user"), names.group("no such group")), (None, None));
        }
    }
}
