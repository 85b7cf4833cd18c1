//! The agent as it ships, but for one thing: `SKERRY_STOP_AT` names a step at which it kills itself ([`skerry_agent::steps`]).

fn main() -> std::process::ExitCode {
    skerry_agent::main()
}
