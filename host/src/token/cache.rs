//! Remembers the tokens that were believed, so that a client that sends one with every message
//! costs one signature. Those that were not are forgotten: they would only drive others out.

use std::{collections::HashMap, mem, sync::Arc};

use parking_lot::Mutex;
use ring::digest;

use super::{Doubt, Verified, Verifier};

/// So many tokens are remembered at most, in two halves.
pub(super) const TOKENS: usize = 8192;

type Hash = [u8; 32];
type Half = HashMap<Hash, Arc<Verified>, foldhash::fast::RandomState>;

/// Of one worker. Keyed by the tokens' SHA-256, so that they are not kept themselves.
#[derive(Default)]
pub struct Cache(Mutex<Remembered>);

#[derive(Default)]
pub(super) struct Remembered {
    /// By which they were verified: others may not believe them.
    verifier: Option<Arc<Verifier>>,
    recent: Half,
    /// What was recent once; forgotten when `recent` is full again.
    earlier: Half,
}

/// What came of a token.
pub enum Looked {
    /// It was verified before.
    Remembered(Arc<Verified>),
    /// It was verified now.
    Verified(Arc<Verified>),
}

impl Cache {
    /// As [`Verifier::verify`], at this second since the Unix epoch.
    pub fn verify(&self, verifier: &Arc<Verifier>, token: &str, now: u64) -> Result<Looked, Doubt> {
        let hash = hash(token);
        if let Some(known) = self.0.lock().find(verifier, &hash) {
            return if known.holds(now) { Ok(Looked::Remembered(known)) } else { Err(Doubt::Expired) };
        }
        let verified = Arc::new(verifier.verify(token)?);
        self.0.lock().keep(verifier, hash, Arc::clone(&verified));
        Ok(Looked::Verified(verified))
    }
}

impl Remembered {
    pub(super) fn find(&mut self, verifier: &Arc<Verifier>, hash: &Hash) -> Option<Arc<Verified>> {
        self.forget_others(verifier);
        if let Some(known) = self.recent.get(hash) {
            return Some(Arc::clone(known));
        }
        let known = self.earlier.remove(hash)?;
        self.put(*hash, Arc::clone(&known));
        Some(known)
    }

    pub(super) fn keep(&mut self, verifier: &Arc<Verifier>, hash: Hash, verified: Arc<Verified>) {
        self.forget_others(verifier);
        self.put(hash, verified);
    }

    fn put(&mut self, hash: Hash, verified: Arc<Verified>) {
        if self.recent.len() >= TOKENS / 2 {
            self.earlier = mem::take(&mut self.recent);
        }
        self.recent.insert(hash, verified);
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.recent.len() + self.earlier.len()
    }

    fn forget_others(&mut self, verifier: &Arc<Verifier>) {
        if self.verifier.as_ref().is_none_or(|known| !Arc::ptr_eq(known, verifier)) {
            *self = Self { verifier: Some(Arc::clone(verifier)), ..Self::default() };
        }
    }
}

fn hash(token: &str) -> Hash {
    let digest = digest::digest(&digest::SHA256, token.as_bytes());
    digest.as_ref().try_into().expect("SHA-256 gives 32 bytes")
}
