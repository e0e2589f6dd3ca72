//! nsecd-ecdh: see the crate nsecd-ecdh (src/ecdh).

fn main() {
    nsecd_ecdh::main()
}
