//! Random numbers that a seed repeats: SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number
//! generators", 2014).

#[derive(Clone, Debug)]
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// From 1 to `most`.
    pub(super) fn up_to(&mut self, most: u64) -> u64 {
        let scaled = u128::from(self.next()) * u128::from(most);
        // the upper half of the product is less than `most`
        u64::try_from(scaled >> 64).unwrap_or_default() + 1
    }

    pub(super) fn pick(&mut self, of: &[u64]) -> u64 {
        let index = self.up_to(of.len() as u64) - 1;
        usize::try_from(index).ok().and_then(|index| of.get(index)).copied().unwrap_or_default()
    }

    pub(super) fn one_in(&mut self, many: u64) -> bool {
        self.up_to(many) == 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_those_of_splitmix64() {
        // the first ones of the seed 1234567, as published with the reference implementation
        let mut random = Random::new(1_234_567);
        assert_eq!(random.next(), 6_457_827_717_110_365_317);
        assert_eq!(random.next(), 3_203_168_211_198_807_973);
    }

    #[test]
    fn all_of_a_range_comes_and_nothing_else() {
        let mut random = Random::new(1);
        let mut counts = [0; 7];
        for _ in 0..7000 {
            counts[usize::try_from(random.up_to(6)).unwrap()] += 1;
        }
        assert_eq!(counts[0], 0);
        assert!(counts[1..].iter().all(|count| (1000..1350).contains(count)), "{counts:?}");
    }
}
