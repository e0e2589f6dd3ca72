//! nsecd-keyholder: see the crate nsecd-keyholder (src/keyholder).

fn main() {
    nsecd_keyholder::main()
}
