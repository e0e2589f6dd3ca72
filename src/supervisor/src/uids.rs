//! A uid of its own for each role, when nsecd starts as root.
//!
//! The package's system users if they exist; else, for a first try, free uids of the range that systemd keeps
//! for dynamic users. Must never pick a uid that a user, a service or a process has.

use std::collections::HashSet;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::OnceLock;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, bind, socket};
use nix::unistd::User;

use crate::fault::{Fault, OrFault};
use crate::names::Names;
use crate::sys;

/// systemd's dynamic users (systemd.exec(5), "DynamicUser="; UIDS-GIDS.md).
pub const DYNAMIC: std::ops::RangeInclusive<u32> = 61184..=65519;

/// The system users of the roles: key-holder, gate, ECDH holder, broker.
const USERS: [&str; 4] = ["nsecd-keyholder", "nsecd-gate", "nsecd-ecdh", "nsecd-broker"];

/// The uids of the system users of gate and ECDH holder, as they were found at the start: later the supervisor's filter would not let a
/// name service do what it may do.
static WRITERS: OnceLock<Vec<u32>> = OnceLock::new();

/// Whether a gate or an ECDH holder, of this run or an earlier one, may have that uid.
pub fn may_write_records(uid: u32) -> bool {
    DYNAMIC.contains(&uid) || WRITERS.get().is_some_and(|writers| writers.contains(&uid))
}

/// What a role changes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ids {
    /// Uid, all four of them.
    pub uid: u32,
    /// Gid, all four of them, and no supplementary groups.
    pub gid: u32,
}

/// The ids of every role; `None` throughout: as the user who started nsecd.
#[derive(Debug, Default)]
pub struct Roles {
    /// One for each account's key-holder.
    pub holders: Vec<Option<Ids>>,
    /// One for each account's gate.
    pub gates: Vec<Option<Ids>>,
    /// The ECDH holder's, where there is one.
    pub ecdh: Option<Ids>,
    /// The broker's.
    pub broker: Option<Ids>,
    /// Held while the uids are in use, so that a second nsecd takes others.
    _reserved: Vec<OwnedFd>,
}

impl Roles {
    /// Finds a uid for each role of `accounts` accounts, and for an ECDH holder if one is wanted, and says so in the log.
    ///
    /// # Errors
    /// No free uid is left, or /proc cannot be read.
    pub fn assign(accounts: usize, ecdh: bool, root: bool) -> Result<Roles, Fault> {
        let nobody = vec![None; accounts];
        let mut roles =
            Roles { holders: nobody.clone(), gates: nobody, ecdh: None, broker: None, _reserved: Vec::new() };
        if !root {
            return Ok(roles);
        }
        let mut names = ask_names().or_fault(|| "looking up the roles' system users".into())?;
        let mut users = [None; 4];
        for user in &mut users {
            let (Some(uid), Some(gid)) = (number(&mut names), number(&mut names)) else {
                return Err(Fault::new(
                    "the system's name services ended while they looked up the roles' system users",
                ));
            };
            *user = (uid != 0).then_some(Ids { uid, gid });
        }
        let candidates = std::iter::from_fn(|| number(&mut names));
        let mut free = Free { candidates, used: None, taken: Vec::new(), reserved: Vec::new() };
        let [holder, gate, agreement, broker] = users;
        let _ = WRITERS.set([gate, agreement].into_iter().flatten().map(|ids| ids.uid).collect());
        for (role, user, slots) in [(USERS[0], holder, &mut roles.holders), (USERS[1], gate, &mut roles.gates)] {
            for slot in slots.iter_mut() {
                *slot = Some(user.map_or_else(|| free.take(role), Ok)?);
            }
        }
        if ecdh {
            roles.ecdh = Some(agreement.map_or_else(|| free.take(USERS[2]), Ok)?);
        }
        roles.broker = Some(broker.map_or_else(|| free.take(USERS[3]), Ok)?);
        if let Some(ids) = free.list() {
            log::info!(
                "no system users for the roles: using uids {ids}, free for now; to create them: for u in keyholder gate ecdh broker; do useradd --system --no-create-home --shell /usr/sbin/nologin nsecd-$u; done"
            );
        }
        roles._reserved = free.reserved;
        Ok(roles)
    }

    /// Ids for key-holder and gate of one more account, as the others have theirs. Names are looked up in files alone.
    ///
    /// # Errors
    /// No free uid is left, or other users' processes cannot be seen.
    pub fn another(&mut self) -> Result<[Option<Ids>; 2], Fault> {
        let like = [self.holders.first(), self.gates.first()].map(|ids| ids.copied().flatten());
        let dynamic = |ids: &Option<Ids>| ids.is_some_and(|ids| DYNAMIC.contains(&ids.uid));
        if !like.iter().any(dynamic) {
            return Ok(like);
        }
        // With hidepid (proc(5)) it took a capability at the start to see who uses which uid.
        if std::fs::metadata("/proc/1/status").is_err() {
            return Err(Fault::new(
                "a new account needs a uid of its own, and which are free can be seen at a start only: restart nsecd, or create the system users nsecd-keyholder and nsecd-gate",
            ));
        }
        let candidates = DYNAMIC.filter(|id| is_free(*id, Names::Files));
        let mut free = Free { candidates, used: None, taken: Vec::new(), reserved: Vec::new() };
        let mut ids = like;
        for (slot, role) in ids.iter_mut().zip(["nsecd-keyholder", "nsecd-gate"]).filter(|(ids, _)| dynamic(ids)) {
            *slot = Some(free.take(role)?);
        }
        // Until nsecd ends, even if the account does not: a uid is not given to another role.
        self._reserved.append(&mut free.reserved);
        Ok(ids)
    }
}

/// The system user of that name, unless it is root by mistake.
fn system_user(name: &str) -> Option<Ids> {
    let user = User::from_name(name).ok().flatten()?;
    let ids = Ids { uid: user.uid.as_raw(), gid: user.gid.as_raw() };
    (ids.uid != 0 && ids.gid != 0).then_some(ids)
}

/// What the system's name services say: uid and gid of each role's user, zeros where there is none, then the uids of the range that
/// nobody has by name, as many as are read.
///
/// Asked in a child: services that are no files are libraries of their own (nss-systemd, with what it needs: 400 KiB), which the
/// supervisor would keep.
fn ask_names() -> std::io::Result<sys::Answer> {
    sys::in_a_child(|answer| {
        let users = USERS.map(system_user).map(|ids| ids.map_or([0; 2], |ids| [ids.uid, ids.gid]));
        let free = DYNAMIC.filter(|id| is_free(*id, Names::System));
        // Ends with the first that nobody reads.
        users.into_iter().flatten().chain(free).try_for_each(|number| answer.write_all(&number.to_ne_bytes()))
    })
}

fn number(answer: &mut impl Read) -> Option<u32> {
    let mut number = [0; 4];
    answer.read_exact(&mut number).ok().map(|()| u32::from_ne_bytes(number))
}

/// Whether nobody has this uid by name, a dynamic user of systemd's included.
fn is_free(id: u32, names: Names) -> bool {
    !names.is_taken(id) && !std::path::Path::new(&format!("/run/systemd/dynamic-uid/{id}")).exists()
}

struct Free<C> {
    /// Uids that nobody has by name.
    candidates: C,
    /// Those of running processes, once somebody needs one.
    used: Option<HashSet<u32>>,
    taken: Vec<u32>,
    reserved: Vec<OwnedFd>,
}

impl<C: Iterator<Item = u32>> Free<C> {
    /// The uids taken, for the log.
    fn list(&self) -> Option<String> {
        let taken: Vec<String> = self.taken.iter().map(u32::to_string).collect();
        (!taken.is_empty()).then(|| taken.join(", "))
    }

    fn take(&mut self, role: &str) -> Result<Ids, Fault> {
        let used = match self.used.take() {
            Some(used) => used,
            None => running()?,
        };
        let used = self.used.insert(used);
        for id in self.candidates.by_ref() {
            if used.contains(&id) {
                continue;
            }
            if let Some(socket) = reserve(id)? {
                self.reserved.push(socket);
                self.taken.push(id);
                return Ok(Ids { uid: id, gid: id });
            }
        }
        Err(Fault::new(format!(
            "no free uid in {}..{} for {role}: create the system users nsecd-keyholder, nsecd-gate, nsecd-ecdh and nsecd-broker",
            DYNAMIC.start(),
            DYNAMIC.end()
        )))
    }
}

/// Holds `id` against other nsecds of this network namespace; `None` if one has it.
fn reserve(id: u32) -> Result<Option<OwnedFd>, Fault> {
    let what = || format!("reserving uid {id}");
    let fd = socket(AddressFamily::Unix, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None).or_fault(what)?;
    let address = UnixAddr::new_abstract(format!("nsecd-uid-{id}").as_bytes()).or_fault(what)?;
    match bind(fd.as_raw_fd(), &address) {
        Ok(()) => Ok(Some(fd)),
        Err(nix::errno::Errno::EADDRINUSE) => Ok(None),
        Err(e) => Err(e).or_fault(what),
    }
}

/// Every uid and gid that a running process has in any of its four.
fn running() -> Result<HashSet<u32>, Fault> {
    let mut used = HashSet::new();
    for entry in std::fs::read_dir("/proc").or_fault(|| "reading /proc".into())?.flatten() {
        // Processes come and go while we look.
        let Ok(status) = std::fs::read_to_string(entry.path().join("status")) else { continue };
        for line in status.lines().filter(|l| l.starts_with("Uid:") || l.starts_with("Gid:")) {
            used.extend(line.split_whitespace().skip(1).filter_map(|id| id.parse::<u32>().ok()));
        }
    }
    Ok(used)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ordinary_user_keeps_its_uid() {
        let roles = Roles::assign(2, true, false).unwrap();
        let none = (vec![None; 2], vec![None; 2], None, None);
        assert_eq!((roles.holders, roles.gates, roles.ecdh, roles.broker), none);
    }

    #[test]
    fn roles_of_root_never_share_a_uid_nor_take_one_in_use() {
        let first = Roles::assign(2, true, true).unwrap();
        let second = Roles::assign(1, false, true).unwrap();
        assert!(second.ecdh.is_none(), "a uid for nobody");
        let mut all: Vec<Ids> = [&first, &second]
            .iter()
            .flat_map(|r| r.holders.iter().chain(&r.gates).chain([&r.ecdh, &r.broker]).flatten().copied())
            .filter(|ids| DYNAMIC.contains(&ids.uid))
            .collect();
        let count = all.len();
        all.sort_by_key(|i| i.uid);
        all.dedup();
        assert_eq!(all.len(), count);
        assert!(all.iter().all(|i| i.uid == i.gid));
        let again = running().unwrap();
        assert!(all.iter().all(|i| !again.contains(&i.uid)));
    }

    #[test]
    fn an_exhausted_range_is_an_error() {
        let mut free =
            Free { candidates: DYNAMIC, used: Some(DYNAMIC.collect()), taken: Vec::new(), reserved: Vec::new() };
        assert!(free.take("nsecd-gate").unwrap_err().to_string().contains("no free uid"));
    }
}
