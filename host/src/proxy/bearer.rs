//! The bearer token of a message, and what is believed of it.

use std::sync::Arc;

use http::{HeaderMap, HeaderValue, header};

use super::{Settings, Worker, respond::Refusal};
use crate::token::{Doubt, Looked, Verified};

/// What the token of a message says, if there is one and it is to be believed. One that is not
/// counts as none, unless the configuration requires one.
pub(super) fn verified(
    worker: &Worker,
    settings: &Settings,
    headers: &HeaderMap,
) -> Result<Option<Arc<Verified>>, Refusal> {
    let Some(verifier) = &settings.token else { return Ok(None) };
    let looked = token(headers).map(|token| worker.tokens.verify(verifier, token?, worker.unix() / 1000));
    match &looked {
        Some(Ok(Looked::Verified(_))) => worker.metrics.token(Ok(())),
        Some(Err(doubt)) => worker.metrics.token(Err(*doubt)),
        Some(Ok(Looked::Remembered(_))) | None => {}
    }
    match looked {
        Some(Ok(Looked::Verified(said) | Looked::Remembered(said))) => Ok(Some(said)),
        Some(Err(doubt)) if verifier.is_required() => Err(Refusal::Unauthenticated(Some(doubt))),
        None if verifier.is_required() => Err(Refusal::Unauthenticated(None)),
        Some(Err(_)) | None => Ok(None),
    }
}

/// The token in `authorization`, if that is of the scheme `Bearer`. Of two nobody can say which is meant.
fn token(headers: &HeaderMap) -> Option<Result<&str, Doubt>> {
    let mut bearers = headers.get_all(header::AUTHORIZATION).iter().filter_map(bearer);
    let first = bearers.next()?;
    let only = bearers.next().is_none();
    Some(std::str::from_utf8(first).ok().filter(|_| only).ok_or(Doubt::Malformed))
}

fn bearer(value: &HeaderValue) -> Option<&[u8]> {
    let (scheme, token) = value.as_bytes().split_at_checked(b"bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(lines: &[&str], expect: Option<Result<&str, Doubt>>) {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(header::AUTHORIZATION, line.parse().unwrap());
        }
        assert_eq!(token(&headers), expect, "{lines:?}");
    }

    #[test]
    fn only_one_bearer_token_counts() {
        check(&[], None);
        check(&["Basic YTpi"], None);
        check(&["Bearer"], None);
        check(&["Bearer a.b.c"], Some(Ok("a.b.c")));
        check(&["bEARER  a.b.c "], Some(Ok("a.b.c")));
        check(&["Basic YTpi", "Bearer a.b.c"], Some(Ok("a.b.c")));
        check(&["Bearer a.b.c", "Bearer d.e.f"], Some(Err(Doubt::Malformed)));
    }
}
