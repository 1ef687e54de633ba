//! The `qurrent` command: see `qurrent --help`.

fn main() -> std::process::ExitCode {
    node::cli::main()
}
