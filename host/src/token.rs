//! Tokens of clients: JSON Web Tokens (RFC 7519) that say who sends a message, and whether that is
//! to be believed.
//!
//! A key says which algorithms it is for, and what a token says of its own can only choose among
//! them: so a public key is never taken for a secret, and `none` is no algorithm (RFC 8725, section
//! 3.1). A signature is checked once for each token and worker: [`Cache`] remembers those that were
//! good. Knows keys and claims, not messages; never shows a token.

mod cache;
mod crypto;
mod keys;
#[cfg(test)]
mod tests;

use std::{path::PathBuf, sync::Arc, time::Duration};

use jsonwebtoken::{Algorithm, Validation, errors::ErrorKind};
use serde_json::{Map, Value};

pub use self::{
    cache::{Cache, Looked},
    keys::{Key, KeyError},
};

/// The most keys that a token may be signed with.
const MOST_KEYS: usize = 64;

/// `[proxy.token]`: which tokens are believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Files with a public key in PEM form, or with a JWK set.
    pub keys: Vec<PathBuf>,
    /// A file with a secret that whoever issues tokens knows too.
    pub secret_file: Option<PathBuf>,
    /// One of these must have issued a token; empty: anybody with a key.
    pub issuer: Vec<String>,
    /// A token must be for one of these; empty: it may name no audience.
    pub audience: Vec<String>,
    /// By how much clocks may differ.
    pub leeway: Duration,
    /// Whether a message without a token that is believed is refused.
    pub required: bool,
    /// The claims that are asked for.
    pub claims: Vec<Arc<str>>,
}

/// [`Rules`] with their keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verifier {
    rules: Rules,
    keys: Vec<Key>,
}

/// What a token says that is believed.
#[derive(Debug, PartialEq, Eq)]
pub struct Verified {
    /// Seconds since the Unix epoch; the leeway is in it.
    until: u64,
    claims: Vec<(Arc<str>, Arc<str>)>,
}

/// Why a token is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Doubt {
    /// It cannot be read; an algorithm that is not known, such as `none`, is a reason for that.
    #[error("it is no JSON Web Token, or has an algorithm that is not served")]
    Malformed,
    /// No key is for its algorithm and the key id that it names.
    #[error("no key is for its algorithm and key id")]
    Key,
    /// None of the keys that are made that signature.
    #[error("its signature is wrong")]
    Signature,
    /// `exp`
    #[error("it has expired")]
    Expired,
    /// `nbf`
    #[error("it is not valid yet")]
    Early,
    /// `iss`
    #[error("it has another issuer")]
    Issuer,
    /// `aud`
    #[error("it is for another audience")]
    Audience,
    /// A claim that must be there is not, or is no claim of its kind.
    #[error("a claim is missing or malformed: exp is needed, and iss and aud where they are checked")]
    Claim,
}

impl Doubt {
    /// Each of them.
    pub const ALL: [Self; 8] = [
        Self::Malformed,
        Self::Key,
        Self::Signature,
        Self::Expired,
        Self::Early,
        Self::Issuer,
        Self::Audience,
        Self::Claim,
    ];

    /// In a word, for metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Key => "key",
            Self::Signature => "signature",
            Self::Expired => "expired",
            Self::Early => "early",
            Self::Issuer => "issuer",
            Self::Audience => "audience",
            Self::Claim => "claim",
        }
    }

    fn of(kind: &ErrorKind) -> Self {
        match kind {
            ErrorKind::InvalidSignature => Self::Signature,
            ErrorKind::InvalidAlgorithm => Self::Key,
            ErrorKind::ExpiredSignature => Self::Expired,
            ErrorKind::ImmatureSignature => Self::Early,
            ErrorKind::InvalidIssuer => Self::Issuer,
            ErrorKind::InvalidAudience => Self::Audience,
            ErrorKind::MissingRequiredClaim(_) | ErrorKind::InvalidClaimFormat(_) => Self::Claim,
            _ => Self::Malformed,
        }
    }
}

impl Rules {
    /// Reads the keys.
    pub fn load(&self) -> Result<Verifier, KeyError> {
        crypto::install();
        let mut found = Vec::new();
        for file in &self.keys {
            found.extend(keys::public(file)?);
        }
        if let Some(file) = &self.secret_file {
            found.push(keys::secret(file)?);
        }
        if found.len() > MOST_KEYS {
            return Err(KeyError::Many(found.len()));
        }
        Ok(Verifier { rules: self.clone(), keys: found })
    }
}

impl Verifier {
    /// Whether a message without a token that is believed is refused.
    pub fn is_required(&self) -> bool {
        self.rules.required
    }

    /// What a token says, if it is to be believed now.
    pub fn verify(&self, token: &str) -> Result<Verified, Doubt> {
        let header = jsonwebtoken::decode_header(token).map_err(|_| Doubt::Malformed)?;
        if header.crit.is_some() {
            // What must be understood is not (RFC 7515, section 4.1.11).
            return Err(Doubt::Malformed);
        }
        let validation = self.validation(header.alg);
        let mut doubt = Doubt::Key;
        for key in self.keys.iter().filter(|key| key.is_for(header.alg, header.kid.as_deref())) {
            match jsonwebtoken::decode::<Map<String, Value>>(token, key.decoding(), &validation) {
                Ok(token) => return self.believe(&token.claims),
                Err(error) => doubt = Doubt::of(error.kind()),
            }
            if doubt != Doubt::Signature {
                break;
            }
        }
        Err(doubt)
    }

    fn validation(&self, algorithm: Algorithm) -> Validation {
        let mut validation = Validation::new(algorithm);
        validation.leeway = self.rules.leeway.as_secs();
        validation.validate_nbf = true;
        let mut required = vec!["exp"];
        if !self.rules.issuer.is_empty() {
            validation.set_issuer(&self.rules.issuer);
            required.push("iss");
        }
        if !self.rules.audience.is_empty() {
            validation.set_audience(&self.rules.audience);
            required.push("aud");
        }
        validation.set_required_spec_claims(&required);
        validation
    }

    fn believe(&self, claims: &Map<String, Value>) -> Result<Verified, Doubt> {
        let seconds = |value: &Value| value.as_u64().or_else(|| value.as_f64().map(|exp| exp as u64));
        let until = claims.get("exp").and_then(seconds).ok_or(Doubt::Claim)?;
        let wanted = self.rules.claims.iter().filter_map(|name| {
            let claim = claims.get(&**name)?.as_str()?;
            Some((Arc::clone(name), claim.into()))
        });
        let until = until.saturating_add(self.rules.leeway.as_secs());
        Ok(Verified { until, claims: wanted.collect() })
    }
}

impl Verified {
    /// A claim that was asked for, if it is there and is text.
    pub fn claim(&self, name: &str) -> Option<&Arc<str>> {
        self.claims.iter().find(|(claim, _)| **claim == *name).map(|(_, text)| text)
    }

    /// Whether it is still to be believed at this second since the Unix epoch.
    fn holds(&self, now: u64) -> bool {
        now <= self.until
    }
}
