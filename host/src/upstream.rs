//! Servers, as this router reaches them: connections, pools, and how healthy each seems.
//!
//! An [`Endpoint`] is one server URI with what all workers know of it: messages in flight, failures,
//! ejection. [`Pools`] are one worker's connections, so that taking one locks nothing that another
//! thread touches. Which server a message goes to is decided elsewhere; this module may not know
//! `proxy`, `plugin` or `resolve`.

pub mod body;
pub mod check;
pub mod dial;
pub mod endpoint;
pub mod http1;
pub mod http2;
pub mod interim;
pub mod metrics;
mod name;
pub mod options;
pub mod outgoing;
pub mod pool;
mod uploads;
pub mod whole;

mod replay;

pub use crate::http1::BoxError;
pub use body::RequestBody;
pub use endpoint::{Endpoint, Endpoints};
pub use interim::OnInterim;
pub use metrics::Metrics;
pub use options::UpstreamOptions;
pub use outgoing::Outgoing;
pub use pool::Pools;

/// Why a server did not answer a request.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    /// No connection could be opened; the server has seen nothing.
    #[error("cannot connect to {server}")]
    Connect {
        /// The URI.
        server: String,
        /// Why not.
        #[source]
        source: dial::DialError,
    },
    /// No connection could be opened, for a reason of this router's own; the server has seen nothing.
    #[error("cannot open a connection to {server}")]
    Local {
        /// The URI.
        server: String,
        /// What is lacking.
        #[source]
        source: dial::DialError,
    },
    /// Every connection allowed is busy, and none became free in time.
    #[error("all {limit} connections to {server} are busy")]
    Busy {
        /// The URI.
        server: String,
        /// How many there may be.
        limit: usize,
    },
    /// The server says that it has not begun the message, which is no failure of it.
    #[error("{server} did not take the request")]
    Refused {
        /// The URI.
        server: String,
        /// How.
        #[source]
        source: http2::Http2Error,
    },
    /// The connection broke before the head of the response was complete.
    #[error("connection to {server} broke before its response")]
    Broken {
        /// The URI.
        server: String,
        /// How.
        #[source]
        source: Break,
    },
}

impl UpstreamError {
    /// Whether the reason is this router's own and says nothing of the server.
    pub fn is_local(&self) -> bool {
        match self {
            Self::Local { .. } => true,
            Self::Broken { source: Break::Http1(http1::Http1Error::Io(error)), .. } => dial::is_local(error),
            Self::Broken { source: Break::Http2(http2::Http2Error::Connection(error)), .. } => {
                error.get_io().is_some_and(dial::is_local)
            }
            Self::Connect { .. } | Self::Busy { .. } | Self::Refused { .. } | Self::Broken { .. } => false,
        }
    }
}

/// How a connection broke.
#[derive(Debug, thiserror::Error)]
pub enum Break {
    /// One of HTTP/1.1.
    #[error(transparent)]
    Http1(#[from] http1::Http1Error),
    /// One of HTTP/2.
    #[error(transparent)]
    Http2(#[from] http2::Http2Error),
}
