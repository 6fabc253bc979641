//! The address of a router.

use tokio_tungstenite::tungstenite::{
    client::IntoClientRequest,
    handshake::client::Request,
    http::{HeaderValue, Uri, header::AUTHORIZATION, uri::PathAndQuery},
};

const PATH: &str = "/v1/connect";

/// A text is not the address of a router, or a token is not one.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{0}` is not a router: write ws://HOST:PORT")]
pub struct InvalidRouter(pub String);

/// A router and how to ask it for a connection.
#[derive(Clone, Debug)]
pub(crate) struct Router {
    pub(crate) request: Request,
}

impl Router {
    /// `http://HOST:PORT` is taken for `ws://HOST:PORT`; a path of one's own is kept.
    pub(crate) fn parse(text: &str, token: Option<&str>) -> Result<Self, InvalidRouter> {
        let invalid = || InvalidRouter(text.to_owned());
        let mut parts = text.parse::<Uri>().map_err(|_| invalid())?.into_parts();
        let scheme = match parts.scheme.as_ref().map(|scheme| scheme.as_str()) {
            Some("ws" | "http") => "ws",
            Some("wss" | "https") => "wss",
            _ => return Err(invalid()),
        };
        parts.scheme = Some(scheme.parse().map_err(|_| invalid())?);
        if parts.path_and_query.as_ref().is_none_or(|path| path.as_str() == "/") {
            parts.path_and_query = Some(PathAndQuery::from_static(PATH));
        }
        let uri = Uri::from_parts(parts).map_err(|_| invalid())?;
        let mut request = uri.into_client_request().map_err(|_| invalid())?;
        if let Some(token) = token {
            let mut bearer = HeaderValue::from_str(&format!("Bearer {token}")).map_err(|_| invalid())?;
            bearer.set_sensitive(true);
            request.headers_mut().insert(AUTHORIZATION, bearer);
        }
        Ok(Self { request })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routers_are_addresses() {
        for (text, expect) in [
            ("ws://127.0.0.1:8081", "ws://127.0.0.1:8081/v1/connect"),
            ("http://router:1/", "ws://router:1/v1/connect"),
            ("https://router/own?path", "wss://router/own?path"),
        ] {
            assert_eq!(Router::parse(text, Some("t")).unwrap().request.uri().to_string(), expect);
        }
        for text in ["", "router:1", "ftp://router", "ws://"] {
            assert!(Router::parse(text, None).is_err(), "{text}");
        }
    }
}
