//! The numbers by which a broker knows sockets and accounts: each keeps its own for as long as that broker lives, since sessions,
//! windows and the journal's rows go by them.
//!
//! Must never give a number to another socket or account than the one that had it first.

use nsecd_policy::Policy;

use crate::config::Config;

/// What a number stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Slot {
    /// A socket's path; an account's name and public key.
    name: (String, String),
    /// Its index in the configuration; `None`: it is no more.
    at: Option<usize>,
}

/// All numbers of one broker.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Numbers {
    sockets: Vec<Slot>,
    accounts: Vec<Slot>,
}

impl Numbers {
    /// As a broker is given them at its start: those of the configuration.
    pub fn of(policy: &Policy) -> Numbers {
        let slot = |(at, name)| Slot { name, at: Some(at) };
        let sockets = policy.sockets.iter().map(|s| (s.path.clone(), String::new()));
        let accounts = policy.accounts.iter().map(|a| (a.name.clone(), a.public_key.clone()));
        Numbers { sockets: sockets.enumerate().map(slot).collect(), accounts: accounts.enumerate().map(slot).collect() }
    }

    /// With another configuration, whose accounts have these keys: what was there before keeps its number, whether it has been
    /// there all the time or comes back.
    pub fn with(&self, config: &Config, keys: &[&str]) -> Numbers {
        let sockets = config.sockets.iter().map(|s| (s.path.display().to_string(), String::new()));
        let accounts = config.accounts.iter().zip(keys).map(|(a, key)| (a.name.clone(), (*key).to_owned()));
        Numbers { sockets: renewed(&self.sockets, sockets), accounts: renewed(&self.accounts, accounts) }
    }

    /// Index in the configuration of the socket with each number.
    pub fn sockets(&self) -> impl Iterator<Item = Option<usize>> {
        self.sockets.iter().map(|slot| slot.at)
    }

    /// Likewise of the accounts.
    pub fn accounts(&self) -> impl Iterator<Item = Option<usize>> {
        self.accounts.iter().map(|slot| slot.at)
    }

    /// Index in the configuration of the socket with this number.
    pub fn socket(&self, number: u16) -> Option<usize> {
        self.sockets.get(usize::from(number))?.at
    }
}

fn renewed(before: &[Slot], names: impl Iterator<Item = (String, String)>) -> Vec<Slot> {
    let mut slots: Vec<Slot> = before.iter().map(|slot| Slot { name: slot.name.clone(), at: None }).collect();
    for (at, name) in names.enumerate() {
        match slots.iter_mut().find(|slot| slot.name == name) {
            Some(slot) => slot.at = Some(at),
            None => slots.push(Slot { name, at: Some(at) }),
        }
    }
    slots
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_stands_for_the_same_for_good() {
        let name = |n: &str| (n.to_owned(), String::new());
        let first = renewed(&[], ["a", "b"].map(name).into_iter());
        let at = |slots: &[Slot]| slots.iter().map(|s| (s.name.0.clone(), s.at)).collect::<Vec<_>>();
        let second = renewed(&first, ["c", "b"].map(name).into_iter());
        assert_eq!(at(&second), [("a".into(), None), ("b".into(), Some(1)), ("c".into(), Some(0))]);
        let third = renewed(&second, ["d", "a"].map(name).into_iter());
        let wanted = [("a".into(), Some(1)), ("b".into(), None), ("c".into(), None), ("d".into(), Some(0))];
        assert_eq!(at(&third), wanted);
        // Another key is another account, whatever its name.
        let other = [("a".to_owned(), "key".to_owned())];
        assert_eq!(renewed(&third, other.into_iter()).len(), 5);
    }
}
