//! Some lives; more of them with `make sim`.
#![allow(clippy::unwrap_used)]

use std::process::Command;

use skerry_sim::{Rules, play};

/// Lives that are played each time. Each is the same every time.
const LIVES: &str = "8";

/// This program plays lives, by processes of its own.
fn program(args: &[&str]) -> (bool, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_skerry-sim")).args(args).output().unwrap();
    (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr))
}

/// Every promise, with most kinds of faults, and one of the lives with all kinds of clocks.
#[test]
fn promises_hold_in_some_lives() {
    let (fine, said) = program(&["--seeds", LIVES]);
    assert!(fine, "{said}");
    let fewest: u64 = said.split("manifests in one life: ").nth(1).and_then(|rest| rest.split(' ').next()?.parse().ok()).unwrap();
    assert!(fewest >= 20, "{said}");
    let kinds: Vec<&str> = said.lines().filter(|line| line.ends_with("% of the lives")).collect();
    let absent = kinds.iter().filter(|line| line.contains(" in   0.0 %")).count();
    assert!(!kinds.is_empty() && absent * 4 <= kinds.len(), "{said}");
}

/// A seed is its life: alone in a process, and beside others of the same process.
#[test]
fn a_life_is_the_same_every_time() {
    const SEEDS: [u64; 4] = [3, 11, 18, 42];
    let beside: Vec<u64> = std::thread::scope(|scope| {
        let lives = SEEDS.map(|seed| scope.spawn(move || play(seed, Rules::default()).unwrap().digest));
        lives.into_iter().map(|life| life.join().unwrap()).collect()
    });
    for (seed, digest) in SEEDS.into_iter().zip(beside) {
        let (_, said) = program(&["--first", &seed.to_string(), "--seeds", "1", "--every", "1"]);
        assert!(said.contains(&format!(" {digest:016x}")), "seed {seed}: {digest:016x} beside others, alone: {said}");
    }
}
