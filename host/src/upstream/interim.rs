//! Interim responses (1xx, RFC 9110, section 15.2) of servers, on their way to who sent the request.

use http::{HeaderMap, StatusCode};

/// Is told of the interim responses of a server, as they come, before its response. Neither 100 nor 101
/// is among them: they concern the connection to the server alone.
pub trait OnInterim: Send + Sync {
    /// One came, with nothing taken off its headers. It must not be waited for.
    fn on_interim(&self, status: StatusCode, headers: HeaderMap);
}

/// Does nothing with them.
pub struct Ignored;

impl OnInterim for Ignored {
    fn on_interim(&self, _status: StatusCode, _headers: HeaderMap) {}
}
