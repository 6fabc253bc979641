//! TLS on the proxy: ALPN, and certificates that change.

use std::{net::SocketAddr, sync::Arc};

use message_flow_tests::{Gateway, Upstream, eventually};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{
        ClientConfig, RootCertStore,
        crypto::ring,
        pki_types::{CertificateDer, ServerName},
    },
};

const TLS: &str = "[proxy]\ntls = { cert = \"{dir}/cert.pem\", key = \"{dir}/key.pem\" }\n";

struct Certificate {
    cert: String,
    key: String,
    der: CertificateDer<'static>,
}

fn certificate() -> Certificate {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    Certificate { cert: made.cert.pem(), key: made.signing_key.serialize_pem(), der: made.cert.der().clone() }
}

async fn connect(
    to: SocketAddr,
    trusted: &Certificate,
    alpn: &[&str],
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.der.clone()).expect("a certificate");
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().expect("TLS 1.2 and 1.3");
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    let name = ServerName::try_from("localhost").expect("a name");
    TlsConnector::from(Arc::new(config)).connect(name, TcpStream::connect(to).await?).await
}

#[tokio::test]
async fn both_versions_of_http_are_offered() {
    let certificate = certificate();
    let upstream = Upstream::start("a").await;
    let setup = Gateway::setup().config(TLS).file("cert.pem", certificate.cert.clone());
    let gateway = setup.file("key.pem", certificate.key.clone()).start().await;
    gateway.put("chat", json!({ "server": upstream.uri() })).await;

    for (offer, agreed) in
        [(&["h2", "http/1.1"][..], Some("h2")), (&["http/1.1"], Some("http/1.1")), (&[], None)]
    {
        let stream = connect(gateway.proxy(), &certificate, offer).await.expect("a handshake");
        let found = stream.get_ref().1.alpn_protocol().map(|name| String::from_utf8_lossy(name).into_owned());
        assert_eq!(found.as_deref(), agreed);
    }
    let mut stream = connect(gateway.proxy(), &certificate, &["http/1.1"]).await.expect("a handshake");
    stream
        .write_all(b"GET /chat/ HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
        .await
        .expect("write");
    let mut heard = String::new();
    let _ = stream.read_to_string(&mut heard).await;
    assert!(heard.starts_with("HTTP/1.1 200 ") && heard.ends_with('a'), "{heard}");
    let forwarded = upstream.last();
    let proto = [forwarded.header("x-forwarded-proto"), forwarded.header("forwarded")].join(" ");
    assert!(proto.contains("https"), "{forwarded:?}");

    // Plain HTTP on a TLS port is not answered as if it were fine, and harms nobody.
    let plain =
        message_flow_tests::raw::exchange(gateway.proxy(), "GET /chat/ HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert!(!plain.contains(" 200 "), "{plain}");
    connect(gateway.proxy(), &certificate, &[]).await.expect("a handshake");
}

#[tokio::test]
async fn a_changed_certificate_is_used() {
    let (old, new) = (certificate(), certificate());
    let setup =
        Gateway::setup().config(TLS).file("cert.pem", old.cert.clone()).file("key.pem", old.key.clone());
    let gateway = setup.start().await;
    connect(gateway.proxy(), &old, &[]).await.expect("a handshake");

    // Half a change: the pair does not match, and the old one stays.
    std::fs::write(gateway.path("cert.pem"), &new.cert).expect("write");
    gateway.signal("HUP").await;
    connect(gateway.proxy(), &old, &[]).await.expect("a handshake");
    std::fs::write(gateway.path("key.pem"), &new.key).expect("write");
    gateway.signal("HUP").await;

    eventually(|| connect(gateway.proxy(), &new, &[])).await;
}
