//! The logistic curve in whole numbers: `squash(x) = 2^16 / (1 + e^(-x/256))`, and its inverse, `stretch`.

/// The argument goes from minus this to this.
const END: i16 = 3071;
/// Probabilities have 16 bits; `stretch` looks at the upper ones.
const STRETCH_SHIFT: u32 = 4;
/// e^(-1/256) as a 64-bit fraction.
const STEP: u128 = 18_374_827_189_232_735_005;

/// Both functions as tables.
pub(super) struct Curve {
    squash: Box<[u16]>,
    stretch: Box<[i16]>,
}

impl Curve {
    pub(super) fn new() -> Self {
        let mut upper = Vec::new();
        // e^-x, a 64-bit fraction.
        let mut power: u128 = 1 << 64;
        for _ in 0..=END {
            let p = (1u128 << 80) / ((1u128 << 64) + power);
            upper.push(u16::try_from(p).unwrap_or(u16::MAX));
            power = (power * STEP) >> 64;
        }
        let lower = upper[1..].iter().rev().map(|p| (u16::MAX - p).max(1));
        let squash: Box<[u16]> = lower.chain(upper.iter().copied()).collect();
        // The least x whose probability is at least the middle of the step.
        let mut at = 0;
        let stretch = (0..1u32 << (16 - STRETCH_SHIFT)).map(|p| {
            let middle = (p << STRETCH_SHIFT) + (1 << (STRETCH_SHIFT - 1));
            while at + 1 < squash.len() && u32::from(squash[at]) < middle {
                at += 1;
            }
            i16::try_from(at).expect("the table has fewer than 2^15 entries") - END
        });
        let stretch = stretch.collect();
        Self { squash, stretch }
    }

    /// The probability for `x`, of 16 bits, never 0.
    #[inline]
    pub(super) fn squash(&self, x: i32) -> i32 {
        i32::from(self.squash[usize::try_from(x.clamp(-i32::from(END), i32::from(END)) + i32::from(END)).unwrap_or(0)])
    }

    /// The argument for a probability of 16 bits.
    #[inline]
    pub(super) fn stretch(&self, p: u32) -> i32 {
        i32::from(self.stretch[(p >> STRETCH_SHIFT) as usize & ((1 << (16 - STRETCH_SHIFT)) - 1)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_curve_is_the_logistic_one() {
        let curve = Curve::new();
        for x in [-3000i32, -1000, -256, -1, 0, 1, 77, 256, 1024, 3000] {
            let exact = 65536.0 / (1.0 + (-f64::from(x) / 256.0).exp());
            assert!((f64::from(curve.squash(x)) - exact).abs() <= 2.0, "{x}");
        }
        for x in [-1500, -300, 0, 300, 1500] {
            assert!((curve.stretch(u32::try_from(curve.squash(x)).unwrap()) - x).abs() < 40, "{x}");
        }
        assert_eq!((curve.squash(-9999), curve.squash(9999)), (1, 65535));
    }
}
