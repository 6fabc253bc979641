//! Small numbers in place of texts, so that an assignment takes few bytes and finding its server
//! takes no string comparison. A number is never used again for another text.

use std::{collections::HashMap, sync::Arc};

use parking_lot::RwLock;

/// Gives numbers to the texts of services and servers.
#[derive(Default)]
pub struct Numbers(RwLock<Known>);

#[derive(Default)]
struct Known {
    by_text: HashMap<Arc<str>, u32>,
    by_number: HashMap<u32, Arc<str>>,
    next: u32,
}

impl Numbers {
    /// The number of a text; a new one the first time.
    pub fn of(&self, text: &str) -> u32 {
        if let Some(number) = self.get(text) {
            return number;
        }
        let mut known = self.0.write();
        if let Some(number) = known.by_text.get(text) {
            return *number;
        }
        let (text, number) = (Arc::<str>::from(text), known.next);
        known.next = number.checked_add(1).expect("a process sees fewer than four billion servers");
        known.by_text.insert(Arc::clone(&text), number);
        known.by_number.insert(number, text);
        number
    }

    /// The number of a text that has one.
    pub fn get(&self, text: &str) -> Option<u32> {
        self.0.read().by_text.get(text).copied()
    }

    /// The text with this number, unless it was forgotten.
    pub fn text(&self, number: u32) -> Option<Arc<str>> {
        self.0.read().by_number.get(&number).cloned()
    }

    /// How many texts have a number.
    pub fn len(&self) -> usize {
        self.0.read().by_text.len()
    }

    /// Whether none has.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The number that the next new text gets: all before it are known or forgotten.
    pub fn next(&self) -> u32 {
        self.0.read().next
    }

    /// Forgets every text whose number is below `before` and not `used`.
    pub fn retain(&self, before: u32, used: impl Fn(u32) -> bool) {
        let keep = |number: u32| number >= before || used(number);
        let mut known = self.0.write();
        known.by_text.retain(|_, number| keep(*number));
        known.by_number.retain(|number, _| keep(*number));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_kept_and_never_used_again() {
        let numbers = Numbers::default();
        let (a, b) = (numbers.of("a"), numbers.of("b"));
        assert_ne!(a, b);
        assert_eq!((numbers.of("a"), numbers.get("b"), numbers.get("c")), (a, Some(b), None));
        numbers.retain(numbers.next(), |number| number == b);
        assert_eq!((numbers.text(a), numbers.text(b).as_deref(), numbers.len()), (None, Some("b"), 1));
        assert!(numbers.of("a") > b);
    }
}
