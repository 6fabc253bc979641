//! Bytes that are read back as they were written, or not at all: every bit of what this module writes is covered by
//! a checksum, and what is wrong is named with its file and offset. A leaf.
//!
//! [`log`] is a file of records that grows, whose last record may be torn by a crash and whose others may not; it
//! tells a write that was refused from one of which nothing is known. [`whole`] is a small JSON document that is
//! replaced as a whole. [`storage`] is the seam to the disk under the log, at which tests make it fail.
//!
//! It knows what a record is, and nothing of what is in one; the group commit of plugins' state is in
//! `plugin::state`.

pub mod log;
pub mod record;
pub mod storage;
pub mod whole;

use std::fmt::Write;

use sha2::{Digest, Sha256};

/// The end of the name of a file that was set aside because it is wrong.
pub const DAMAGED: &str = ".damaged";

/// The SHA-256 of these bytes, in 64 hexadecimal digits.
pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold(String::with_capacity(64), |mut digits, byte| {
        let _ = write!(digits, "{byte:02x}");
        digits
    })
}
