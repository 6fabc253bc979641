//! A request of HTTP/2 as the handler gets it: in the form that HTTP/1.1 has for the same, so that
//! nobody behind here has to know two.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use h2::RecvStream;
use http::{
    HeaderMap, HeaderValue, Method, Request, StatusCode, Uri, header, request::Parts, uri::PathAndQuery,
};
use http_body::{Body, Frame, SizeHint};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::super::{BoxError, Incoming, Informs, OnUpgrade, wire::Upgraded};
use crate::{
    grpc,
    http1::{Malformed, request::Refused},
    http2::{cookies, received::Received},
};

/// Interim responses that wait to be sent; more are dropped, as any may be.
const MOST_WAITING: usize = 16;

/// What the handler of a request and the task of its stream tell each other.
#[derive(Default)]
pub(super) struct Link {
    /// Somebody wants the body.
    pub(super) wanted: AtomicBool,
    /// What is left of a body that nobody wants any more.
    pub(super) unread: Mutex<Option<RecvStream>>,
    /// Whether there are interim responses, so that mostly no lock is needed to know.
    informed: AtomicBool,
    interim: Mutex<Vec<(StatusCode, HeaderMap)>>,
}

impl Link {
    /// Takes the interim responses that wait. Mostly none.
    pub(super) fn interim(&self) -> Vec<(StatusCode, HeaderMap)> {
        match self.informed.swap(false, Relaxed) {
            true => std::mem::take(&mut *self.interim.lock()),
            false => Vec::new(),
        }
    }
}

impl Informs for Link {
    fn inform(&self, status: StatusCode, headers: HeaderMap) {
        // It is the task of the stream that says so, which looks at it before it waits again.
        let mut interim = self.interim.lock();
        if interim.len() < MOST_WAITING {
            interim.push((status, headers));
            self.informed.store(true, Relaxed);
        }
    }
}

/// The body of a request on a stream. What is left of it when it is dropped is for the stream's task to
/// throw away.
pub struct StreamBody {
    /// None once dropped.
    received: Option<Received>,
    link: Arc<Link>,
}

impl StreamBody {
    fn received(&self) -> &Received {
        self.received.as_ref().expect("held until dropped")
    }
}

impl Drop for StreamBody {
    fn drop(&mut self) {
        let unread = self.received.take().filter(|received| !received.is_end_stream());
        if let Some(unread) = unread {
            *self.link.unread.lock() = Some(unread.into_stream());
        }
    }
}

impl Body for StreamBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        this.link.wanted.store(true, Relaxed);
        Pin::new(this.received.as_mut().expect("held until dropped")).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.received().is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.received().size_hint()
    }
}

/// A stream that may become a tunnel, when the response says so.
pub(super) struct Tunnelled {
    pub(super) receive: RecvStream,
    pub(super) upgraded: oneshot::Sender<Upgraded>,
}

/// A request, and what is needed besides to answer it.
pub(super) struct Read {
    pub(super) request: Request<Incoming>,
    /// The client waits for word before it sends the body.
    pub(super) expects_continue: bool,
    pub(super) tunnelled: Option<Tunnelled>,
}

/// A request that is not served, and what is needed to say so.
pub(super) struct Unread {
    pub(super) refused: Refused,
    pub(super) is_call: bool,
    pub(super) receive: RecvStream,
}

impl Unread {
    fn new(refused: Refused, head: &Parts, receive: RecvStream) -> Self {
        Self { refused, is_call: grpc::is_call(&head.headers), receive }
    }
}

/// Reads a request. Its target and headers take so many bytes at most, counted as HTTP/1.1 writes them.
pub(super) fn read(request: Request<RecvStream>, link: &Arc<Link>, max_head: usize) -> Result<Read, Unread> {
    let (mut head, receive) = request.into_parts();
    cookies::join(&mut head.headers);
    if length(&head) > max_head {
        return Err(Unread::new(Refused::TooLarge, &head, receive));
    }
    complete_path(&mut head.uri);
    if let Some(protocol) = head.extensions.remove::<h2::ext::Protocol>() {
        return tunnel(head, &protocol, receive);
    }
    let expects_continue = head.headers.get(header::EXPECT).is_some_and(|expect| {
        // What else is expected is for the handler to refuse.
        expect.as_bytes().eq_ignore_ascii_case(b"100-continue")
    });
    let body = match receive.is_end_stream() {
        true => Incoming::Empty,
        false => {
            let received = Some(Received::new(receive, &head.headers));
            Incoming::Http2(StreamBody { received, link: link.clone() })
        }
    };
    Ok(Read { request: Request::from_parts(head, body), expects_continue, tunnelled: None })
}

/// An extended CONNECT (RFC 8441) is what HTTP/1.1 says by `upgrade`. There is no body: what follows is
/// the tunnel's.
fn tunnel(mut head: Parts, protocol: &h2::ext::Protocol, receive: RecvStream) -> Result<Read, Unread> {
    let upgrade = HeaderValue::from_str(protocol.as_str());
    let Some(upgrade) = upgrade.ok().filter(|_| !receive.is_end_stream()) else {
        let refused = Refused::Malformed(Malformed("an extended CONNECT that ends"));
        return Err(Unread::new(refused, &head, receive));
    };
    head.method = Method::GET;
    head.headers.remove(header::CONTENT_LENGTH);
    head.headers.insert(header::UPGRADE, upgrade);
    head.headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    let (upgraded, on_upgrade) = oneshot::channel();
    let request = Request::from_parts(head, Incoming::Upgradable(OnUpgrade(on_upgrade)));
    Ok(Read { request, expects_continue: false, tunnelled: Some(Tunnelled { receive, upgraded }) })
}

/// What the head would take as HTTP/1.1 writes it.
fn length(head: &Parts) -> usize {
    let authority = head.uri.authority().map_or(0, |authority| authority.as_str().len());
    let path = head.uri.path_and_query().map_or(0, |path| path.as_str().len());
    let lines = head.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + ": \r\n".len());
    head.method.as_str().len() + authority + path + "  HTTP/1.1\r\n".len() + lines.sum::<usize>()
}

/// A target that is a query alone is one of the root.
fn complete_path(uri: &mut Uri) {
    let query = uri.path_and_query().filter(|path| path.as_str().starts_with('?'));
    let Some(completed) = query.and_then(|query| PathAndQuery::try_from(format!("/{}", query.as_str())).ok())
    else {
        return;
    };
    let mut parts = std::mem::take(uri).into_parts();
    parts.path_and_query = Some(completed);
    *uri = Uri::from_parts(parts).expect("only the path has changed");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_alone_is_one_of_the_root() {
        for (text, expect) in
            [("http://one/a?b", "http://one/a?b"), ("http://one", "http://one/"), ("*", "*")]
        {
            let mut uri = text.parse().unwrap();
            complete_path(&mut uri);
            assert_eq!(uri.to_string(), expect);
        }
        let query = PathAndQuery::from_static("?x=1");
        let parts = Uri::builder().scheme("http").authority("one").path_and_query(query);
        let mut uri = parts.build().unwrap();
        complete_path(&mut uri);
        assert_eq!(uri.path_and_query().unwrap().as_str(), "/?x=1");
        assert_eq!(uri.authority().unwrap().as_str(), "one");
    }
}
