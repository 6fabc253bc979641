//! HTTP/2 for tests, on both sides: a client and a server that are `h2`'s, so that they can do what a
//! polite one never would, and frames by hand where even that is too polite.

use std::{future::poll_fn, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use h2::{
    RecvStream,
    client::{self, SendRequest},
    server::{self, SendResponse},
};
use http::{HeaderMap, Request, Response, StatusCode};
use parking_lot::Mutex;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
    time::timeout,
};

/// No test waits longer for anything.
pub(in crate::proxy) const PATIENCE: Duration = Duration::from_secs(20);

pub(in crate::proxy) async fn in_time<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("{what} in time"))
}

/// A client's connection.
pub(in crate::proxy) struct Client2 {
    pub(in crate::proxy) sender: SendRequest<Bytes>,
    /// Ends with the connection.
    pub(in crate::proxy) driver: JoinHandle<Result<(), h2::Error>>,
}

/// A response to its end.
#[derive(Debug)]
pub(in crate::proxy) struct Reply2 {
    pub(in crate::proxy) status: StatusCode,
    pub(in crate::proxy) headers: HeaderMap,
    pub(in crate::proxy) body: String,
}

impl Client2 {
    pub(in crate::proxy) async fn connect(address: SocketAddr) -> Self {
        Self::with(address, &client::Builder::new()).await
    }

    pub(in crate::proxy) async fn with(address: SocketAddr, builder: &client::Builder) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        let mut builder = builder.clone();
        builder.initial_max_send_streams(0);
        let (sender, mut connection) = builder.handshake(stream).await.unwrap();
        // The other end's settings, so that extended CONNECT is known of.
        let settled = poll_fn(|cx| {
            let _ = std::pin::Pin::new(&mut connection).poll(cx);
            match sender.current_max_send_streams() {
                0 => std::task::Poll::Pending,
                _ => std::task::Poll::Ready(()),
            }
        });
        in_time("settings", settled).await;
        Self { sender, driver: tokio::spawn(connection) }
    }

    /// Sends a request without a body, and reads the response to its end.
    pub(in crate::proxy) async fn ask(&self, request: Request<()>) -> Reply2 {
        self.try_ask(request, None).await.unwrap()
    }

    /// The same with a body.
    pub(in crate::proxy) async fn post(&self, request: Request<()>, body: &str) -> Reply2 {
        self.try_ask(request, Some(body.to_owned())).await.unwrap()
    }

    pub(in crate::proxy) async fn try_ask(
        &self,
        request: Request<()>,
        body: Option<String>,
    ) -> Result<Reply2, h2::Error> {
        let mut sender = self.sender.clone().ready().await?;
        let (response, mut stream) = sender.send_request(request, body.is_none())?;
        if let Some(body) = body {
            stream.send_data(body.into(), true)?;
        }
        in_time("a response", read_reply(response)).await
    }

    /// Asks for a tunnel, and reads the answer to its end.
    pub(in crate::proxy) async fn ask_tunnel(&self, request: Request<()>) -> Reply2 {
        let mut sender = self.sender.clone().ready().await.unwrap();
        let (response, _stream) = sender.send_request(request, false).unwrap();
        in_time("an answer", read_reply(response)).await.unwrap()
    }

    /// Whether the connection ends by itself.
    pub(in crate::proxy) async fn ended(self) {
        let _ = in_time("the end of the connection", self.driver).await;
    }
}

pub(in crate::proxy) async fn read_reply(
    response: impl Future<Output = Result<Response<RecvStream>, h2::Error>>,
) -> Result<Reply2, h2::Error> {
    let (head, mut stream) = response.await?.into_parts();
    let mut body = Vec::new();
    while let Some(data) = stream.data().await {
        let data = data?;
        let _ = stream.flow_control().release_capacity(data.len());
        body.extend_from_slice(&data);
    }
    stream.trailers().await?;
    let body = String::from_utf8(body).unwrap();
    Ok(Reply2 { status: head.status, headers: head.headers, body })
}

/// Whether nothing more comes, and it ends in order.
pub(in crate::proxy) async fn is_over(body: &mut RecvStream) -> bool {
    loop {
        match in_time("the end", body.data()).await {
            // The end has a frame of its own.
            Some(Ok(data)) if data.is_empty() => {}
            other => return other.is_none(),
        }
    }
}

pub(in crate::proxy) fn get(path: &str) -> Request<()> {
    Request::get(format!("http://front.test{path}")).body(()).unwrap()
}

pub(in crate::proxy) fn post(path: &str, headers: &[(&str, &str)]) -> Request<()> {
    let mut request = Request::post(format!("http://front.test{path}"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap()
}

/// What a server does with one stream: its number among those of its connection, from 0.
type Script =
    dyn Fn(usize, usize, Request<RecvStream>, SendResponse<Bytes>) -> BoxFuture<'static, ()> + Send + Sync;

/// Heads of the requests that came, and on which connection.
type Heard = Arc<Mutex<Vec<(usize, Request<()>)>>>;

/// A server that speaks HTTP/2 with prior knowledge and nothing else.
pub(in crate::proxy) struct Server2 {
    pub(in crate::proxy) address: SocketAddr,
    pub(in crate::proxy) heard: Heard,
    pub(in crate::proxy) connections: Arc<std::sync::atomic::AtomicUsize>,
    task: JoinHandle<()>,
}

impl Server2 {
    /// Answers each request with its name.
    pub(in crate::proxy) async fn named(name: &'static str) -> Self {
        Self::following(&server::Builder::new(), move |_, _, _, mut respond| {
            Box::pin(async move { answer(&mut respond, name) })
        })
        .await
    }

    /// Does with each stream what the script says, given the numbers of connection and stream.
    pub(in crate::proxy) async fn following(
        builder: &server::Builder,
        script: impl Fn(usize, usize, Request<RecvStream>, SendResponse<Bytes>) -> BoxFuture<'static, ()>
        + Send
        + Sync
        + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let heard = Heard::default();
        let connections = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let (builder, script): (_, Arc<Script>) = (builder.clone(), Arc::new(script));
        let (hears, counts) = (heard.clone(), connections.clone());
        let task = tokio::spawn(async move {
            let mut running = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let number = counts.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                running.spawn(serve(builder.clone(), stream, number, script.clone(), hears.clone()));
            }
        });
        Self { address, heard, connections, task }
    }

    pub(in crate::proxy) fn uri(&self) -> String {
        format!("h2c://{}", self.address)
    }

    pub(in crate::proxy) fn connections(&self) -> usize {
        self.connections.load(std::sync::atomic::Ordering::SeqCst)
    }
}

impl Drop for Server2 {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(
    builder: server::Builder,
    stream: TcpStream,
    number: usize,
    script: Arc<Script>,
    heard: Heard,
) {
    let Ok(mut connection) = builder.handshake(stream).await else { return };
    let mut streams = 0;
    while let Some(Ok((request, respond))) = connection.accept().await {
        let (head, body) = request.into_parts();
        heard.lock().push((number, Request::from_parts(head.clone(), ())));
        tokio::spawn(script(number, streams, Request::from_parts(head, body), respond));
        streams += 1;
    }
}

pub(in crate::proxy) fn answer(respond: &mut SendResponse<Bytes>, body: &'static str) {
    if let Ok(mut stream) = respond.send_response(Response::new(()), false) {
        let _ = stream.send_data(Bytes::from_static(body.as_bytes()), true);
    }
}

/// Frames by hand.
pub(in crate::proxy) struct Frames(pub(in crate::proxy) TcpStream);

impl Frames {
    /// As a client.
    pub(in crate::proxy) async fn connect(address: SocketAddr) -> Self {
        let mut frames = Self(TcpStream::connect(address).await.unwrap());
        frames.0.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
        frames.write(4, 0, 0, b"").await;
        frames
    }

    pub(in crate::proxy) async fn write(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        self.0.write_all(&frame(kind, flags, stream, payload)).await.unwrap();
    }

    /// The next frame: its kind, flags, stream and payload. None once the connection is closed.
    pub(in crate::proxy) async fn read(&mut self) -> Option<(u8, u8, u32, Vec<u8>)> {
        let mut head = [0; 9];
        in_time("a frame", self.0.read_exact(&mut head)).await.ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let mut payload = vec![0; length];
        in_time("a payload", self.0.read_exact(&mut payload)).await.ok()?;
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]) & 0x7fff_ffff;
        Some((head[3], head[4], stream, payload))
    }

    /// The next frame of a kind. Settings and pings are answered meanwhile.
    pub(in crate::proxy) async fn until(&mut self, kind: u8) -> Option<(u8, u8, u32, Vec<u8>)> {
        loop {
            let frame = self.read().await?;
            match frame {
                found if found.0 == kind => return Some(found),
                (4, 0, ..) => self.write(4, 1, 0, b"").await,
                (6, 0, _, payload) => self.write(6, 1, 0, &payload).await,
                _ => {}
            }
        }
    }
}

pub(in crate::proxy) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = u32::try_from(payload.len()).unwrap().to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// A `GET` of a path as a header block: no compression but of the static table's names.
pub(in crate::proxy) fn header_block(path: &str) -> Vec<u8> {
    let mut block = vec![0x82, 0x86, 0x04, u8::try_from(path.len()).unwrap()];
    block.extend(path.as_bytes());
    block.extend([0x01, 4]);
    block.extend(b"test");
    block
}
