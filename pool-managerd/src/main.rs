//! `pool-managerd`: so far the guard of engines, which tests of this crate and programs that do not embed it start.

use std::process::ExitCode;

fn main() -> ExitCode {
    pool_managerd::guard::run_if_asked().unwrap_or_else(|| {
        eprintln!(
            "pool-managerd: only orchestratord runs engines so far, and starts `{}` itself",
            pool_managerd::guard::SUBCOMMAND
        );
        ExitCode::from(2)
    })
}
