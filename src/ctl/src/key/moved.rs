//! `key move`.

use super::place::{self, Means, Place};
use super::{Done, Fault, store};
use clap::Args;
use serde_json::json;

/// `key move`.
#[derive(Args, Debug, PartialEq)]
pub(crate) struct Move {
    /// Where it lies: keyring:DESCRIPTION or credential:NAME
    #[arg(value_name = "FROM", value_parser = place::parse)]
    from: Place,
    /// Where it is to lie
    #[arg(value_name = "TO", value_parser = place::parse)]
    to: Place,
    /// Remove it from where it lay, once it has been read back
    #[arg(long)]
    remove_source: bool,
    #[command(flatten)]
    with: Means,
}

impl Move {
    pub(super) fn run(self) -> Result<Done, Fault> {
        let Move { from, to, remove_source, with } = self;
        if from == to {
            return Err(Fault::usage("FROM and TO are the same place"));
        }
        to.free(&with)?;
        let secret = from.read(&with)?;
        store(&secret, &to, &with)?;
        let mut lines = vec![
            format!("stored in  {}, and read back: its public key is that of {}", to.show(), from.show()),
            to.use_of(&with),
        ];
        match remove_source {
            true => {
                from.remove(&with)?;
                lines.push(format!("{} is removed", from.show()));
            }
            false => lines.push(format!(
                "{} is still there; --remove-source would have removed it, and so does: {}",
                from.show(),
                from.removal(&with)
            )),
        }
        let more = json!({"stored": to.show(), "from": from.show(), "source_removed": remove_source});
        Ok(Done { public: secret.public(), lines, more })
    }
}
