//! A question about a message that is not sent, and its answer.

use http::{HeaderMap, Method, StatusCode, uri::PathAndQuery};

use super::{Step, TraceLine};
use crate::table::ServiceId;

/// A message that is not sent.
#[derive(Clone, Debug)]
pub struct Question {
    /// Where to; without a version, the release decides.
    pub service: ServiceId,
    /// The client id.
    pub client: String,
    /// As a registrar would see it.
    pub method: Method,
    /// As the server would get it.
    pub path: PathAndQuery,
    /// As a registrar would see them.
    pub headers: HeaderMap,
}

impl Question {
    /// About a `GET /` without headers.
    pub fn new(service: ServiceId, client: impl Into<String>) -> Self {
        let (method, path) = (Method::GET, PathAndQuery::from_static("/"));
        Self { service, client: client.into(), method, path, headers: HeaderMap::new() }
    }
}

/// Where a message would go, and why.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, utoipa::ToSchema)]
pub struct Explanation {
    /// With the version that was chosen.
    #[schema(value_type = String)]
    pub service: ServiceId,
    /// The client id.
    pub client: String,
    /// The URI; null if it would go nowhere.
    pub server: Option<String>,
    /// The server's id, if it is in the server list.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_id: Option<String>,
    /// The step that decided; null if none did.
    pub step: Option<Step>,
    /// The status that the client would get instead.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "as_number")]
    #[schema(value_type = Option<u16>)]
    pub status: Option<StatusCode>,
    /// Why the client would get that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Every step that was taken, and what came of it.
    pub trace: Vec<TraceLine>,
}

#[expect(clippy::ref_option, reason = "the signature that serde asks for")]
fn as_number<S: serde::Serializer>(status: &Option<StatusCode>, serializer: S) -> Result<S::Ok, S::Error> {
    serde::Serialize::serialize(&status.map(|status| status.as_u16()), serializer)
}
