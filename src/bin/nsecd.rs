//! nsecd: the supervisor, see the crate nsecd-supervisor (src/supervisor).

fn main() -> std::process::ExitCode {
    nsecd_supervisor::main()
}
