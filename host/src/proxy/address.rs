//! Which service a message is for: its target is read once, and then a route, a header or the first
//! segment of the path names the service.
//!
//! Whatever comes after [`read`] sees the same: the path in normal form and the host in `host`. So
//! does the server, since nobody else writes the target.

use std::borrow::Cow;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Uri, header, request::Parts, uri::PathAndQuery};

use super::{
    plan::{Found, Plan, ServicePlan},
    respond::Refusal,
    routes::{self, Target},
};
use crate::{
    authority,
    config::EncodedSlashes,
    path::{self, Normal},
};

const SERVICE: HeaderName = HeaderName::from_static("message-flow-service");
const VERSION: HeaderName = HeaderName::from_static("message-flow-version");

/// What was found out about a target.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Read {
    /// Its path holds encoded slashes, which not everybody reads alike.
    encoded_slashes: bool,
    /// A plugin of this router sends it.
    inside: bool,
}

/// The service of a message, and what becomes of its target.
pub(super) struct Address<'p> {
    pub(super) found: Found<'p>,
    pub(super) change: Change,
}

/// What becomes of a message's target.
pub(super) enum Change {
    Nothing,
    /// It loses so many bytes at its beginning; what is left begins with `/`.
    Cut(usize),
    To(Uri),
}

impl Change {
    /// To the last part of a path and query.
    fn to_rest(path_and_query: &str, rest: &str) -> Result<Self, Refusal> {
        match rest.starts_with('/') {
            true => Ok(Self::Cut(path_and_query.len() - rest.len())),
            false => target(rest).map(Self::To),
        }
    }
}

/// Reads the target of a request, whose authorities are known to be some. From here on it is a path
/// in normal form, and `host` is what it was sent to, since the host of an absolute target goes before
/// that header (RFC 9112, section 3.2.2).
pub(super) fn read(head: &mut Parts, inside: bool) -> Result<Read, Refusal> {
    if let Some(authority) = head.uri.authority() {
        let host = HeaderValue::from_str(authority.as_str());
        let host = host.map_err(|_| Refusal::Malformed("the request's target has no valid host"))?;
        head.headers.insert(header::HOST, host);
        let path = head.uri.path_and_query().cloned();
        head.uri = Uri::from(path.unwrap_or_else(|| PathAndQuery::from_static("/")));
    }
    if path_and_query(head) == "*" && head.method == Method::OPTIONS {
        return Ok(Read { inside, ..Read::default() });
    }
    let Normal { target: normal, encoded_slashes } = path::normal(path_and_query(head))?;
    if let Cow::Owned(normal) = normal {
        head.uri = target(&normal)?;
    }
    Ok(Read { encoded_slashes, inside })
}

/// The service of a message whose target was [`read`]; `names_service`: it has the header for that.
pub(super) fn find<'p>(
    plan: &'p Plan,
    head: &Parts,
    read: Read,
    names_service: bool,
) -> Result<Address<'p>, Refusal> {
    if !plan.routes.is_empty() {
        return find_by_route(plan, head, read);
    }
    read.admit(plan.settings.encoded_slashes)?;
    if names_service && let Some(name) = head.headers.get(SERVICE) {
        let named = named_by_headers(name, head.headers.get(VERSION))?;
        return Ok(Address { found: known(plan, &named, read)?, change: Change::Nothing });
    }
    let path = path_and_query(head);
    let (segment, rest) = first_segment(path).ok_or_else(|| unnamed(head, Refusal::NoService))?;
    // `chat%402` is `chat@2`: some clients encode all that they are not sure of.
    let segment = path::decoded(segment).ok_or(Refusal::NoService)?;
    Ok(Address { found: known(plan, &segment, read)?, change: Change::to_rest(path, rest)? })
}

fn find_by_route<'p>(plan: &'p Plan, head: &Parts, read: Read) -> Result<Address<'p>, Refusal> {
    let host = authority::host(super::sources::authority(head));
    let target_of =
        Target { host: &host, path: head.uri.path(), method: &head.method, headers: &head.headers };
    let Some(route) = plan.routes.find(&target_of) else {
        read.admit(plan.settings.encoded_slashes)?;
        return Err(unnamed(head, Refusal::NoRoute));
    };
    read.admit(route.encoded_slashes.unwrap_or(plan.settings.encoded_slashes))?;
    let change = match &route.path {
        Some(prefix) if route.strip => Change::To(target(&routes::strip(path_and_query(head), prefix))?),
        _ => Change::Nothing,
    };
    Ok(Address { found: known(plan, route.service.as_str(), read)?, change })
}

/// `OPTIONS *` without a service asks the router itself (RFC 9110, section 9.3.7).
fn unnamed(head: &Parts, refusal: Refusal) -> Refusal {
    if head.uri.path() == "*" { Refusal::Options } else { refusal }
}

impl Read {
    /// Whether a service is there for whoever sends the message.
    pub(super) fn may_reach(self, plan: &ServicePlan) -> bool {
        plan.service.record.public || self.inside
    }

    fn admit(self, policy: EncodedSlashes) -> Result<(), Refusal> {
        match policy {
            EncodedSlashes::Refuse if self.encoded_slashes => Err(Refusal::EncodedSlashes),
            _ => Ok(()),
        }
    }
}

fn path_and_query(head: &Parts) -> &str {
    head.uri.path_and_query().map_or("/", PathAndQuery::as_str)
}

fn named_by_headers<'a>(
    name: &'a HeaderValue,
    version: Option<&HeaderValue>,
) -> Result<Cow<'a, str>, Refusal> {
    let text = |value: &'a HeaderValue| value.to_str().map_err(|_| Refusal::NoService);
    let name = text(name)?;
    Ok(match version {
        Some(version) => format!("{name}@{}", version.to_str().map_err(|_| Refusal::NoService)?).into(),
        None => name.into(),
    })
}

fn known<'p>(plan: &'p Plan, text: &str, read: Read) -> Result<Found<'p>, Refusal> {
    match plan.find(text) {
        Found::Unreleased if plan.versions(text).any(|version| read.may_reach(version)) => {
            Err(Refusal::Unreleased(text.to_owned()))
        }
        Found::Unreleased => Err(unknown(plan, text)),
        Found::Service(found) if !read.may_reach(found) => Err(unknown(plan, text)),
        Found::Unknown => Err(unknown(plan, text)),
        found => Ok(found),
    }
}

/// What is said of a service that is not there, and of one that is not there for everybody. Before the
/// table was read nobody knows what is there.
pub(super) fn unknown(plan: &Plan, text: &str) -> Refusal {
    let text = text.chars().take(200).collect();
    if plan.view.is_read() { Refusal::UnknownService(text) } else { Refusal::TableUnread(text) }
}

/// `/chat/a?b` is `chat` and `/a?b`; `/chat?b` is `chat` and `?b`.
fn first_segment(path: &str) -> Option<(&str, &str)> {
    let path = path.strip_prefix('/')?;
    let end = memchr::memchr2(b'/', b'?', path.as_bytes()).unwrap_or(path.len());
    (end > 0).then(|| path.split_at(end))
}

/// A target that starts with `/`, out of the rest of one.
pub(super) fn target(rest: &str) -> Result<Uri, Refusal> {
    let invalid = |_| Refusal::Malformed("the request's target is no path");
    let path = match rest {
        "" | "/" => PathAndQuery::from_static("/"),
        rest if rest.starts_with('/') => {
            PathAndQuery::from_maybe_shared(Bytes::copy_from_slice(rest.as_bytes())).map_err(invalid)?
        }
        query => PathAndQuery::from_maybe_shared(Bytes::from(format!("/{query}"))).map_err(invalid)?,
    };
    Ok(Uri::from(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_segments() {
        for (path, expect) in [
            ("/chat/a?b", Some(("chat", "/a?b"))),
            ("/chat", Some(("chat", ""))),
            ("/chat@2/", Some(("chat@2", "/"))),
            ("/chat?b=/c", Some(("chat", "?b=/c"))),
            ("/", None),
            ("//chat", None),
            ("*", None),
        ] {
            assert_eq!(first_segment(path), expect, "{path}");
        }
    }

    #[test]
    fn targets() {
        for (rest, expect) in [("", "/"), ("/", "/"), ("/a?b", "/a?b"), ("?b", "/?b"), ("//a", "//a")] {
            assert_eq!(target(rest).unwrap().to_string(), expect);
        }
    }

    #[test]
    fn a_target_is_read_once() {
        for (uri, expect, host) in [
            ("/%61//b?c", "/a/b?c", "header"),
            ("http://one/../", "", ""),
            ("http://one:81?x=1", "/?x=1", "one:81"),
            ("http://one", "/", "one"),
            ("/a/b", "/a/b", "header"),
        ] {
            let mut head = http::Request::new(()).into_parts().0;
            head.uri = uri.parse().unwrap();
            head.headers.insert(header::HOST, HeaderValue::from_static("header"));
            match read(&mut head, false) {
                Ok(_) => {
                    assert_eq!(
                        (head.uri.to_string(), head.headers["host"].to_str().unwrap()),
                        (expect.to_owned(), host),
                        "{uri}"
                    )
                }
                Err(refusal) => assert!(expect.is_empty(), "{uri}: {refusal}"),
            }
        }
    }
}
