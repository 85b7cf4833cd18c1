//! The program: all of it is in the library, where a simulation can reach it too.

fn main() -> std::process::ExitCode {
    skerry_agent::main()
}
