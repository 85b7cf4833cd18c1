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
    for seed in 0..8 {
        let outcome = lived(seed, Rules::default());
        assert!(outcome.manifests >= 20, "seed {seed}: {} manifests", outcome.manifests);
        faults.extend(outcome.faults);
    }
    let all: BTreeSet<String> = skerry_sim::faults().into_iter().collect();
    assert!(faults.len() * 4 >= all.len() * 3, "most kinds of faults were there: {faults:?}");
}
