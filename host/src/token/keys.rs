//! Keys that tokens are verified with, out of their files, and the algorithms that each is for.

use std::{
    fmt, io,
    path::{Path, PathBuf},
};

use jsonwebtoken::{
    Algorithm, AlgorithmFamily, DecodingKey, DecodingKeyKind,
    jwk::{Jwk, JwkSet, KeyAlgorithm, PublicKeyUse},
};

/// A key and what it is for.
#[derive(Clone)]
pub struct Key {
    /// The `kid` of tokens that are signed with it; none: any.
    id: Option<String>,
    algorithms: Vec<Algorithm>,
    decoding: DecodingKey,
}

/// Why there are no keys.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file cannot be read.
    #[error("cannot read {}", .0.display())]
    Read(PathBuf, #[source] io::Error),
    /// A private key has no business here.
    #[error("{} holds a private key: write its public part (`openssl pkey -pubout`)", .0.display())]
    Private(PathBuf),
    /// It is not what it should be.
    #[error(
        "{} holds no public key that is served: write one in PEM form (BEGIN PUBLIC KEY) or a JWK set, of RSA with \
         2048 bits or more, P-256, P-384 or Ed25519",
        .0.display()
    )]
    Unknown(PathBuf),
    /// It can be guessed.
    #[error("{} holds a secret of less than 32 bytes: make one with `openssl rand -hex 32`", .0.display())]
    Short(PathBuf),
    /// There are too many.
    #[error("{0} keys are too many for tokens: leave at most {most}", most = super::MOST_KEYS)]
    Many(usize),
}

impl Key {
    /// With every algorithm that it can be for; none if there is no such.
    fn new(id: Option<String>, decoding: DecodingKey) -> Option<Self> {
        let algorithms = algorithms(&decoding).to_vec();
        (!algorithms.is_empty()).then_some(Self { id, algorithms, decoding })
    }

    /// Whether a token that says this of itself may be signed with it.
    pub(super) fn is_for(&self, algorithm: Algorithm, id: Option<&str>) -> bool {
        let named = match (&self.id, id) {
            (Some(own), Some(id)) => own == id,
            _ => true,
        };
        named && self.algorithms.contains(&algorithm)
    }

    pub(super) fn decoding(&self) -> &DecodingKey {
        &self.decoding
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        use DecodingKeyKind::{RsaModulusExponent, SecretOrDer};
        let same = match (self.decoding.kind(), other.decoding.kind()) {
            (SecretOrDer(own), SecretOrDer(other)) => own == other,
            (RsaModulusExponent { n, e }, RsaModulusExponent { n: other_n, e: other_e }) => {
                n == other_n && e == other_e
            }
            _ => false,
        };
        same && self.id == other.id && self.algorithms == other.algorithms
    }
}

impl Eq for Key {}

/// Never shows the key itself.
impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key")
            .field("id", &self.id)
            .field("algorithms", &self.algorithms)
            .finish_non_exhaustive()
    }
}

/// What a key of its kind and size can be for (RFC 7518, section 3).
fn algorithms(key: &DecodingKey) -> &'static [Algorithm] {
    use Algorithm::{ES256, ES384, EdDSA, HS256, HS384, HS512, PS256, PS384, PS512, RS256, RS384, RS512};
    match (key.family(), size(key)) {
        (AlgorithmFamily::Rsa, 256..) => &[RS256, RS384, RS512, PS256, PS384, PS512],
        (AlgorithmFamily::Ec, 65) => &[ES256],
        (AlgorithmFamily::Ec, 97) => &[ES384],
        (AlgorithmFamily::Ed, 32) => &[EdDSA],
        (AlgorithmFamily::Hmac, 64..) => &[HS256, HS384, HS512],
        (AlgorithmFamily::Hmac, 48..) => &[HS256, HS384],
        (AlgorithmFamily::Hmac, 32..) => &[HS256],
        _ => &[],
    }
}

/// Bytes of the key, and of an RSA key about those of its modulus.
fn size(key: &DecodingKey) -> usize {
    /// What DER needs for a modulus of 2048 bits besides it: headers, a zero, and an exponent of a byte.
    const DER: usize = 12;
    match (key.kind(), key.family()) {
        (DecodingKeyKind::RsaModulusExponent { n, .. }, _) => n.len() - leading_zeros(n),
        (DecodingKeyKind::SecretOrDer(der), AlgorithmFamily::Rsa) => der.len().saturating_sub(DER),
        (DecodingKeyKind::SecretOrDer(bytes), _) => bytes.len(),
    }
}

pub(super) fn leading_zeros(bytes: &[u8]) -> usize {
    bytes.iter().take_while(|byte| **byte == 0).count()
}

/// The public keys in a file: one in PEM form, or a JWK set, of which those that are of no use here
/// are left out (RFC 7517, section 5).
pub(super) fn public(file: &Path) -> Result<Vec<Key>, KeyError> {
    let text = std::fs::read_to_string(file).map_err(|error| KeyError::Read(file.to_owned(), error))?;
    if text.contains("PRIVATE KEY-----") {
        return Err(KeyError::Private(file.to_owned()));
    }
    let keys = match text.trim_start().starts_with('{') {
        true => key_set(&text),
        false => pem(text.as_bytes()).into_iter().collect(),
    };
    if keys.is_empty() { Err(KeyError::Unknown(file.to_owned())) } else { Ok(keys) }
}

/// The secret in a file, without the end of its line.
pub(super) fn secret(file: &Path) -> Result<Key, KeyError> {
    let bytes = std::fs::read(file).map_err(|error| KeyError::Read(file.to_owned(), error))?;
    let key = Key::new(None, DecodingKey::from_secret(bytes.trim_ascii()));
    key.ok_or_else(|| KeyError::Short(file.to_owned()))
}

fn pem(text: &[u8]) -> Option<Key> {
    if text.windows(b"BEGIN CERTIFICATE".len()).any(|words| words == b"BEGIN CERTIFICATE") {
        return None;
    }
    let read = DecodingKey::from_rsa_pem(text)
        .or_else(|_| DecodingKey::from_ec_pem(text))
        .or_else(|_| DecodingKey::from_ed_pem(text));
    Key::new(None, read.ok()?)
}

fn key_set(text: &str) -> Vec<Key> {
    let set: Result<JwkSet, _> = serde_json::from_str(text);
    let one = || serde_json::from_str::<Jwk>(text).ok();
    let keys = set.map_or_else(|_| one().into_iter().collect(), |set| set.keys);
    keys.iter().filter_map(of_set).collect()
}

fn of_set(jwk: &Jwk) -> Option<Key> {
    let said = &jwk.common;
    if said.public_key_use.as_ref().is_some_and(|purpose| *purpose != PublicKeyUse::Signature) {
        return None;
    }
    let mut key = Key::new(said.key_id.clone(), DecodingKey::from_jwk(jwk).ok()?)?;
    if let Some(only) = said.key_algorithm {
        key.algorithms.retain(|algorithm| KeyAlgorithm::from(*algorithm) == only);
    }
    (!key.algorithms.is_empty()).then_some(key)
}
