//! Some lives; more of them with `make sim`.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use skerry_sim::{Outcome, Rules, play};

fn lived(seed: u64, rules: Rules) -> Outcome {
    let outcome = play(seed, rules).unwrap();
    assert!(outcome.broken.is_empty(), "seed {seed}: {:?}; replay with: make sim SEED={seed}", outcome.broken);
    outcome
}

#[test]
fn promises_hold_in_some_lives() {
    let mut faults = BTreeSet::new();
    for seed in 0..12 {
        let outcome = lived(seed, Rules::default());
        assert!(outcome.manifests >= 20, "seed {seed}: {} manifests", outcome.manifests);
        faults.extend(outcome.faults);
    }
    let all: BTreeSet<String> = skerry_sim::faults().into_iter().collect();
    assert!(faults.len() * 4 >= all.len() * 3, "most kinds of faults were there: {faults:?}");
}

#[test]
fn a_seed_is_a_life() {
    for seed in [1, 2] {
        assert_eq!(lived(seed, Rules::default()).digest, lived(seed, Rules::default()).digest, "seed {seed}");
    }
    assert_ne!(lived(1, Rules::default()).digest, lived(2, Rules::default()).digest);
}

/// P7: with all clocks right the very same happens as with clocks at 1970, 2038, ten years ahead.
#[test]
fn wrong_clocks_change_nothing() {
    for seed in 0..3 {
        let untimed = Rules { untimed: true, ..Rules::default() };
        let right = Rules { right_clocks: true, ..untimed };
        assert_eq!(lived(seed, untimed).digest, lived(seed, right).digest, "seed {seed}");
    }
}
