//! Which fields may follow a body (trailers, RFC 9110, section 6.5).
//!
//! A trailer comes after its message was admitted, routed and filtered, and many programs treat it
//! as a header all the same. So what passes is an allow-list: fields that say something about the
//! body or about how the call went. A sender may add others by announcing them in `trailer`, unless
//! their name speaks of framing, routing, identity, credentials, caching or cookies.

use http::{HeaderMap, HeaderName, header};

use super::elements;

/// Names of one `trailer` field that are looked at.
const MOST_ANNOUNCED: usize = 64;

/// What may come without being announced: gRPC's outcome, digests of what was sent, and timings.
const HARMLESS: [&str; 9] = [
    "grpc-status",
    "grpc-message",
    "grpc-status-details-bin",
    "content-digest",
    "repr-digest",
    "digest",
    "content-md5",
    "server-timing",
    "x-checksum",
];

/// Words of a name that speak of framing, routing, identity, credentials, caching or cookies. Nearly
/// every registered field has one, and so have the usual names of one's own, such as `x-auth-user`.
const SENSITIVE: &str = "
    accept access account admin age allow alt api auth authenticate authentication authority
    authorization backend bearer cache cdn cert certificate clear client clientid connection content
    control cookie cookie2 cors credential credentials csp csrf date debug dpop early email encoding
    etag expect expires flow forward forwarded forwards from group groups host hostname hsts http2 id
    identities identity if impersonate insecure ip jwt keep key last length link location login max
    method nel oidc origin original otp override password path peer permission permissions pin port
    pragma prefer principal priority proto protocol proxy range real realip redirect referer referrer
    refresh remote report retry rewrite role roles route scheme scope sec secret security server service
    session set sid sign signature signed ssl sso strict subject sudo surrogate svc target te tenant tls
    token transfer tunnel uid upgrade upstream uri url user userid username vary version via warning www
    xff xsrf";

/// The fields that one message has announced and that may follow its body.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trailers {
    announced: Vec<HeaderName>,
}

impl Trailers {
    /// As the field `trailer` of these headers announces them.
    pub fn announced_in(headers: &HeaderMap) -> Self {
        let names = elements(headers, &header::TRAILER).filter_map(|name| HeaderName::from_bytes(name).ok());
        Self { announced: names.filter(|name| !is_sensitive(name)).take(MOST_ANNOUNCED).collect() }
    }

    /// Without those by which this router goes, whatever their name.
    #[must_use]
    pub fn except(mut self, mut is_used: impl FnMut(&HeaderName) -> bool) -> Self {
        self.announced.retain(|name| !is_used(name));
        self
    }

    /// Takes off what may not follow the body of a request.
    pub fn admit_request(&self, trailers: &mut HeaderMap) {
        retain(trailers, |name| is_trailer(name) || self.announced.contains(name));
    }

    /// Takes off what may not follow the body of a response. What comes with gRPC's status is
    /// metadata of the call under any name (its "custom metadata"), which nobody announces.
    pub fn admit_response(&self, trailers: &mut HeaderMap) {
        let grpc = trailers.contains_key("grpc-status");
        retain(trailers, |name| {
            is_trailer(name) || self.announced.contains(name) || grpc && !belongs_to_http(name)
        });
    }
}

/// Whether a field may follow any body, announced or not.
pub fn is_trailer(name: &HeaderName) -> bool {
    let name = name.as_str();
    HARMLESS.contains(&name) || name.starts_with("x-amz-checksum-") || name.starts_with("x-checksum-")
}

/// Whether a field may not even be announced.
fn is_sensitive(name: &HeaderName) -> bool {
    let mut words = name.as_str().split(['-', '_', '.']);
    let is_word_of_it = |word| SENSITIVE.split_ascii_whitespace().any(|sensitive| sensitive == word);
    !is_trailer(name) && (belongs_to_http(name) || words.any(is_word_of_it))
}

/// Whether a field means something to HTTP, to browsers or to this router.
fn belongs_to_http(name: &HeaderName) -> bool {
    const FAMILIES: &str = "accept access-control- alt- cache- cdn- content- cookie if- message-flow proxy sec- \
        set-cookie x-forwarded x-real-ip";
    const NAMES: &str = "age authorization clear-site-data connection date etag expect expires forwarded host \
        http2-settings keep-alive last-modified link location origin pragma range referer refresh server \
        strict-transport-security te trailer transfer-encoding upgrade vary via www-authenticate";
    let name = name.as_str();
    NAMES.split_ascii_whitespace().any(|other| name == other)
        || FAMILIES.split_ascii_whitespace().any(|family| name.starts_with(family))
}

fn retain(trailers: &mut HeaderMap, wanted: impl Fn(&HeaderName) -> bool) {
    if trailers.keys().all(&wanted) {
        return;
    }
    let unwanted: Vec<_> = trailers.keys().filter(|name| !wanted(name)).cloned().collect();
    unwanted.iter().for_each(|name| drop(trailers.remove(name)));
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn map(names: &[&'static str]) -> HeaderMap {
        names.iter().map(|name| (HeaderName::from_static(name), HeaderValue::from_static("1"))).collect()
    }

    fn announced(list: &str) -> Trailers {
        Trailers::announced_in(&HeaderMap::from_iter([(header::TRAILER, list.parse().unwrap())]))
    }

    fn left(admit: impl Fn(&mut HeaderMap), names: &[&'static str]) -> Vec<String> {
        let mut trailers = map(names);
        admit(&mut trailers);
        let mut left: Vec<_> = trailers.keys().map(ToString::to_string).collect();
        left.sort();
        left
    }

    /// What no trailer may be, whoever announces it.
    const NEVER: &str = "
        content-length transfer-encoding content-type content-encoding content-range host connection te
        trailer upgrade expect keep-alive max-forwards via forwarded x-forwarded-for x-forwarded-host
        x-forwarded-proto x-forwarded-user x-real-ip x-original-url x-rewrite-url x-http-method-override
        authorization proxy-authorization proxy-authenticate www-authenticate cookie set-cookie
        cache-control expires age pragma vary etag last-modified location range if-match
        message-flow-client message-flow-service message-flow-verified message-flow-version x-user
        x-user-id x-auth-user x-remote-user x-client-ip x-api-key x-tenant x-admin x-session
        access-control-allow-origin sec-websocket-key origin referer retry-after x_user x_forwarded_for
        http2-settings alt-svc strict-transport-security x-csrf-token";

    #[test]
    fn what_speaks_of_the_message_itself_never_follows_it() {
        let names: Vec<_> = NEVER.split_ascii_whitespace().collect();
        let all = announced(&names.join(", "));
        assert_eq!(all, Trailers::default());
        assert_eq!(left(|map| all.admit_request(map), &names), [""; 0]);
        assert_eq!(left(|map| all.admit_response(map), &names), [""; 0]);
    }

    #[test]
    fn the_harmless_pass_and_so_do_announced_ones() {
        let plain = Trailers::default();
        let harmless = ["content-digest", "grpc-message", "server-timing", "x-amz-checksum-crc32"];
        assert_eq!(left(|map| plain.admit_request(map), &harmless), harmless);
        assert_eq!(left(|map| plain.admit_response(map), &harmless), harmless);
        let own = ["x-count", "x-md5", "x-secret"];
        assert_eq!(left(|map| plain.admit_request(map), &own), [""; 0]);
        let said = announced("X-MD5,, x-count , x-secret, a b");
        assert_eq!(left(|map| said.admit_request(map), &own), ["x-count", "x-md5"]);
        assert_eq!(left(|map| said.admit_response(map), &own), ["x-count", "x-md5"]);
        let routed = said.except(|name| name == "x-count");
        assert_eq!(left(|map| routed.admit_request(map), &own), ["x-md5"]);
    }

    #[test]
    fn metadata_of_a_grpc_call_follows_its_response() {
        let plain = Trailers::default();
        let names = ["grpc-status", "request-id", "x-user-count", "set-cookie", "x-forwarded-for"];
        let passed = ["grpc-status", "request-id", "x-user-count"];
        assert_eq!(left(|map| plain.admit_response(map), &names), passed);
        assert_eq!(left(|map| plain.admit_request(map), &names), ["grpc-status"]);
    }
}
