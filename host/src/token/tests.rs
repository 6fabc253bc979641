//! Tokens as their issuers and their forgers make them.

use std::{
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::{
    hmac,
    rand::SystemRandom,
    signature::{self, EcdsaKeyPair, Ed25519KeyPair, KeyPair},
};
use serde_json::json;

use super::*;

const SECRET: &str = "a secret of more than thirty-two bytes, which is enough";
const RSA: &str = include_str!("../../../tests/golden/tokens/rsa.pem");
const RS256: &str = include_str!("../../../tests/golden/tokens/rs256.txt");

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn coded(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Signs a header and claims in some way.
fn token(header: &Value, claims: &Value, sign: impl FnOnce(&[u8]) -> Vec<u8>) -> String {
    let message = format!("{}.{}", coded(header.to_string()), coded(claims.to_string()));
    let signature = coded(sign(message.as_bytes()));
    format!("{message}.{signature}")
}

fn hs256(secret: &str, header: &Value, claims: &Value) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    token(header, claims, |message| hmac::sign(&key, message).as_ref().to_vec())
}

fn rules() -> Rules {
    Rules {
        keys: Vec::new(),
        secret_file: None,
        issuer: Vec::new(),
        audience: Vec::new(),
        leeway: Duration::from_secs(5),
        required: false,
        claims: vec!["sub".into()],
    }
}

/// A directory with key files.
struct Files(tempfile::TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn with(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }
}

fn with_secret(change: impl FnOnce(&mut Rules)) -> Verifier {
    let files = Files::new();
    let mut rules = Rules { secret_file: Some(files.with("secret", &format!("{SECRET}\n"))), ..rules() };
    change(&mut rules);
    rules.load().unwrap()
}

fn with_keys(text: &str) -> Verifier {
    let files = Files::new();
    Rules { keys: vec![files.with("keys", text)], ..rules() }.load().unwrap()
}

fn client(verified: Result<Verified, Doubt>) -> Result<String, Doubt> {
    verified.map(|verified| verified.claim("sub").map(ToString::to_string).unwrap_or_default())
}

fn alice() -> Result<String, Doubt> {
    Ok("alice".to_owned())
}

#[test]
fn claims_are_checked() {
    let verifier = with_secret(|rules| {
        rules.issuer = vec!["https://issuer".into()];
        rules.audience = vec!["shop".into(), "chat".into()];
    });
    let now = now();
    let good = json!({ "sub": "alice", "exp": now + 60, "nbf": now - 1, "iss": "https://issuer", "aud": ["x", "chat"] });
    let check = |name: &str, value: Value, expect: Result<String, Doubt>| {
        let mut claims = good.clone();
        claims[name] = value;
        let token = hs256(SECRET, &json!({ "alg": "HS256" }), &claims);
        assert_eq!(client(verifier.verify(&token)), expect, "{claims}");
    };
    check("x", json!(1), alice());
    check("exp", json!(now - 60), Err(Doubt::Expired));
    check("exp", json!(now - 3), alice());
    check("exp", Value::Null, Err(Doubt::Claim));
    check("exp", json!("soon"), Err(Doubt::Claim));
    check("nbf", json!(now + 60), Err(Doubt::Early));
    check("nbf", json!(now + 3), alice());
    check("iss", json!("https://other"), Err(Doubt::Issuer));
    check("iss", Value::Null, Err(Doubt::Claim));
    check("aud", json!("shop"), alice());
    check("aud", json!(["x", "y"]), Err(Doubt::Audience));
    check("aud", Value::Null, Err(Doubt::Claim));
    check("sub", json!(7), Ok(String::new()));
}

#[test]
fn an_audience_that_nobody_expects_is_another() {
    let token = hs256(SECRET, &json!({ "alg": "HS256" }), &json!({ "exp": now() + 60, "aud": "other" }));
    assert_eq!(with_secret(|_| {}).verify(&token), Err(Doubt::Audience));
}

#[test]
fn what_is_no_token_is_malformed() {
    let verifier = with_secret(|_| {});
    let claims = json!({ "sub": "alice", "exp": now() + 60 });
    let unsigned = token(&json!({ "alg": "none" }), &claims, |_| Vec::new());
    let critical = hs256(SECRET, &json!({ "alg": "HS256", "crit": ["b64"], "b64": false }), &claims);
    let array = hs256(SECRET, &json!({ "alg": "HS256" }), &json!(["alice"]));
    for text in ["", "a", "..", "a.b.c", "a.b.c.d", &unsigned, &critical, &array] {
        assert_eq!(verifier.verify(text), Err(Doubt::Malformed), "{text}");
    }
}

#[test]
fn a_key_decides_for_which_algorithms_it_is() {
    let claims = json!({ "sub": "alice", "exp": now() + 60 });
    let public = with_keys(RSA);
    // The public key, as everybody has it, taken for a secret.
    for secret in [RSA, RSA.trim_end()] {
        let forged = hs256(secret, &json!({ "alg": "HS256" }), &claims);
        assert_eq!(public.verify(&forged), Err(Doubt::Key));
    }
    let said_to_be_rsa = hs256(SECRET, &json!({ "alg": "RS256" }), &claims);
    assert_eq!(with_secret(|_| {}).verify(&said_to_be_rsa), Err(Doubt::Key));
    assert_eq!(public.verify(&said_to_be_rsa), Err(Doubt::Signature));
    // Signed with a secret that is too short for it.
    let key = hmac::Key::new(hmac::HMAC_SHA512, SECRET.as_bytes());
    let long =
        token(&json!({ "alg": "HS512" }), &claims, |message| hmac::sign(&key, message).as_ref().to_vec());
    assert_eq!(with_secret(|_| {}).verify(&long), Err(Doubt::Key));
}

#[test]
fn signatures_are_checked() {
    let claims = json!({ "sub": "alice", "exp": now() + 60 });
    let verifier = with_secret(|_| {});
    let header = json!({ "alg": "HS256" });
    assert_eq!(client(verifier.verify(&hs256(SECRET, &header, &claims))), alice());
    let other = hs256("another secret of more than thirty-two bytes", &header, &claims);
    assert_eq!(verifier.verify(&other), Err(Doubt::Signature));
    let good = hs256(SECRET, &header, &claims);
    let (_, signature) = good.rsplit_once('.').unwrap();
    let forged = coded(json!({ "sub": "mallory", "exp": now() + 60 }).to_string());
    let swapped = format!("{}.{forged}.{signature}", coded(header.to_string()));
    assert_eq!(verifier.verify(&swapped), Err(Doubt::Signature));
}

#[test]
fn rsa_keys_come_as_pem_and_as_sets() {
    let set = include_str!("../../../tests/golden/tokens/rsa.jwks.json");
    let ps256 = include_str!("../../../tests/golden/tokens/ps256.txt").trim();
    assert_eq!(client(with_keys(RSA).verify(RS256.trim())), alice());
    assert_eq!(client(with_keys(RSA).verify(ps256)), alice());
    assert_eq!(client(with_keys(set).verify(RS256.trim())), alice());
    // The set says that its key is for RS256 alone.
    assert_eq!(with_keys(set).verify(ps256), Err(Doubt::Key));
    let (message, signature) = RS256.trim().rsplit_once('.').unwrap();
    let other = if signature.starts_with('A') { 'B' } else { 'A' };
    let forged = format!("{message}.{other}{}", &signature[1..]);
    assert_eq!(with_keys(RSA).verify(&forged), Err(Doubt::Signature));
}

#[test]
fn elliptic_curves() {
    let random = SystemRandom::new();
    let claims = json!({ "sub": "alice", "exp": now() + 60 });
    for (curve, algorithm, kind) in [
        ("P-256", "ES256", &signature::ECDSA_P256_SHA256_FIXED_SIGNING),
        ("P-384", "ES384", &signature::ECDSA_P384_SHA384_FIXED_SIGNING),
    ] {
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(kind, &random).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(kind, pkcs8.as_ref(), &random).unwrap();
        let (x, y) = pair.public_key().as_ref()[1..].split_at(pair.public_key().as_ref().len() / 2);
        let jwk = json!({ "kty": "EC", "crv": curve, "kid": "k", "x": coded(x), "y": coded(y) });
        let sign = |message: &[u8]| pair.sign(&random, message).unwrap().as_ref().to_vec();
        let verifier = with_keys(&jwk.to_string());
        assert_eq!(client(verifier.verify(&token(&json!({ "alg": algorithm }), &claims, sign))), alice());
        let named = token(&json!({ "alg": algorithm, "kid": "other" }), &claims, sign);
        assert_eq!(verifier.verify(&named), Err(Doubt::Key));
        let other = token(&json!({ "alg": algorithm }), &claims, |_| vec![0; 64]);
        assert_eq!(verifier.verify(&other), Err(Doubt::Signature));
    }
}

#[test]
fn edwards_curve() {
    let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
    let pair = Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).unwrap();
    let jwk = json!({ "kty": "OKP", "crv": "Ed25519", "x": coded(pair.public_key()) });
    let set = json!({ "keys": [jwk] });
    let claims = json!({ "sub": "alice", "exp": now() + 60 });
    let sign = |message: &[u8]| pair.sign(message).as_ref().to_vec();
    let token = token(&json!({ "alg": "EdDSA" }), &claims, sign);
    assert_eq!(client(with_keys(&set.to_string()).verify(&token)), alice());
}

#[test]
fn files_without_a_key_are_refused() {
    let files = Files::new();
    let load = |text: &str| Rules { keys: vec![files.with("keys", text)], ..rules() }.load().unwrap_err();
    assert!(matches!(load(""), KeyError::Unknown(_)));
    assert!(matches!(load("{\"keys\":[]}"), KeyError::Unknown(_)));
    assert!(matches!(load("-----BEGIN PRIVATE KEY-----\n"), KeyError::Private(_)));
    let short = json!({ "kty": "RSA", "n": coded([1; 128]), "e": "AQAB" });
    assert!(matches!(load(&short.to_string()), KeyError::Unknown(_)));
    let secret = Rules { secret_file: Some(files.with("secret", "guess me")), ..rules() }.load();
    assert!(matches!(secret, Err(KeyError::Short(_))));
    let missing =
        Rules { keys: vec![Path::new("/nowhere/key.pem").to_owned()], ..rules() }.load().unwrap_err();
    assert_eq!(missing.to_string(), "cannot read /nowhere/key.pem");
}

#[test]
fn keys_and_secrets_are_not_shown() {
    let shown = format!("{:?} {:?}", with_secret(|_| {}), with_keys(RSA));
    assert!(!shown.contains("secret of more"), "{shown}");
}

#[test]
fn a_token_is_verified_once_and_until_it_expires() {
    let verifier = Arc::new(with_secret(|_| {}));
    let cache = Cache::default();
    let expires = now() + 60;
    let good = hs256(SECRET, &json!({ "alg": "HS256" }), &json!({ "sub": "alice", "exp": expires }));
    let look = |verifier: &Arc<Verifier>, now| match cache.verify(verifier, &good, now) {
        Ok(Looked::Verified(_)) => Ok("verified"),
        Ok(Looked::Remembered(_)) => Ok("remembered"),
        Err(doubt) => Err(doubt),
    };
    assert_eq!(look(&verifier, now()), Ok("verified"));
    assert_eq!(look(&verifier, expires), Ok("remembered"));
    assert_eq!(look(&verifier, expires + 6), Err(Doubt::Expired));
    // Another set of keys, even an equal one, has to see for itself.
    let other = Arc::new(with_secret(|_| {}));
    assert_eq!(look(&other, now()), Ok("verified"));
    assert_eq!(look(&other, now()), Ok("remembered"));
    let strict = Arc::new(with_secret(|rules| rules.issuer = vec!["x".into()]));
    assert_eq!(look(&strict, now()), Err(Doubt::Claim));
}

#[test]
fn the_cache_is_bounded() {
    let verifier = Arc::new(with_secret(|_| {}));
    let mut remembered = cache::Remembered::default();
    let verified = Arc::new(Verified { until: 0, claims: Vec::new() });
    for number in 0..3 * cache::TOKENS as u64 {
        let mut hash = [0; 32];
        hash[..8].copy_from_slice(&number.to_le_bytes());
        remembered.keep(&verifier, hash, Arc::clone(&verified));
        assert!(remembered.find(&verifier, &hash).is_some());
        // One that is used is never forgotten.
        assert!(remembered.find(&verifier, &[0; 32]).is_some());
    }
    assert!(remembered.len() <= cache::TOKENS);
}
