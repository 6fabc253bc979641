//! Clients that say with a token who they are.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use message_flow_tests::{Call, Gateway, Upstream, gateway::Setup};
use ring::{
    hmac,
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair},
};
use serde_json::{Value, json};

const RSA: &str = include_str!("../../golden/tokens/rsa.pem");
/// Of `alice`, until the year 2100.
const RS256: &str = include_str!("../../golden/tokens/rs256.txt");
const SECRET: &str = "a secret of more than thirty-two bytes, which is enough";

/// Pairs of keys of which the gateway knows the public halves.
struct Issuer {
    curve: EcdsaKeyPair,
    edwards: Ed25519KeyPair,
    random: SystemRandom,
}

impl Issuer {
    fn new() -> Self {
        let (random, kind) = (SystemRandom::new(), &ECDSA_P256_SHA256_FIXED_SIGNING);
        let curve = EcdsaKeyPair::generate_pkcs8(kind, &random).unwrap();
        let edwards = Ed25519KeyPair::generate_pkcs8(&random).unwrap();
        Self {
            curve: EcdsaKeyPair::from_pkcs8(kind, curve.as_ref(), &random).unwrap(),
            edwards: Ed25519KeyPair::from_pkcs8(edwards.as_ref()).unwrap(),
            random,
        }
    }

    fn keys(&self) -> String {
        let (x, y) = self.curve.public_key().as_ref()[1..].split_at(32);
        let curve = json!({ "kty": "EC", "crv": "P-256", "kid": "curve", "x": coded(x), "y": coded(y) });
        let edwards = coded(self.edwards.public_key());
        let edwards = json!({ "kty": "OKP", "crv": "Ed25519", "kid": "edwards", "x": edwards });
        json!({ "keys": [curve, edwards] }).to_string()
    }

    fn es256(&self, claims: &Value) -> String {
        let header = json!({ "alg": "ES256", "kid": "curve" });
        token(&header, claims, |text| self.curve.sign(&self.random, text).unwrap().as_ref().to_vec())
    }

    fn eddsa(&self, claims: &Value) -> String {
        let header = json!({ "alg": "EdDSA", "kid": "edwards" });
        token(&header, claims, |text| self.edwards.sign(text).as_ref().to_vec())
    }

    /// A gateway that believes these keys, the RSA key and the secret, with one service.
    fn gateway(&self, upstream: &Upstream, more: &str) -> Setup {
        let config = format!(
            "[proxy]\nworkers = 1\nclient_id = [\"token:sub\", \"header:message-flow-client\", \"peer\"]\n[proxy.token]\n\
             keys = [\"keys.json\", \"rsa.pem\"]\nsecret_file = \"secret\"\n{more}\n[service.chat]\nservers = [\"{}\"]\n",
            upstream.uri(),
        );
        let setup = Gateway::setup().config(config);
        setup.file("keys.json", self.keys()).file("rsa.pem", RSA).file("secret", SECRET)
    }
}

fn coded(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn token(header: &Value, claims: &Value, sign: impl FnOnce(&[u8]) -> Vec<u8>) -> String {
    let text = format!("{}.{}", coded(header.to_string()), coded(claims.to_string()));
    let signature = coded(sign(text.as_bytes()));
    format!("{text}.{signature}")
}

fn hs256(secret: &str, claims: &Value) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    token(&json!({ "alg": "HS256" }), claims, |text| hmac::sign(&key, text).as_ref().to_vec())
}

/// So many seconds from now.
fn at(seconds: i64) -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    i64::try_from(now).unwrap() + seconds
}

fn bearing(gateway: &Gateway, token: &str) -> Call {
    gateway.get("/chat/").header("authorization", format!("Bearer {token}"))
}

async fn verified(gateway: &Gateway) -> f64 {
    gateway.metric("message_flow_tokens_total{outcome=\"verified\"}").await
}

/// The assignments of a client of this id: none for one that no message came from.
async fn is_known(gateway: &Gateway, client: &str) -> bool {
    let client = gateway.ask("GET", format!("/v1/clients/{client}")).send().await;
    client.status == 200 && !client.json()["assignments"]["chat"].is_null()
}

#[tokio::test]
async fn a_token_says_who_the_client_is() {
    let (upstream, issuer) = (Upstream::start("a").await, Issuer::new());
    let gateway = issuer.gateway(&upstream, "").start().await;
    let claims = |sub: &str| json!({ "sub": sub, "exp": at(600) });
    let tokens = [
        ("alice", RS256.trim().to_owned()),
        ("bob", issuer.es256(&claims("bob"))),
        ("carol", issuer.eddsa(&claims("carol"))),
        ("dave", hs256(SECRET, &claims("dave"))),
    ];
    for (client, token) in &tokens {
        // Whatever else the message says of itself.
        bearing(&gateway, token).client("mallory").send().await.expect(200);
        assert!(is_known(&gateway, client).await, "{client}");
        assert_eq!(upstream.last().header("authorization"), format!("Bearer {token}"));
    }
    assert!(!is_known(&gateway, "mallory").await);
    for (_, token) in &tokens {
        bearing(&gateway, token).send().await.expect(200);
    }
    // A worker verifies a token once.
    assert_eq!(verified(&gateway).await, 4.0);
}

#[tokio::test]
async fn what_is_not_believed_says_nothing() {
    let (upstream, issuer) = (Upstream::start("a").await, Issuer::new());
    let gateway = issuer.gateway(&upstream, "audience = \"chat\"").start().await;
    let claims = json!({ "sub": "alice", "exp": at(600), "aud": "chat" });
    let expired = json!({ "sub": "alice", "exp": at(-600), "aud": "chat" });
    let foreign = json!({ "sub": "alice", "exp": at(600), "aud": "shop" });
    for (reason, token) in [
        ("expired", issuer.es256(&expired)),
        ("audience", issuer.eddsa(&foreign)),
        ("signature", hs256("another secret of more than thirty-two bytes", &claims)),
        ("signature", Issuer::new().es256(&claims)),
        ("malformed", token(&json!({ "alg": "none" }), &claims, |_| Vec::new())),
        // The public key, which everybody has, as the secret of another algorithm.
        ("signature", hs256(RSA, &claims)),
    ] {
        let metric = format!("message_flow_tokens_total{{outcome=\"{reason}\"}}");
        let before = gateway.metric(&metric).await;
        bearing(&gateway, &token).client("other").send().await.expect(200);
        assert_eq!(gateway.metric(&metric).await, before + 1.0, "{reason}");
        assert!(!gateway.log().contains(&token), "{}", gateway.log());
    }
    assert!(!is_known(&gateway, "alice").await);
    assert!(is_known(&gateway, "other").await);
}

#[tokio::test]
async fn a_token_can_be_required() {
    let (upstream, issuer) = (Upstream::start("a").await, Issuer::new());
    let gateway = issuer.gateway(&upstream, "required = true").start().await;
    let missing = gateway.get("/chat/").client("alice").send().await.expect(401);
    assert_eq!(missing.header("www-authenticate"), "Bearer realm=\"message-flow\"");
    assert_eq!(missing.header("content-type"), "application/problem+json");
    let expired = issuer.es256(&json!({ "sub": "alice", "exp": at(-600) }));
    let refused = bearing(&gateway, &expired).send().await.expect(401);
    let challenge = refused.header("www-authenticate");
    assert!(challenge.contains("error=\"invalid_token\"") && challenge.contains("expired"), "{challenge}");
    assert_eq!(upstream.seen().len(), 0);
    bearing(&gateway, RS256.trim()).send().await.expect(200);
}

#[tokio::test]
async fn other_keys_take_over_without_a_reload() {
    let (upstream, issuer, next) = (Upstream::start("a").await, Issuer::new(), Issuer::new());
    let gateway = issuer.gateway(&upstream, "required = true").start().await;
    let (old, new) = (json!({ "sub": "old", "exp": at(600) }), json!({ "sub": "new", "exp": at(600) }));
    let (old, new) = (issuer.es256(&old), next.es256(&new));
    bearing(&gateway, &old).send().await.expect(200);
    bearing(&gateway, &new).send().await.expect(401);

    std::fs::write(gateway.path("keys.json"), next.keys()).unwrap();

    gateway.until(bearing(&gateway, &new), 200).await;
    // What was believed before was with other keys.
    bearing(&gateway, &old).send().await.expect(401);
    std::fs::write(gateway.path("keys.json"), "{}").unwrap();
    gateway.logged("keys.json holds no public key").await;
    bearing(&gateway, &new).send().await.expect(200);
}

#[tokio::test]
async fn a_gateway_without_its_keys_does_not_start() {
    let upstream = Upstream::start("a").await;
    let setup = Issuer::new().gateway(&upstream, "").file("rsa.pem", "nonsense");
    let said = setup.try_start().await.err().unwrap();
    assert!(said.contains("proxy.token") && said.contains("rsa.pem holds no public key"), "{said}");
}

#[tokio::test]
async fn servers_are_told_what_was_verified() {
    let (issuer, upstream) = (Issuer::new(), Upstream::start("a").await);
    let gateway = issuer.gateway(&upstream, "").start().await;
    let told = async |call: Call| {
        call.send().await.expect(200);
        let seen = upstream.last();
        (seen.header("message-flow-client").to_owned(), seen.header("message-flow-verified").to_owned())
    };
    let is = |id: &str, verified: &str| (id.to_owned(), verified.to_owned());
    let bearer = |token: &str| gateway.get("/chat/").header("authorization", format!("Bearer {token}"));
    assert_eq!(told(bearer(RS256.trim())).await, is("alice", "true"));
    let forged = bearer(RS256.trim()).client("root").header("message-flow-verified", "no");
    assert_eq!(told(forged).await, is("alice", "true"));
    let unverified = bearer("a.b.c").client("root").header("message-flow-verified", "true");
    assert_eq!(told(unverified).await, is("root", ""));
    assert_eq!(told(gateway.get("/chat/")).await, is("127.0.0.1", ""));
}
