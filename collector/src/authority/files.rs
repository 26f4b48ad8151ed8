//! The authority's files: how they are read, and how one step after the other changes them.
//!
//! A change is a list of steps, each of which touches one file and is on disk before the next begins.
//! After any of them the files say again what is so, whatever happens then.
//!
//! ```text
//! ca.key         the authority that signs, 0600
//! ca.pem         all that are trusted, the newest first
//! ca-next.key    the one that follows, 0600
//! ca-cross.pem   the newest as it signed itself, then as the one before signed it
//! ```

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};

use super::AuthorityError;

pub(super) const CA_KEY: &str = "ca.key";
pub(super) const CA: &str = "ca.pem";
pub(super) const NEXT_KEY: &str = "ca-next.key";
pub(super) const CROSS: &str = "ca-cross.pem";
pub(super) const COLLECTOR_KEY: &str = "collector.key";
pub(super) const COLLECTOR: &str = "collector.pem";

/// What a file may be read into: many times what ours have.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// A key is never printed.
pub(super) struct Key(pub(super) Vec<u8>);

/// What lies there, before anything is concluded from it.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) key: Option<Key>,
    pub(super) trusted: Vec<CertificateDer<'static>>,
    pub(super) next_key: Option<Key>,
    pub(super) cross: Vec<CertificateDer<'static>>,
    pub(super) collector_key: Option<Key>,
    pub(super) collector: Vec<CertificateDer<'static>>,
}

/// One change of one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Write { name: &'static str, text: String, is_secret: bool },
    Move { from: &'static str, to: &'static str },
    Remove { name: &'static str },
}

impl Step {
    pub(super) fn certificates<'a>(
        name: &'static str,
        certificates: impl IntoIterator<Item = &'a CertificateDer<'static>>,
    ) -> Self {
        let text = certificates.into_iter().map(|der| pem("CERTIFICATE", der)).collect();
        Self::Write { name, text, is_secret: false }
    }

    pub(super) fn key(name: &'static str, pkcs8: &[u8]) -> Self {
        Self::Write { name, text: pem("PRIVATE KEY", pkcs8), is_secret: true }
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key")
    }
}

pub(super) fn read(dir: &Path) -> Result<Found, AuthorityError> {
    Ok(Found {
        key: key(dir, CA_KEY)?,
        trusted: certificates(dir, CA)?,
        next_key: key(dir, NEXT_KEY)?,
        cross: certificates(dir, CROSS)?,
        collector_key: key(dir, COLLECTOR_KEY)?,
        collector: certificates(dir, COLLECTOR)?,
    })
}

pub(super) fn carry_out(dir: &Path, steps: &[Step]) -> Result<(), AuthorityError> {
    steps.iter().try_for_each(|step| {
        let (name, done) = match step {
            Step::Write { name, text, is_secret } => (name, write(dir, name, text.as_bytes(), *is_secret)),
            Step::Move { from, to } => (from, fs::rename(dir.join(from), dir.join(to))),
            Step::Remove { name } => (name, fs::remove_file(dir.join(name))),
        };
        done.and_then(|()| File::open(dir)?.sync_all())
            .map_err(|source| AuthorityError::File { path: dir.join(name), source })
    })
}

/// Whole or not at all.
fn write(dir: &Path, name: &str, bytes: &[u8], is_secret: bool) -> io::Result<()> {
    let fresh = dir.join(format!("{name}.new"));
    // One that a crash left behind may have been made with another mode.
    fs::remove_file(&fresh).or_else(|error| if error.kind() == ErrorKind::NotFound { Ok(()) } else { Err(error) })?;
    let mode = if is_secret { 0o600 } else { 0o644 };
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&fresh)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&fresh, dir.join(name))
}

fn key(dir: &Path, name: &str) -> Result<Option<Key>, AuthorityError> {
    let Some(bytes) = bytes(dir, name)? else { return Ok(None) };
    let key = PrivatePkcs8KeyDer::from_pem_slice(&bytes).map_err(|reason| unreadable(dir, name, &reason))?;
    Ok(Some(Key(key.secret_pkcs8_der().to_vec())))
}

/// None when the file is not there; a file without any is an error.
fn certificates(dir: &Path, name: &str) -> Result<Vec<CertificateDer<'static>>, AuthorityError> {
    let Some(bytes) = bytes(dir, name)? else { return Ok(Vec::new()) };
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    let found = found.map_err(|reason| unreadable(dir, name, &reason))?;
    if found.is_empty() { Err(unreadable(dir, name, &"it holds no certificate")) } else { Ok(found) }
}

fn bytes(dir: &Path, name: &str) -> Result<Option<Vec<u8>>, AuthorityError> {
    let path = dir.join(name);
    let read = fs::metadata(&path).and_then(|found| {
        if found.len() > FILE_BYTES_MAX {
            return Err(io::Error::new(ErrorKind::FileTooLarge, "it is too large to be one of ours"));
        }
        fs::read(&path)
    });
    match read {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(source) => Err(AuthorityError::File { path, source }),
    }
}

fn unreadable(dir: &Path, name: &str, reason: &dyn std::fmt::Display) -> AuthorityError {
    AuthorityError::Unreadable { path: dir.join(name), reason: reason.to_string() }
}

/// RFC 7468 text: base64 in lines of 64.
fn pem(label: &str, der: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = format!("-----BEGIN {label}-----\n");
    for line in der.chunks(48) {
        for three in line.chunks(3) {
            let bits = three.iter().fold(0_u32, |bits, &byte| bits << 8 | u32::from(byte)) << (8 * (3 - three.len()));
            for place in 0..4 {
                let digit = ALPHABET[(bits >> (18 - 6 * place) & 63) as usize];
                text.push(if place > three.len() { '=' } else { char::from(digit) });
            }
        }
        text.push('\n');
    }
    text + &format!("-----END {label}-----\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back_at_every_length() {
        for len in 1..=100_u8 {
            let der: Vec<u8> = (0..len).collect();
            let read = CertificateDer::from_pem_slice(pem("CERTIFICATE", &der).as_bytes()).expect("it is PEM");
            assert_eq!(read.as_ref(), der, "{len} bytes");
        }
    }
}
