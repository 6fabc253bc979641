//! A target of webhooks that keeps what it is told.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicU16, Ordering::Relaxed},
};

use http_body_util::{BodyExt, Empty};
use hyper::{
    Request, Response,
    body::{Bytes, Incoming},
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use message_flow_tests::eventually;
use serde_json::Value;
use sha2::{Digest, Sha256};
use tokio::{net::TcpListener, task::JoinSet};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        crypto::ring,
        pki_types::{PrivateKeyDer, pem::PemObject},
    },
};

/// A running target; stopped on drop.
pub(crate) struct Receiver {
    address: std::net::SocketAddr,
    told: Arc<Mutex<Vec<Told>>>,
    status: Arc<AtomicU16>,
    _running: JoinSet<()>,
}

/// A notification as it came.
#[derive(Clone, Debug)]
pub(crate) struct Told {
    pub(crate) id: String,
    pub(crate) body: Value,
    timestamp: String,
    signature: String,
    text: String,
}

impl Receiver {
    pub(crate) async fn start() -> Self {
        Self::start_with(None).await
    }

    /// One that speaks TLS, and its certificate in PEM form.
    pub(crate) async fn start_tls() -> (Self, String) {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        let key = PrivateKeyDer::from_pem_slice(made.signing_key.serialize_pem().as_bytes()).expect("a key");
        let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let builder = builder.with_safe_default_protocol_versions().expect("TLS 1.2 and 1.3");
        let config = builder.with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], key);
        let acceptor = TlsAcceptor::from(Arc::new(config.expect("a certificate and its key")));
        (Self::start_with(Some(acceptor)).await, made.cert.pem())
    }

    async fn start_with(tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a socket");
        let address = listener.local_addr().expect("a bound socket");
        let (told, status) = (Arc::default(), Arc::new(AtomicU16::new(204)));
        let mut running = JoinSet::new();
        running.spawn(accept(listener, tls, Arc::clone(&told), Arc::clone(&status)));
        Self { address, told, status, _running: running }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/hook", self.address)
    }

    /// Answers with this status from now on.
    pub(crate) fn answer(&self, status: u16) {
        self.status.store(status, Relaxed);
    }

    /// All that was told, once it is so much; more fails the test.
    pub(crate) async fn told(&self, count: usize) -> Vec<Told> {
        let told = eventually(|| async {
            let told = self.told.lock().expect("never poisoned").clone();
            if told.len() >= count { Ok(told) } else { Err(format!("{} of {count}: {told:#?}", told.len())) }
        })
        .await;
        assert_eq!(told.len(), count, "{told:#?}");
        told
    }
}

impl Told {
    /// As the specification of Standard Webhooks says, computed by hand.
    #[track_caller]
    pub(crate) fn must_be_signed_with(&self, secret: &str) {
        let key = base64(secret.strip_prefix("whsec_").expect("a secret"));
        let signed = format!("{}.{}.{}", self.id, self.timestamp, self.text);
        let mac = hmac(&key, signed.as_bytes());
        let found = base64(self.signature.strip_prefix("v1,").expect("a signature of version 1"));
        assert_eq!(found, mac, "{self:?}");
    }
}

/// RFC 2104, with a key of up to 64 bytes.
fn hmac(key: &[u8], text: &[u8]) -> Vec<u8> {
    let padded = |pad: u8| (0..64).map(|at| key.get(at).copied().unwrap_or(0) ^ pad).collect::<Vec<_>>();
    let inner = Sha256::digest([&padded(0x36)[..], text].concat());
    Sha256::digest([&padded(0x5c)[..], &inner].concat()).to_vec()
}

fn base64(text: &str) -> Vec<u8> {
    let digit = |byte: u8| match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        other => panic!("{other} in {text}"),
    };
    let digits: Vec<u8> = text.bytes().filter(|byte| *byte != b'=').map(digit).collect();
    let whole = |four: &[u8]| {
        let bits = four.iter().enumerate().map(|(at, digit)| u32::from(*digit) << (18 - 6 * at)).sum::<u32>();
        bits.to_be_bytes()[1..four.len()].to_vec()
    };
    digits.chunks(4).flat_map(whole).collect()
}

async fn accept(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    told: Arc<Mutex<Vec<Told>>>,
    status: Arc<AtomicU16>,
) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let (told, status) = (Arc::clone(&told), Arc::clone(&status));
        let service = service_fn(move |request| take(request, Arc::clone(&told), status.load(Relaxed)));
        let (http, tls) = (hyper::server::conn::http1::Builder::new(), tls.clone());
        connections.spawn(async move {
            let _ = match tls {
                None => http.serve_connection(TokioIo::new(stream), service).await,
                Some(tls) => match tls.accept(stream).await {
                    Ok(stream) => http.serve_connection(TokioIo::new(stream), service).await,
                    Err(_) => return,
                },
            };
        });
    }
}

async fn take(
    request: Request<Incoming>,
    told: Arc<Mutex<Vec<Told>>>,
    status: u16,
) -> Result<Response<Empty<Bytes>>, hyper::Error> {
    let header = |name: &str| {
        let value = request.headers().get(name).and_then(|value| value.to_str().ok());
        value.unwrap_or_default().to_owned()
    };
    let (id, timestamp, signature) =
        (header("webhook-id"), header("webhook-timestamp"), header("webhook-signature"));
    let body = request.into_body().collect().await?.to_bytes();
    let text = String::from_utf8_lossy(&body).into_owned();
    let body = serde_json::from_str(&text).expect("a notification is JSON");
    told.lock().expect("never poisoned").push(Told { id, body, timestamp, signature, text });
    Ok(Response::builder().status(status).body(Empty::new()).expect("a status and nothing"))
}
