//! TLS by files: a certificate and its key, read again when the operator says so.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject as _};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{self, ServerConfig};

/// What a server shows who it is with. New connections take what was read last.
pub struct Tls {
    certificate: PathBuf,
    key: PathBuf,
    current: RwLock<Arc<ServerConfig>>,
}

/// Why there is no TLS with these files.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{} cannot be read", .path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
    /// A file is not what it should be.
    #[error("{} has no {what} in the form PEM", .path.display())]
    Missing {
        /// Which file.
        path: PathBuf,
        /// What was looked for.
        what: &'static str,
        /// What was found instead.
        source: pem::Error,
    },
    /// The two do not make a server.
    #[error("the certificate {} cannot be used with the key {}", .certificate.display(), .key.display())]
    Unusable {
        /// The file of the certificate.
        certificate: PathBuf,
        /// The file of the key.
        key: PathBuf,
        /// What is wrong.
        source: rustls::Error,
    },
}

/// The protocols inside, the preferred one first.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

impl Tls {
    /// Reads the certificate, with those that vouch for it behind it, and its key.
    ///
    /// # Errors
    /// If a file cannot be read or used.
    pub fn load(certificate: &Path, key: &Path) -> Result<Self, TlsError> {
        let current = RwLock::new(read(certificate, key)?);
        Ok(Self { certificate: certificate.to_owned(), key: key.to_owned(), current })
    }

    /// Reads the files again, for the connections to come.
    ///
    /// # Errors
    /// If a file cannot be read or used; then everything stays as it is.
    pub fn reload(&self) -> Result<(), TlsError> {
        let read = read(&self.certificate, &self.key)?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = read;
        Ok(())
    }

    /// What makes a connection a secure one.
    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner)))
    }
}

fn read(certificate: &Path, key: &Path) -> Result<Arc<ServerConfig>, TlsError> {
    let bytes = |path: &Path| fs::read(path).map_err(|source| TlsError::Unreadable { path: path.to_owned(), source });
    let missing = |path: &Path, what| {
        let path = path.to_owned();
        move |source| TlsError::Missing { path, what, source }
    };
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes(certificate)?).collect();
    let chain = chain.and_then(|chain| if chain.is_empty() { Err(pem::Error::NoItemsFound) } else { Ok(chain) });
    let chain = chain.map_err(missing(certificate, "certificate"))?;
    let private = PrivateKeyDer::from_pem_slice(&bytes(key)?).map_err(missing(key, "private key"))?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, private))
        .map_err(|source| TlsError::Unusable { certificate: certificate.to_owned(), key: key.to_owned(), source })?;
    config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_make_no_server_are_said_in_words_and_a_failed_reload_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let pair = || rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs::write(&path, text).unwrap();
            path
        };
        let (one, other) = (pair(), pair());
        let certificate = write("one.pem", &one.cert.pem());
        let key = write("one.key", &one.signing_key.serialize_pem());
        let other_key = write("other.key", &other.signing_key.serialize_pem());
        let empty = write("empty.pem", "");
        let error = |certificate: &Path, key: &Path| match Tls::load(certificate, key) {
            Ok(_) => "taken".to_owned(),
            Err(error) => error.to_string().replace(&format!("{}/", folder.path().display()), ""),
        };
        assert_eq!(error(&certificate, &key), "taken");
        assert_eq!(error(&empty, &key), "empty.pem has no certificate in the form PEM");
        assert_eq!(error(&certificate, &certificate), "one.pem has no private key in the form PEM");
        assert_eq!(error(&certificate, &other_key), "the certificate one.pem cannot be used with the key other.key");
        assert_eq!(error(&folder.path().join("nothing.pem"), &key), "nothing.pem cannot be read");

        let tls = Tls::load(&certificate, &key).unwrap();
        let before = Arc::clone(&tls.current.read().unwrap());
        write("one.key", "");
        assert!(tls.reload().is_err());
        assert!(Arc::ptr_eq(&before, &tls.current.read().unwrap()));
        write("one.pem", &other.cert.pem());
        write("one.key", &other.signing_key.serialize_pem());
        tls.reload().unwrap();
        assert!(!Arc::ptr_eq(&before, &tls.current.read().unwrap()));
    }
}
