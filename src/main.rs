//! The binary: parse, build, run, drain. Errors become exit codes in `cli`.

use std::process::ExitCode;

fn main() -> ExitCode {
    residua::cli::main()
}
