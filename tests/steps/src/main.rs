//! The agent as it ships, but for one thing: it can be told to kill itself at a named step of an update ([`skerry_agent::steps`]).
//!
//! In: the environment variable `SKERRY_STOP_AT`, besides all that the agent takes. For the tests of this package alone; it is never shipped.

fn main() -> std::process::ExitCode {
    skerry_agent::main()
}
