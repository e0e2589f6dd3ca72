//! A uid of its own for each role, when nsecd starts as root.
//!
//! The package's system users if they exist; else, for a first try, free uids of the range that systemd keeps
//! for dynamic users. Must never pick a uid that a user, a service or a process has.

use std::collections::HashSet;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, bind, socket};
use nix::unistd::User;

use crate::fault::{Fault, OrFault};
use crate::names::Names;

/// systemd's dynamic users (systemd.exec(5), "DynamicUser="; UIDS-GIDS.md).
pub const DYNAMIC: std::ops::RangeInclusive<u32> = 61184..=65519;

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
        let mut free = Free {
            names: Names::System,
            used: running()?,
            next: *DYNAMIC.start(),
            taken: Vec::new(),
            reserved: Vec::new(),
        };
        let broker = system_user("nsecd-broker");
        for (role, slots) in [("nsecd-keyholder", &mut roles.holders), ("nsecd-gate", &mut roles.gates)] {
            let user = system_user(role);
            for slot in slots.iter_mut() {
                *slot = Some(user.map_or_else(|| free.take(role), Ok)?);
            }
        }
        if ecdh {
            roles.ecdh = Some(system_user("nsecd-ecdh").map_or_else(|| free.take("nsecd-ecdh"), Ok)?);
        }
        roles.broker = Some(broker.map_or_else(|| free.take("nsecd-broker"), Ok)?);
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
        let mut free = Free {
            names: Names::Files,
            used: running()?,
            next: *DYNAMIC.start(),
            taken: Vec::new(),
            reserved: Vec::new(),
        };
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

struct Free {
    names: Names,
    used: HashSet<u32>,
    next: u32,
    taken: Vec<u32>,
    reserved: Vec<OwnedFd>,
}

impl Free {
    /// The uids taken, for the log.
    fn list(&self) -> Option<String> {
        let taken: Vec<String> = self.taken.iter().map(u32::to_string).collect();
        (!taken.is_empty()).then(|| taken.join(", "))
    }

    fn take(&mut self, role: &str) -> Result<Ids, Fault> {
        while DYNAMIC.contains(&self.next) {
            let id = self.next;
            self.next += 1;
            let known =
                self.names.is_taken(id) || std::path::Path::new(&format!("/run/systemd/dynamic-uid/{id}")).exists();
            if known || self.used.contains(&id) {
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
        let mut free = Free {
            names: Names::Files,
            used: DYNAMIC.collect(),
            next: *DYNAMIC.start(),
            taken: Vec::new(),
            reserved: Vec::new(),
        };
        assert!(free.take("nsecd-gate").unwrap_err().to_string().contains("no free uid"));
    }
}
