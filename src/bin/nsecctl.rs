//! nsecctl: see the crate nsecd-ctl (src/ctl).

fn main() -> std::process::ExitCode {
    nsecd_ctl::main()
}
