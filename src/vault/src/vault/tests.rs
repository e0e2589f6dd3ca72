//! How deep loading a key goes into the stack.

use super::*;

mod depth;

/// Loads a key on the stack, and notes how deep that went.
extern "C" fn measured(data: &mut Data<()>) -> bool {
    let done = load(data);
    depth::note(data, STACK);
    done
}

/// As for what the holders do with a key, in their own crates, which is deeper: with a stack of one page their tests fail, and this one
/// not yet.
#[test]
fn loading_a_key_reaches_two_thirds_of_the_stack_at_most() {
    let mut vault = Vault::open(&["0", "ephemeral"].map(String::from), (), &mut depth::nothing());
    vault.data.text[..64].copy_from_slice(&[b'1'; 64]);
    vault.data.length = 64;
    assert!(vault.run(measured));
    depth::check(STACK);
}
