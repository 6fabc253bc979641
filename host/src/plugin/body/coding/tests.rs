//! What is decoded, and what is not.

use std::io::Write;

use flate2::{
    Compression,
    write::{DeflateEncoder, GzEncoder, ZlibEncoder},
};

use super::*;

const TEXT: &[u8] = b"the secret is 4111-1111-1111-1111";

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zlib(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn raw_deflate(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// As `brotli` of the reference implementation codes [`TEXT`].
const BROTLI: &[u8] = b"\x1b\x20\x00\xf8\x8d\xc4\x38\x16\xf2\x26\x9c\x29\x65\x4c\x0b\x5d\x83\xd0\x94\xa1\x29\x52\xe2\xa9\x02\x72\xf2\xd1\xe0\x2b\x02";

fn decoded(coding: &str, coded: &[u8], limit: u64) -> Result<Vec<u8>, Unreadable> {
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_ENCODING, coding.parse().unwrap());
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let bytes = runtime.block_on(decode(&of(&headers)?, &Bytes::copy_from_slice(coded), limit))?;
    Ok(bytes.to_vec())
}

#[test]
fn what_is_known_is_decoded() {
    let twice = gzip(&zlib(TEXT));
    let members = [gzip(&TEXT[..10]), gzip(&TEXT[10..])].concat();
    for (coding, coded) in [
        ("gzip", gzip(TEXT)),
        ("X-GZIP", gzip(TEXT)),
        ("gzip", members),
        ("deflate", zlib(TEXT)),
        ("deflate", raw_deflate(TEXT)),
        ("br", BROTLI.to_vec()),
        ("deflate, gzip", twice),
        ("identity", TEXT.to_vec()),
        (" ,identity, ", TEXT.to_vec()),
    ] {
        assert_eq!(decoded(coding, &coded, 33).unwrap(), TEXT, "{coding}");
        if !coding.contains("identity") {
            assert_eq!(decoded(coding, &coded, 32), Err(Unreadable::TooLarge), "{coding}");
            assert_eq!(decoded(coding, b"", 32).unwrap(), b"", "{coding}, of nothing");
        }
    }
}

#[test]
fn what_is_not_known_is_named() {
    for coding in ["zstd", "gzip, compress", "snappy", "gzip;q=1", "gzip, gzip, gzip, gzip", "g\tzip"] {
        assert!(matches!(decoded(coding, b"", 9), Err(Unreadable::Unknown(_))), "{coding}");
    }
}

/// A second reader could find more in it than this one.
#[test]
fn what_is_not_whole_or_more_than_that_is_refused() {
    for (coding, coded) in [
        ("gzip", gzip(TEXT)),
        ("deflate", zlib(TEXT)),
        ("deflate", raw_deflate(TEXT)),
        ("br", BROTLI.to_vec()),
    ] {
        let malformed = |coded: &[u8]| matches!(decoded(coding, coded, 999), Err(Unreadable::Malformed(_)));
        for end in 1..coded.len() {
            assert!(malformed(&coded[..end]), "{coding} up to {end}");
        }
        assert!(malformed(&[&coded, &b"more"[..]].concat()), "{coding} and more");
        assert!(malformed(TEXT), "{coding}: text");
    }
}

#[test]
fn a_bomb_ends_at_the_limit() {
    let bomb = gzip(&vec![0; 64 << 20]);
    assert!(bomb.len() < 100_000);
    assert_eq!(decoded("gzip", &bomb, 1 << 20), Err(Unreadable::TooLarge));
    let nested = gzip(&bomb);
    assert_eq!(decoded("gzip, gzip", &nested, 1 << 10), Err(Unreadable::TooLarge));
}
