//! What a store takes of memory is what it counts.

use super::*;

/// Memory that this process has resident, in bytes.
fn resident() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    pages.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

/// A million assignments as the memory adapter keeps them; run alone, with an optimized build.
#[test]
#[ignore = "measures"]
fn costs_of_a_million_assignments() {
    const ASSIGNMENTS: u64 = 1_000_000;
    let store = StateStore::volatile(4 << 30);
    let (before, began) = (resident(), std::time::Instant::now());
    for number in 0..ASSIGNMENTS {
        let client = format!("client-{:016x}", number.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let (key, expiry) = (format!("a/{client}/chat"), format!("x/{number:016x}/{client}/chat"));
        let cells = [Cell { key: &key, value: Some(&[7; 56]) }, Cell { key: &expiry, value: Some(&[]) }];
        store.apply(&cells, &[Cell { key: &key, value: None }]).unwrap();
    }
    let (took, counted) = (began.elapsed(), store.bytes());
    let used = resident() - before;
    eprintln!(
        "{} B used and {} B counted for each, {} ns to store one",
        used / ASSIGNMENTS,
        counted / ASSIGNMENTS,
        took.as_nanos() / u128::from(ASSIGNMENTS)
    );
    let part = counted as f64 / used as f64;
    assert!((0.8..1.2).contains(&part), "{part:.2} of what is used is counted");
}
