//! What Redis answers (RESP2), read off the bytes as they come.

use message_flow_sdk::routing_table::TableError;

/// An answer.
#[derive(Debug)]
pub(crate) enum Reply {
    Nothing,
    Number(i64),
    Text(String),
    List(Vec<Reply>),
    Error(String),
}

/// No answer nests deeper.
const DEPTH: usize = 8;

/// What is wrong with what came.
pub(crate) struct Malformed;

/// The answer at the start of `bytes` and how long it is; none: there is more to come.
pub(crate) fn parse(bytes: &[u8]) -> Result<Option<(Reply, usize)>, Malformed> {
    parse_within(bytes, DEPTH)
}

fn parse_within(bytes: &[u8], depth: usize) -> Result<Option<(Reply, usize)>, Malformed> {
    let Some(end) = bytes.windows(2).position(|two| two == b"\r\n") else { return Ok(None) };
    let line = str::from_utf8(&bytes[..end]).map_err(|_| Malformed)?;
    let (sort, rest) = line.split_at_checked(1).ok_or(Malformed)?;
    let after = end + 2;
    let number = || rest.parse::<i64>().map_err(|_| Malformed);
    Ok(match sort {
        "+" => Some((Reply::Text(rest.to_owned()), after)),
        "-" => Some((Reply::Error(rest.to_owned()), after)),
        ":" => Some((Reply::Number(number()?), after)),
        "$" => match usize::try_from(number()?) {
            Err(_) => Some((Reply::Nothing, after)),
            Ok(length) => bytes.get(after..after + length + 2).map(|text| {
                (Reply::Text(String::from_utf8_lossy(&text[..length]).into_owned()), after + length + 2)
            }),
        },
        "*" => match usize::try_from(number()?) {
            Err(_) => Some((Reply::Nothing, after)),
            Ok(_) if depth == 0 => return Err(Malformed),
            Ok(count) => list(bytes, after, count, depth)?,
        },
        _ => return Err(Malformed),
    })
}

fn list(
    bytes: &[u8],
    mut at: usize,
    count: usize,
    depth: usize,
) -> Result<Option<(Reply, usize)>, Malformed> {
    let mut items = Vec::new();
    for _ in 0..count {
        let Some((item, length)) = parse_within(&bytes[at..], depth - 1)? else { return Ok(None) };
        items.push(item);
        at += length;
    }
    Ok(Some((Reply::List(items), at)))
}

impl Reply {
    pub(crate) fn list(self) -> Result<Vec<Self>, TableError> {
        match self {
            Self::List(items) => Ok(items),
            Self::Nothing => Ok(Vec::new()),
            other => Err(other.unexpected("a list")),
        }
    }

    pub(crate) fn text(self) -> Result<String, TableError> {
        match self {
            Self::Text(text) => Ok(text),
            other => Err(other.unexpected("a text")),
        }
    }

    pub(crate) fn option(self) -> Result<Option<String>, TableError> {
        if matches!(self, Self::Nothing) { Ok(None) } else { self.text().map(Some) }
    }

    pub(crate) fn number(self) -> Result<u64, TableError> {
        match self {
            Self::Number(number) => {
                u64::try_from(number).map_err(|_| Self::Number(number).unexpected("a count"))
            }
            Self::Text(text) => text.parse().map_err(|_| Self::Text(text).unexpected("a number")),
            other => Err(other.unexpected("a number")),
        }
    }

    fn unexpected(&self, wanted: &str) -> TableError {
        let found: String = format!("{self:?}").chars().take(100).collect();
        TableError::Invalid(format!("redis answered {found} where {wanted} belongs"))
    }
}
