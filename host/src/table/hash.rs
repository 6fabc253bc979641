//! Hashing that every router does alike, on every machine and in every version: by it routers
//! agree on a choice without asking each other. Not for hash maps, not against forgers.

/// A stable 64-bit hash of a text: FNV-1a, then the finalizer of SplitMix64 so that every bit
/// of the input reaches every bit of the result.
pub fn stable(text: &str) -> u64 {
    let fnv = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    mix(fnv)
}

/// How much a key favours an item, both given by their [`stable`] hashes: as if by chance, and
/// always the same.
pub fn affinity(key: u64, item: u64) -> u64 {
    mix(key ^ item)
}

fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

/// Chooses among weighted items, given by their [`stable`] hashes, in proportion to the weights
/// over all keys and always the same for one key; removing an item moves only the keys that it
/// had. Weight 0 is never chosen. None if nothing can be.
///
/// Weighted rendezvous hashing: Schindelhauer and Schomaker, "Weighted Distributed Hash Tables",
/// SPAA 2005 (the logarithmic method).
pub fn rendezvous<T>(key: u64, items: impl Iterator<Item = (T, u64, u32)>) -> Option<T> {
    let mut best: Option<(f64, T)> = None;
    for (item, hash, weight) in items.filter(|(_, _, weight)| *weight > 0) {
        let distance = -unit(affinity(key, hash)).ln() / f64::from(weight);
        if best.as_ref().is_none_or(|(nearest, _)| distance < *nearest) {
            best = Some((distance, item));
        }
    }
    best.map(|(_, item)| item)
}

/// A number above 0 and below 1.
#[expect(clippy::cast_precision_loss, reason = "53 bits fit")]
pub(super) fn unit(bits: u64) -> f64 {
    ((bits >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_never_changes() {
        assert_eq!(stable(""), 0xf52a_15e9_a9b5_e89b);
        assert_eq!(stable("alice"), 0xc5d1_556d_6677_4a5c);
    }

    #[test]
    fn shares_follow_weights_and_removal_moves_only_its_own() {
        let items = [("a", 1_u32), ("b", 3), ("c", 0)];
        let choose = |client: usize, without: &str| {
            let items = items.iter().filter(|(name, _)| *name != without);
            rendezvous(
                stable(&format!("client-{client}")),
                items.map(|(name, weight)| (*name, stable(name), *weight)),
            )
        };
        let chosen: Vec<_> = (0..4000).map(|client| choose(client, "")).collect();
        let of = |name| chosen.iter().filter(|choice| **choice == Some(name)).count();
        assert_eq!(of("c"), 0);
        assert!((900..1100).contains(&of("a")), "{}", of("a"));
        for (client, choice) in chosen.iter().enumerate() {
            if *choice == Some("b") {
                assert_eq!(choose(client, "a"), Some("b"));
            }
        }
        assert_eq!(rendezvous(1, std::iter::empty::<((), u64, u32)>()), None);
    }
}
