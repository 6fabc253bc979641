//! Conditional requests (RFC 9110, section 13): tags of what there is, and the conditions that a request makes of
//! them. One implementation for everything that has a tag.
//!
//! A tag is made of what somebody wrote, and of what is shown beside that: how a server is, what is on its way. A
//! reader's condition (`If-None-Match`) is about all that it was shown. A writer's (`If-Match`) is about what was
//! written, because that is what it replaces: health that changed meanwhile takes no write away from anybody.

use axum::{
    Json,
    extract::FromRequestParts,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::problem::{Kind, Problem};

/// Tags in one header; more are a mistake.
const MOST: usize = 64;

/// What there is, as an `ETag` says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tag {
    /// Differs when what was written differs.
    written: String,
    /// Differs when what is shown besides differs; none: nothing is.
    shown: Option<String>,
}

impl Tag {
    /// Of what somebody wrote, and of what is shown of it.
    pub(super) fn new(written: &impl Serialize, shown: &impl Serialize) -> Self {
        Self { written: digest(written), shown: Some(digest(shown)) }
    }

    /// Of something that has a number of its own, and of what the number does not say.
    pub(super) fn numbered(number: u64, besides: Option<&impl Serialize>) -> Self {
        Self { written: number.to_string(), shown: besides.map(digest) }
    }

    fn opaque(&self) -> String {
        match &self.shown {
            Some(shown) => format!("{}-{shown}", self.written),
            None => self.written.clone(),
        }
    }

    /// As the `ETag` header has it.
    pub(super) fn header(&self) -> (HeaderName, HeaderValue) {
        let value = HeaderValue::try_from(format!("\"{}\"", self.opaque()));
        (header::ETAG, value.unwrap_or_else(|_| HeaderValue::from_static("\"\"")))
    }

    /// An answer with this tag.
    pub(super) fn answer(&self, status: StatusCode, body: &impl Serialize) -> Response {
        (status, [self.header()], Json(body)).into_response()
    }
}

fn digest(value: &impl Serialize) -> String {
    let json = serde_json::to_vec(value).unwrap_or_default();
    Sha256::digest(json).iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// The conditions of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Condition {
    /// `If-Match`.
    same: Option<Listed>,
    /// `If-None-Match`.
    other: Option<Listed>,
}

/// The tags that a condition names.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Listed {
    /// `*`: whatever there is.
    Any,
    These(Vec<Named>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Named {
    weak: bool,
    opaque: String,
}

impl<S: Sync> FromRequestParts<S> for Condition {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        Self::read(&parts.headers)
    }
}

impl Condition {
    fn read(headers: &HeaderMap) -> Result<Self, Problem> {
        Ok(Self { same: listed(headers, header::IF_MATCH)?, other: listed(headers, header::IF_NONE_MATCH)? })
    }

    /// Whether there is none.
    pub(super) fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// Refuses a write unless what there is, if anything, is what the request expects.
    pub(super) fn must_hold(&self, current: Option<&Tag>) -> Result<(), Problem> {
        self.must_match(current)?;
        match &self.other {
            Some(other) if other.shows(current) => Err(failed("If-None-Match", current)),
            _ => Ok(()),
        }
    }

    /// Answers a read with what there is, or only says that it is what the reader has.
    pub(super) fn answer(&self, tag: &Tag, body: &impl Serialize) -> Result<Response, Problem> {
        self.must_match(Some(tag))?;
        match &self.other {
            Some(other) if other.shows(Some(tag)) => {
                Ok((StatusCode::NOT_MODIFIED, [tag.header()]).into_response())
            }
            _ => Ok(tag.answer(StatusCode::OK, body)),
        }
    }

    fn must_match(&self, current: Option<&Tag>) -> Result<(), Problem> {
        match &self.same {
            Some(same) if !same.is_of(current) => Err(failed("If-Match", current)),
            _ => Ok(()),
        }
    }
}

impl Listed {
    /// The strong comparison: a weak tag is the same as none.
    fn is_of(&self, current: Option<&Tag>) -> bool {
        let Some(current) = current else { return false };
        let is = |named: &Named| {
            let written = named.opaque.split('-').next().unwrap_or_default();
            !named.weak && written == current.written
        };
        match self {
            Self::Any => true,
            Self::These(these) => these.iter().any(is),
        }
    }

    /// The weak comparison, of all that is shown.
    fn shows(&self, current: Option<&Tag>) -> bool {
        let Some(current) = current else { return false };
        match self {
            Self::Any => true,
            Self::These(these) => these.iter().any(|named| named.opaque == current.opaque()),
        }
    }
}

fn failed(condition: &str, current: Option<&Tag>) -> Problem {
    let now = match current {
        Some(tag) => format!("it is at \"{}\" now", tag.opaque()),
        None => "there is nothing".to_owned(),
    };
    let detail = format!("`{condition}` does not hold: {now}; read it and decide again");
    let problem = Problem::new(Kind::ConditionFailed, detail);
    match current.map(Tag::header) {
        Some((name, value)) => problem.with(name, value),
        None => problem,
    }
}

fn listed(headers: &HeaderMap, name: HeaderName) -> Result<Option<Listed>, Problem> {
    let mut lines = headers.get_all(&name).iter().peekable();
    if lines.peek().is_none() {
        return Ok(None);
    }
    let wrong = || {
        let detail = format!("`{name}` is not `*` or a list of tags, such as \"1f-2e\", as in the `ETag`");
        Problem::new(Kind::Malformed, detail)
    };
    let mut named = Vec::new();
    let mut any = false;
    for line in lines {
        let line = line.to_str().map_err(|_| wrong())?.trim();
        match line {
            "*" => any = true,
            line => tags(line, &mut named).ok_or_else(wrong)?,
        }
    }
    match (any, named.is_empty()) {
        (true, true) => Ok(Some(Listed::Any)),
        (false, false) if named.len() <= MOST => Ok(Some(Listed::These(named))),
        _ => Err(wrong()),
    }
}

/// The tags of one line. One without its quotes is taken, as people type numbers so.
fn tags(line: &str, named: &mut Vec<Named>) -> Option<()> {
    let mut rest = line;
    while !rest.is_empty() {
        let weak = rest.starts_with("W/");
        rest = if weak { &rest[2..] } else { rest };
        let opaque = match rest.strip_prefix('"') {
            Some(quoted) => {
                let (opaque, after) = quoted.split_once('"')?;
                rest = after;
                opaque
            }
            None if weak => return None,
            None => {
                let end = rest.find(',').unwrap_or(rest.len());
                let bare = rest[..end].trim_end();
                rest = &rest[end..];
                Some(bare)
                    .filter(|bare| bare.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-'))?
            }
        };
        let valid = opaque.bytes().all(|byte| byte > b' ' && byte != b'"' && byte != 0x7f);
        if !valid {
            return None;
        }
        named.push(Named { weak, opaque: opaque.to_owned() });
        rest = rest.trim_start();
        rest = match rest.strip_prefix(',') {
            Some(more) => more.trim_start_matches([',', ' ', '\t']),
            None if rest.is_empty() => rest,
            None => return None,
        };
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn condition(lines: &[(&'static str, &str)]) -> Result<Condition, u16> {
        let lines = lines.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
        Condition::read(&lines.collect()).map_err(|problem| problem.status().as_u16())
    }

    fn write(lines: &[(&'static str, &str)], current: Option<&Tag>) -> u16 {
        let held = condition(lines).unwrap().must_hold(current);
        held.map_or_else(|problem| problem.status().as_u16(), |()| 200)
    }

    fn read(lines: &[(&'static str, &str)], current: &Tag) -> u16 {
        let answer = condition(lines).unwrap().answer(current, &1);
        answer.unwrap_or_else(IntoResponse::into_response).status().as_u16()
    }

    #[test]
    fn writes_depend_on_what_was_written() {
        const MATCH: &str = "if-match";
        let tag = Tag { written: "a1".into(), shown: Some("b2".into()) };
        for (value, there, nothing) in [
            ("*", 200, 412),
            ("\"a1-b2\"", 200, 412),
            ("\"a1-c3\"", 200, 412),
            ("\"a1\"", 200, 412),
            ("a1", 200, 412),
            ("\"x\", \"a1-b2\"", 200, 412),
            ("\"x,y\" ,, \"a1-b2\"", 200, 412),
            ("W/\"a1-b2\"", 412, 412),
            ("\"b2\"", 412, 412),
            ("\"x\"", 412, 412),
            ("\"\"", 412, 412),
        ] {
            assert_eq!(write(&[(MATCH, value)], Some(&tag)), there, "{value}");
            assert_eq!(write(&[(MATCH, value)], None), nothing, "{value}");
            assert_eq!(read(&[(MATCH, value)], &tag), there, "{value}");
        }
        assert_eq!(
            write(&[(MATCH, "\"x\""), (MATCH, "\"a1-b2\"")], Some(&tag)),
            200,
            "two lines are one list"
        );
        assert_eq!(write(&[], None), 200);
    }

    #[test]
    fn reads_depend_on_what_is_shown() {
        const NONE: &str = "if-none-match";
        let tag = Tag { written: "a1".into(), shown: Some("b2".into()) };
        for (value, get, put) in [
            ("*", 304, 412),
            ("\"a1-b2\"", 304, 412),
            ("W/\"a1-b2\"", 304, 412),
            ("\"x\", W/\"a1-b2\"", 304, 412),
            ("\"a1-c3\"", 200, 200),
            ("\"a1\"", 200, 200),
        ] {
            assert_eq!(read(&[(NONE, value)], &tag), get, "{value}");
            assert_eq!(write(&[(NONE, value)], Some(&tag)), put, "{value}");
            assert_eq!(write(&[(NONE, value)], None), 200, "{value}");
        }
        // `If-Match` goes first, whatever the other says.
        assert_eq!(read(&[(NONE, "*"), ("if-match", "\"x\"")], &tag), 412);
    }

    #[test]
    fn what_is_no_list_of_tags_is_malformed() {
        for value in ["", "\"a", "\"a\" \"b\"", "W/a", "*, \"a\"", "a b", "\"a b\"", "w/\"a\""] {
            let read = condition(&[("if-match", value)]);
            assert_eq!(read, Err(400), "{value}");
        }
        let many = vec!["\"a\""; MOST + 1].join(",");
        assert_eq!(condition(&[("if-none-match", &many)]), Err(400));
    }
}
