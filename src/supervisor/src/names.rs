//! Users and groups by name.
//!
//! At the start the system's own name services answer, whatever they are; where it asks them only for what /etc/passwd and /etc/group do
//! not say ([`Known`]), these are read without them. Under the supervisor's filter services would not be allowed what they may do, so
//! later only the files are read that every system has.

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
        let known = match self {
            Names::System => Known::read().user(name).unwrap_or_else(|| system::user(name)),
            Names::Files => Table::read("passwd", Order::FilesAlone).user(name).flatten(),
        };
        known.map(|(uid, _)| Uid::from_raw(uid))
    }

    /// The gid of a group.
    pub fn group(self, name: &str) -> Option<Gid> {
        let known = match self {
            Names::System => Known::read().group.group(name).unwrap_or_else(|| system::group(name)),
            Names::Files => Table::read("group", Order::FilesAlone).group(name).flatten(),
        };
        known.map(Gid::from_raw)
    }

    /// The gid that a user has when it logs in.
    pub fn primary_group(self, uid: Uid) -> Option<Gid> {
        let known = match self {
            Names::System => Known::read().passwd.user_of(uid.as_raw()).unwrap_or_else(|| system::user_of(uid)),
            Names::Files => Table::read("passwd", Order::FilesAlone).user_of(uid.as_raw()).flatten(),
        };
        known.map(|(_, gid)| Gid::from_raw(gid))
    }

    /// Whether a user or a group has this number, or it cannot be told.
    pub fn is_taken(self, id: u32) -> bool {
        match self {
            Names::System => Known::read().is_taken(id).unwrap_or_else(|| system::is_taken(id)),
            Names::Files => ["passwd", "group"]
                .iter()
                .any(|file| Table::read(file, Order::FilesAlone).find(2, &id.to_string(), |_| Some(())).is_some()),
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

/// The name of the user with this uid.
pub fn of_user(uid: Uid) -> Option<String> {
    let known = Known::read().passwd.name_of(uid.as_raw());
    known.unwrap_or_else(|| User::from_uid(uid).ok().flatten().map(|user| user.name))
}

/// What the system itself says, whatever it has to load and to ask for it: a hundred system calls a question are usual.
pub mod system {
    use super::{Gid, Group, Uid, User};

    /// A user's uid and gid.
    pub fn user(name: &str) -> Option<(u32, u32)> {
        User::from_name(name).ok().flatten().map(|user| (user.uid.as_raw(), user.gid.as_raw()))
    }

    /// Those of the user with this uid.
    pub fn user_of(uid: Uid) -> Option<(u32, u32)> {
        User::from_uid(uid).ok().flatten().map(|user| (user.uid.as_raw(), user.gid.as_raw()))
    }

    /// A group's gid.
    pub fn group(name: &str) -> Option<u32> {
        Group::from_name(name).ok().flatten().map(|group| group.gid.as_raw())
    }

    /// Whether a user or a group has this number, or it cannot be told.
    pub fn is_taken(id: u32) -> bool {
        User::from_uid(Uid::from_raw(id)).map_or(true, |user| user.is_some())
            || Group::from_gid(Gid::from_raw(id)).map_or(true, |group| group.is_some())
    }
}

/// What /etc/passwd and /etc/group answer in the system's place. An answer's outer `None`: its name services have to be asked.
pub struct Known {
    passwd: Table,
    group: Table,
}

impl Known {
    /// Reads the files, as far as nsswitch.conf(5) has them asked before anybody else.
    pub fn read() -> Known {
        let conf = std::fs::read_to_string("/etc/nsswitch.conf").unwrap_or_default();
        let table = |database| Table::read(database, order(&conf, database));
        Known { passwd: table("passwd"), group: table("group") }
    }

    /// A user's uid and gid.
    pub fn user(&self, name: &str) -> Option<Option<(u32, u32)>> {
        self.passwd.user(name)
    }

    /// Whether a user or a group has this number.
    pub fn is_taken(&self, id: u32) -> Option<bool> {
        let number = id.to_string();
        let taken = |table: &Table| table.answer(2, &number, |_| Some(())).map(|found| found.is_some());
        match [taken(&self.passwd), taken(&self.group)] {
            [Some(true), _] | [_, Some(true)] => Some(true),
            [Some(false), Some(false)] => Some(false),
            _ => None,
        }
    }
}

/// Whom the system asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    /// The file and nobody else: what it does not have there is not.
    FilesAlone,
    /// Others for what the file does not have.
    FilesFirst,
    /// Others first, or it is not that simple.
    Services,
}

/// As nsswitch.conf(5) says of this database. Without a line for it the C library has its own mind.
fn order(conf: &str, database: &str) -> Order {
    let services = |line: &str| {
        let (name, rest) = line.split('#').next()?.split_once(':')?;
        (name.trim() == database).then(|| rest.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    };
    let mut lines = conf.lines().filter_map(services);
    match (lines.next().as_deref(), lines.next()) {
        (Some([files]), None) if files == "files" => Order::FilesAlone,
        // In brackets: what to do with the answer.
        (Some([files, next, ..]), None) if files == "files" && !next.starts_with('[') => Order::FilesFirst,
        _ => Order::Services,
    }
}

/// passwd(5) or group(5).
struct Table {
    lines: String,
    order: Order,
}

impl Table {
    fn read(database: &str, order: Order) -> Table {
        let file = || std::fs::read(format!("/etc/{database}")).unwrap_or_default();
        let lines = if order == Order::Services { Vec::new() } else { file() };
        Table { lines: String::from_utf8_lossy(&lines).into_owned(), order }
    }

    /// What is made of the first line that has `value` in its `n`-th field and that anything can be made of.
    fn find<T>(&self, n: usize, value: &str, make: impl Fn(&[&str]) -> Option<T>) -> Option<T> {
        let mut lines = self.lines.lines().map(|line| line.split(':').collect::<Vec<_>>());
        lines.find_map(|fields| (fields.get(n) == Some(&value)).then(|| make(&fields)).flatten())
    }

    fn answer<T>(&self, n: usize, value: &str, make: impl Fn(&[&str]) -> Option<T>) -> Option<Option<T>> {
        match (self.order, self.find(n, value, make)) {
            (Order::Services, _) | (Order::FilesFirst, None) => None,
            (_, found) => Some(found),
        }
    }

    fn user(&self, name: &str) -> Option<Option<(u32, u32)>> {
        self.answer(0, name, ids)
    }

    fn user_of(&self, uid: u32) -> Option<Option<(u32, u32)>> {
        self.answer(2, &uid.to_string(), ids)
    }

    fn name_of(&self, uid: u32) -> Option<Option<String>> {
        self.answer(2, &uid.to_string(), |fields| ids(fields).map(|_| fields[0].to_owned()))
    }

    fn group(&self, name: &str) -> Option<Option<u32>> {
        self.answer(0, name, |fields| fields.get(2)?.parse().ok())
    }
}

/// Uid and gid of a line of passwd(5).
fn ids(fields: &[&str]) -> Option<(u32, u32)> {
    Some((fields.get(2)?.parse().ok()?, fields.get(3)?.parse().ok()?))
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
        assert_eq!((of_user(Uid::from_raw(0)).as_deref(), of_user(Uid::from_raw(4_000_000_123))), (Some("root"), None));
    }

    #[test]
    fn who_is_asked_after_the_files_or_before_them_is_read_from_nsswitch() {
        use Order::{FilesAlone, FilesFirst, Services};
        for (conf, wanted) in [
            ("passwd: files", FilesAlone),
            (" passwd :\tfiles # systemd", FilesAlone),
            ("group: sss\npasswd:         files systemd", FilesFirst),
            ("passwd:files sss [NOTFOUND=return] systemd", FilesFirst),
            ("passwd: files [SUCCESS=continue] sss", Services),
            ("passwd: files[SUCCESS=continue] sss", Services),
            ("passwd: sss files", Services),
            ("passwd: compat", Services),
            ("passwd: files\npasswd: sss", Services),
            ("#passwd: files", Services),
            ("passwd:", Services),
            ("", Services),
        ] {
            assert_eq!(order(conf, "passwd"), wanted, "{conf}");
        }
    }

    /// Checked: with what the first file does not have taken for nobody's, this fails.
    #[test]
    fn what_the_files_do_not_have_is_asked_of_who_comes_after_them() {
        let lines = "broken:x:7\nbroken:x:8:9:::\nroot:x:0:0:root:/root:/bin/bash\nnone:x:no:1:::\n";
        let table = |order| Table { lines: lines.into(), order };
        let known = |order| Known { passwd: table(order), group: table(order) };
        for (order, absent) in [(Order::FilesAlone, Some(None)), (Order::FilesFirst, None)] {
            let known = known(order);
            assert_eq!(known.user("root"), Some(Some((0, 0))));
            assert_eq!(known.user("broken"), Some(Some((8, 9))));
            assert_eq!([known.user("absent"), known.user("none"), known.user("")], [absent; 3]);
            assert_eq!(known.is_taken(8), Some(true));
            assert_eq!(known.is_taken(5), (order == Order::FilesAlone).then_some(false));
        }
        let known = known(Order::Services);
        assert_eq!((known.user("root"), known.is_taken(0)), (None, None));
    }

    #[test]
    fn a_number_is_taken_if_either_file_has_it_and_free_if_nobody_else_is_asked_of_either() {
        let table = |order, lines: &str| Table { lines: lines.into(), order };
        let (first, alone) = (Order::FilesFirst, Order::FilesAlone);
        let known = |users, groups, group| Known { passwd: table(users, "a:x:5:1:::"), group: table(groups, group) };
        assert_eq!(known(first, first, "g:x:6:").is_taken(6), Some(true));
        assert_eq!(known(alone, first, "g:x:6:").is_taken(5), Some(true));
        assert_eq!(known(alone, first, "g:x:6:").is_taken(7), None);
        assert_eq!(known(alone, alone, "g:x:6:").is_taken(7), Some(false));
    }
}
