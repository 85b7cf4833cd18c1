//! The program `skerry-agent`: all of it is in the library, where a simulation can reach it too.
//!
//! In: the command line. Out: an exit code; 2 when the command line or the configuration is wrong, 3 when another agent has the data
//! folder, 4 when a reconstruct found its disk full.

fn main() -> std::process::ExitCode {
    skerry_agent::main()
}
