//! TLS on a listener: certificates from PEM files, read again when the files change.

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use super::TlsFiles;

/// From one look at the files to the next.
const LOOK: Duration = Duration::from_secs(2);

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// Not there, or not readable.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Nothing in it that could be used.
    #[error("{} holds no {what} in PEM form", path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        what: &'static str,
    },
    /// Certificate and key do not fit each other or cannot be used.
    #[error("the certificate {} and its key cannot be used", path.display())]
    Unusable {
        /// The certificate.
        path: PathBuf,
        /// Why not.
        source: rustls::Error,
    },
}

/// Makes connections out of sockets, with the certificate that is current.
#[derive(Clone)]
pub struct Acceptor {
    config: Arc<ArcSwap<ServerConfig>>,
}

impl Acceptor {
    pub(crate) fn new(config: Arc<ArcSwap<ServerConfig>>) -> Self {
        Self { config }
    }

    pub(crate) async fn accept(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        tokio_rustls::TlsAcceptor::from(self.config.load_full()).accept(stream).await
    }
}

/// Reads certificate and key.
pub fn load(files: &TlsFiles) -> Result<Arc<ServerConfig>, TlsError> {
    parse(files, &read(files)?)
}

#[derive(PartialEq)]
struct Pem {
    cert: Vec<u8>,
    key: Vec<u8>,
}

fn read(files: &TlsFiles) -> Result<Pem, TlsError> {
    let read =
        |path: &PathBuf| std::fs::read(path).map_err(|source| TlsError::Read { path: path.clone(), source });
    Ok(Pem { cert: read(&files.cert)?, key: read(&files.key)? })
}

fn parse(files: &TlsFiles, pem: &Pem) -> Result<Arc<ServerConfig>, TlsError> {
    let wrong = |path: &PathBuf, what| TlsError::Pem { path: path.clone(), what };
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem.cert).collect();
    let chain = chain.ok().filter(|chain| !chain.is_empty());
    let chain = chain.ok_or_else(|| wrong(&files.cert, "certificate"))?;
    let key = PrivateKeyDer::from_pem_slice(&pem.key).map_err(|_| wrong(&files.key, "private key"))?;
    let unusable = |source| TlsError::Unusable { path: files.cert.clone(), source };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider);
    let builder = builder.with_safe_default_protocol_versions().map_err(unusable)?;
    let mut config = builder.with_no_client_auth().with_single_cert(chain, key).map_err(unusable)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// Swaps in what the files hold whenever that changes and can be used; else the old stays.
pub(crate) async fn follow(files: TlsFiles, acceptor: Acceptor) {
    let mut seen = read(&files).ok();
    loop {
        tokio::time::sleep(LOOK).await;
        let at = files.clone();
        let Ok(Ok(pem)) = tokio::task::spawn_blocking(move || read(&at)).await else { continue };
        if seen.as_ref() == Some(&pem) {
            continue;
        }
        match parse(&files, &pem) {
            Ok(config) => {
                acceptor.config.store(config);
                tracing::info!(certificate = %files.cert.display(), "certificate reloaded");
            }
            Err(error) => tracing::warn!(%error, "certificate changed but is not used; the old one stays"),
        }
        seen = Some(pem);
    }
}
