//! Between our types and the client library's.

use etcd_client::{
    Compare, CompareOp, DeleteOptions, Error, EventType, GetOptions, GetResponse, PutOptions, Txn, TxnOp,
    TxnOpResponse, TxnResponse, WatchOptions,
};

use super::{
    Comparison, EtcdError, Event, KeyRange, KeyValue, Operation, Outcome, Page, Revision, Transaction,
};

/// The most keys of one page.
const PAGE: u32 = 10_000;

// gRPC's status codes, of which the library names the type but does not export it.
const CANCELLED: i32 = 1;
const UNKNOWN: i32 = 2;
const INVALID_ARGUMENT: i32 = 3;
const DEADLINE_EXCEEDED: i32 = 4;
const PERMISSION_DENIED: i32 = 7;
const RESOURCE_EXHAUSTED: i32 = 8;
const FAILED_PRECONDITION: i32 = 9;
const OUT_OF_RANGE: i32 = 11;
const INTERNAL: i32 = 13;
const UNAVAILABLE: i32 = 14;
const UNAUTHENTICATED: i32 = 16;

pub(super) fn get_options(
    keys: &KeyRange,
    limit: u32,
    at: Option<Revision>,
) -> Result<GetOptions, EtcdError> {
    let options = GetOptions::new().with_limit(i64::from(limit.clamp(1, PAGE)));
    let options = match &keys.end {
        Some(end) => options.with_range(end.as_str()),
        None => options,
    };
    Ok(match at {
        Some(at) => options.with_revision(signed(at)?),
        None => options,
    })
}

pub(super) fn watch_options(keys: &KeyRange, after: Revision) -> Result<WatchOptions, EtcdError> {
    let start = signed(after)?.saturating_add(1);
    let options = WatchOptions::new().with_start_revision(start).with_progress_notify().with_fragment();
    Ok(match &keys.end {
        Some(end) => options.with_range(end.as_str()),
        None => options,
    })
}

pub(super) fn page(mut response: GetResponse) -> Page {
    let revision = response.header().map_or(0, |header| unsigned(header.revision()));
    let entries = response.take_kvs().into_iter().map(key_value).collect();
    Page { entries, more: response.more(), revision }
}

pub(super) fn transaction(of: &Transaction, lease: i64) -> Result<Txn, EtcdError> {
    let when = of.when.iter().map(comparison).collect::<Result<Vec<_>, _>>()?;
    let operations =
        |of: &[Operation]| of.iter().map(|operation_of| operation(operation_of, lease)).collect::<Vec<_>>();
    Ok(Txn::new().when(when).and_then(operations(&of.then)).or_else(operations(&of.otherwise)))
}

fn comparison(of: &Comparison) -> Result<Compare, EtcdError> {
    Ok(match of {
        Comparison::Modified(key, at) => Compare::mod_revision(key.as_str(), CompareOp::Equal, signed(*at)?),
        Comparison::NoneModifiedAfter(keys, after) => {
            let next = signed(*after)?.saturating_add(1);
            let compare = Compare::mod_revision(keys.start.as_str(), CompareOp::Less, next);
            match &keys.end {
                Some(end) => compare.with_range(end.as_str()),
                None => compare,
            }
        }
    })
}

fn operation(of: &Operation, lease: i64) -> TxnOp {
    match of {
        Operation::Put { key, value, leased } => {
            let options = leased.then(|| PutOptions::new().with_lease(lease));
            TxnOp::put(key.as_str(), value.as_slice(), options)
        }
        Operation::Delete(keys) => {
            let options = keys.end.as_ref().map(|end| DeleteOptions::new().with_range(end.as_str()));
            TxnOp::delete(keys.start.as_str(), options)
        }
        Operation::Get(key) => TxnOp::get(key.as_str(), None),
    }
}

pub(super) fn outcome(response: &TxnResponse) -> Outcome {
    let found = response.op_responses().into_iter().filter_map(|response| match response {
        TxnOpResponse::Get(mut found) => Some(found.take_kvs().pop().map(key_value)),
        _ => None,
    });
    Outcome {
        succeeded: response.succeeded(),
        found: found.collect(),
        revision: response.header().map_or(0, |header| unsigned(header.revision())),
    }
}

pub(super) fn event(of: &etcd_client::Event) -> Option<Event> {
    let kv = of.kv()?;
    let deleted = of.event_type() == EventType::Delete;
    Some(Event {
        key: String::from_utf8_lossy(kv.key()).into_owned(),
        value: (!deleted).then(|| kv.value().to_vec()),
        revision: unsigned(kv.mod_revision()),
        version: unsigned(kv.version()),
    })
}

fn key_value(of: etcd_client::KeyValue) -> KeyValue {
    let (modified, version) = (unsigned(of.mod_revision()), unsigned(of.version()));
    let (key, value) = of.into_key_value();
    let key =
        String::from_utf8(key).unwrap_or_else(|key| String::from_utf8_lossy(key.as_bytes()).into_owned());
    KeyValue { key, value, modified, version }
}

pub(super) fn signed(revision: Revision) -> Result<i64, EtcdError> {
    i64::try_from(revision).map_err(|_| EtcdError::Invalid(format!("revision {revision} is too large")))
}

pub(super) fn unsigned(revision: i64) -> u64 {
    u64::try_from(revision).unwrap_or(0)
}

pub(super) fn error(of: &Error) -> EtcdError {
    let Error::GRpcStatus(status) = of else {
        return match of {
            Error::LeaseKeepAliveError(cause) => EtcdError::Other(cause.clone()),
            Error::InvalidArgs(_) | Error::InvalidUri(_) | Error::InvalidMetadataValue(_) => {
                EtcdError::Invalid(of.to_string())
            }
            _ => EtcdError::Unavailable(with_sources(of.to_string(), of)),
        };
    };
    let message = status.message().trim_start_matches("etcdserver: ").to_owned();
    match i32::from(status.code()) {
        PERMISSION_DENIED | UNAUTHENTICATED => EtcdError::Denied(message),
        INVALID_ARGUMENT | FAILED_PRECONDITION if message.contains("authentication") => {
            EtcdError::Denied(message)
        }
        INVALID_ARGUMENT => EtcdError::Invalid(message),
        OUT_OF_RANGE if message.contains("compacted") => EtcdError::Compacted(0),
        OUT_OF_RANGE => EtcdError::Invalid(message),
        // Reads go on; somebody has to make room, and then disarm its alarm.
        RESOURCE_EXHAUSTED if message.contains("space exceeded") => EtcdError::Denied(message),
        RESOURCE_EXHAUSTED if message.contains("too many requests") => EtcdError::Unavailable(message),
        _ if is_loss(of) => EtcdError::Unavailable(with_sources(message, status)),
        _ => EtcdError::Other(message),
    }
}

/// Whether the connection, or the member at its other end, is of no more use.
pub(super) fn is_loss(error: &Error) -> bool {
    match error {
        Error::GRpcStatus(status) => match i32::from(status.code()) {
            CANCELLED | DEADLINE_EXCEEDED | INTERNAL | UNAVAILABLE => true,
            // The library's own errors; etcd's start with its name.
            UNKNOWN => !status.message().starts_with("etcdserver"),
            _ => false,
        },
        Error::TransportError(_) | Error::IoError(_) | Error::WatchError(_) | Error::EndpointError(_) => true,
        _ => false,
    }
}

/// Whether to authenticate again would help. The library itself sees to tokens that expired.
pub(super) fn is_stale_authentication(error: &Error) -> bool {
    matches!(error, Error::GRpcStatus(status) if status.message().contains("revision of auth store is old"))
}

pub(super) fn is_lost_lease(error: &EtcdError) -> bool {
    matches!(error, EtcdError::Other(message) if message.contains("lease not found"))
}

/// The error's text and those of its causes that say more: what failed is often only in the last.
fn with_sources(mut text: String, error: &dyn std::error::Error) -> String {
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}
