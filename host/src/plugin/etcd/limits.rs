//! etcd's limits, checked before anything is sent, so that the error says what is too large.

use super::{Comparison, EtcdError, KeyRange, Operation, Transaction};
use crate::text::shown;

/// etcd's `--max-txn-ops`, by default.
const OPERATIONS: usize = 128;
/// etcd's `--max-request-bytes` is 1.5 MiB by default; some of it is for the encoding.
const REQUEST_BYTES: usize = 1536 * 1024 - 16 * 1024;
/// The most bytes of a key.
const KEY_BYTES: usize = 64 << 10;
/// What the encoding takes for each operation, and a little more.
const OPERATION_BYTES: usize = 48;

pub(super) fn check(transaction: &Transaction) -> Result<(), EtcdError> {
    let Transaction { when, then, otherwise } = transaction;
    for (count, what) in
        [(when.len(), "comparisons"), (then.len(), "operations"), (otherwise.len(), "operations")]
    {
        if count > OPERATIONS {
            return Err(EtcdError::Invalid(format!(
                "{count} {what} in a transaction; it takes at most {OPERATIONS}"
            )));
        }
    }
    let compared: usize = when.iter().map(compared_bytes).sum();
    let operated: usize = then.iter().chain(otherwise).map(operation_bytes).sum();
    let bytes = compared + operated;
    if bytes > REQUEST_BYTES {
        return Err(EtcdError::Invalid(format!(
            "a transaction of {bytes} bytes; it takes at most {REQUEST_BYTES}"
        )));
    }
    for keys in ranges(transaction) {
        check_range(keys)?;
    }
    check_keys(then)?;
    check_keys(otherwise)
}

pub(super) fn check_range(keys: &KeyRange) -> Result<(), EtcdError> {
    if keys.start.len().max(keys.end.as_ref().map_or(0, String::len)) > KEY_BYTES {
        return Err(EtcdError::Invalid(format!("a key of more than {KEY_BYTES} bytes")));
    }
    match &keys.end {
        _ if keys.start.is_empty() => Err(EtcdError::Invalid("an empty key".into())),
        // "\0" stands for: to the last key there is.
        Some(end) if *end <= keys.start && end != "\0" => Err(EtcdError::Invalid(format!(
            "a range that ends at `{}`, before it begins at `{}`",
            shown(end),
            shown(&keys.start)
        ))),
        _ => Ok(()),
    }
}

fn check_keys(operations: &[Operation]) -> Result<(), EtcdError> {
    let mut put = std::collections::HashSet::new();
    for operation in operations {
        match operation {
            Operation::Put { key, .. } | Operation::Get(key) if key.is_empty() => {
                return Err(EtcdError::Invalid("an empty key".into()));
            }
            Operation::Put { key, .. } if !put.insert(key) => {
                return Err(EtcdError::Invalid(format!("two values for `{}` in a transaction", shown(key))));
            }
            _ => {}
        }
    }
    Ok(())
}

fn ranges(transaction: &Transaction) -> impl Iterator<Item = &KeyRange> {
    let compared = transaction.when.iter().filter_map(|comparison| match comparison {
        Comparison::NoneModifiedAfter(keys, _) => Some(keys),
        Comparison::Modified(..) => None,
    });
    let deleted =
        transaction.then.iter().chain(&transaction.otherwise).filter_map(|operation| match operation {
            Operation::Delete(keys) => Some(keys),
            _ => None,
        });
    compared.chain(deleted)
}

fn compared_bytes(comparison: &Comparison) -> usize {
    let keys = match comparison {
        Comparison::Modified(key, _) => key.len(),
        Comparison::NoneModifiedAfter(keys, _) => range_bytes(keys),
    };
    keys + OPERATION_BYTES
}

fn operation_bytes(operation: &Operation) -> usize {
    let content = match operation {
        Operation::Put { key, value, .. } => key.len() + value.len(),
        Operation::Delete(keys) => range_bytes(keys),
        Operation::Get(key) => key.len(),
    };
    content + OPERATION_BYTES
}

fn range_bytes(keys: &KeyRange) -> usize {
    keys.start.len() + keys.end.as_ref().map_or(0, String::len)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(key: &str, bytes: usize) -> Operation {
        Operation::Put { key: key.into(), value: vec![0; bytes], leased: false }
    }

    fn refusal(then: Vec<Operation>) -> String {
        let checked = check(&Transaction { then, ..Transaction::default() });
        checked.err().map(|error| error.to_string()).unwrap_or_default()
    }

    #[test]
    fn says_what_is_too_large() {
        assert_eq!(refusal((0..128).map(|n| put(&n.to_string(), 10)).collect()), "");
        assert!(refusal((0..129).map(|n| put(&n.to_string(), 0)).collect()).contains("129 operations"));
        assert_eq!(refusal(vec![put("a", 1 << 20)]), "");
        assert!(refusal(vec![put("a", 1 << 20), put("b", 1 << 20)]).contains("at most"));
    }

    #[test]
    fn refuses_what_etcd_would() {
        assert!(refusal(vec![put("", 1)]).contains("empty key"));
        assert!(refusal(vec![put("a", 1), put("a", 1)]).contains("two values for `a`"));
        let range = |start: &str, end: &str| KeyRange { start: start.into(), end: Some(end.into()) };
        assert!(refusal(vec![Operation::Delete(range("b", "a"))]).contains("before it begins"));
        assert_eq!(refusal(vec![Operation::Delete(range("b", "\0"))]), "");
        let long = "k".repeat(KEY_BYTES + 1);
        assert!(refusal(vec![Operation::Delete(range(&long, "l"))]).contains("more than 65536 bytes"));
    }
}
