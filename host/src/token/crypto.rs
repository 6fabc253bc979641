//! How signatures of tokens are verified: with `ring`, which the rest of the gateway uses too. The
//! token library leaves that to whoever uses it.

use jsonwebtoken::{
    Algorithm, AlgorithmFamily, DecodingKey, DecodingKeyKind, EncodingKey,
    crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils},
    errors::{ErrorKind, new_error},
    signature::{self, Verifier},
};
use ring::{
    hmac,
    rsa::PublicKeyComponents,
    signature::{self as public, RsaParameters, UnparsedPublicKey, VerificationAlgorithm},
};

use super::keys::leading_zeros;

static PROVIDER: CryptoProvider = CryptoProvider {
    signer_factory: refuse_to_sign,
    verifier_factory: verifier,
    key_utils: KeyUtils::new_unimplemented(),
};

/// Makes the token library use what is here.
pub(super) fn install() {
    // Only the first call can succeed, and it has set the same.
    let _ = PROVIDER.install_default();
}

fn refuse_to_sign(_: &Algorithm, _: &EncodingKey) -> jsonwebtoken::errors::Result<Box<dyn JwtSigner>> {
    Err(new_error(ErrorKind::UnsupportedAlgorithm))
}

fn verifier(algorithm: &Algorithm, key: &DecodingKey) -> jsonwebtoken::errors::Result<Box<dyn JwtVerifier>> {
    if algorithm.family() != key.family() {
        return Err(new_error(ErrorKind::InvalidAlgorithm));
    }
    let check = check(*algorithm, key).ok_or_else(|| new_error(ErrorKind::UnsupportedAlgorithm))?;
    Ok(Box::new(Ring { algorithm: *algorithm, check }))
}

struct Ring {
    algorithm: Algorithm,
    check: Check,
}

/// What a signature is checked with.
enum Check {
    Secret(hmac::Key),
    Public(UnparsedPublicKey<Vec<u8>>),
    Components(&'static RsaParameters, PublicKeyComponents<Vec<u8>>),
}

fn check(algorithm: Algorithm, key: &DecodingKey) -> Option<Check> {
    match (key.kind(), key.family()) {
        (DecodingKeyKind::SecretOrDer(secret), AlgorithmFamily::Hmac) => {
            Some(Check::Secret(hmac::Key::new(digest(algorithm)?, secret)))
        }
        (DecodingKeyKind::SecretOrDer(der), AlgorithmFamily::Rsa) => {
            Some(Check::Public(UnparsedPublicKey::new(rsa(algorithm)?, der.clone())))
        }
        (DecodingKeyKind::SecretOrDer(bytes), AlgorithmFamily::Ec | AlgorithmFamily::Ed) => {
            Some(Check::Public(UnparsedPublicKey::new(curve(algorithm)?, bytes.clone())))
        }
        (DecodingKeyKind::RsaModulusExponent { n, e }, _) => {
            let number = |bytes: &[u8]| bytes[leading_zeros(bytes)..].to_vec();
            Some(Check::Components(rsa(algorithm)?, PublicKeyComponents { n: number(n), e: number(e) }))
        }
    }
}

fn digest(algorithm: Algorithm) -> Option<hmac::Algorithm> {
    match algorithm {
        Algorithm::HS256 => Some(hmac::HMAC_SHA256),
        Algorithm::HS384 => Some(hmac::HMAC_SHA384),
        Algorithm::HS512 => Some(hmac::HMAC_SHA512),
        _ => None,
    }
}

fn rsa(algorithm: Algorithm) -> Option<&'static RsaParameters> {
    match algorithm {
        Algorithm::RS256 => Some(&public::RSA_PKCS1_2048_8192_SHA256),
        Algorithm::RS384 => Some(&public::RSA_PKCS1_2048_8192_SHA384),
        Algorithm::RS512 => Some(&public::RSA_PKCS1_2048_8192_SHA512),
        Algorithm::PS256 => Some(&public::RSA_PSS_2048_8192_SHA256),
        Algorithm::PS384 => Some(&public::RSA_PSS_2048_8192_SHA384),
        Algorithm::PS512 => Some(&public::RSA_PSS_2048_8192_SHA512),
        _ => None,
    }
}

fn curve(algorithm: Algorithm) -> Option<&'static dyn VerificationAlgorithm> {
    match algorithm {
        Algorithm::ES256 => Some(&public::ECDSA_P256_SHA256_FIXED),
        Algorithm::ES384 => Some(&public::ECDSA_P384_SHA384_FIXED),
        Algorithm::EdDSA => Some(&public::ED25519),
        _ => None,
    }
}

impl Verifier<Vec<u8>> for Ring {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> Result<(), signature::Error> {
        let checked = match &self.check {
            Check::Secret(key) => hmac::verify(key, message, signature),
            Check::Public(key) => key.verify(message, signature),
            Check::Components(parameters, key) => key.verify(parameters, message, signature),
        };
        checked.map_err(|_| signature::Error::new())
    }
}

impl JwtVerifier for Ring {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}
