//! TLS for those who ask: rustls with ring, as towards Consul. The files are looked at again when clients come.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};
use thiserror::Error;
use tokio_rustls::TlsAcceptor;

use crate::config::HttpTls;
use crate::errors::with_causes;
use crate::secrets::{Reading, Renewable};

/// A file of `HTTP_TLS_*` that is of no use.
#[derive(Debug, Error)]
pub(crate) enum TlsError {
    /// It cannot be read.
    #[error("could not read {} of {variable}", path.display())]
    File {
        /// The variable that names it.
        variable: &'static str,
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// It holds something else.
    #[error("{variable} is {}, allowed is {allowed}", path.display())]
    Pem {
        /// The variable that names it.
        variable: &'static str,
        /// The file.
        path: PathBuf,
        /// What would have been right.
        allowed: &'static str,
        /// What was found.
        source: pem::Error,
    },
    /// A certificate that is no authority's, or none at all.
    #[error("could not use HTTP_TLS_CLIENT_CA")]
    Authorities {
        /// What rustls said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Certificate and key do not belong together.
    #[error("could not use HTTP_TLS_CERT with HTTP_TLS_KEY")]
    Pair {
        /// What rustls said.
        source: rustls::Error,
    },
}

/// How connections begin; clones share it.
#[derive(Clone)]
pub(super) struct Tls {
    current: Renewable<Material>,
}

/// What the files held, and what was made of that.
struct Material {
    files: Files,
    acceptor: TlsAcceptor,
}

#[derive(PartialEq, Eq)]
struct Files {
    certificate: Vec<u8>,
    key: Vec<u8>,
    client_authorities: Option<Vec<u8>>,
}

const CERT: &str = "HTTP_TLS_CERT";
const KEY: &str = "HTTP_TLS_KEY";
const CLIENT_CA: &str = "HTTP_TLS_CLIENT_CA";

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// One of them is of no use.
    pub(super) fn read(config: HttpTls) -> Result<Self, TlsError> {
        let first = Files::read(&config)?.material(&config)?;
        let clients = config.client_authorities.is_some().then_some(CLIENT_CA);
        let names: Vec<&str> = [CERT, KEY].into_iter().chain(clients).collect();
        let names = names.join(", ");
        let said = names.clone();
        let current = Renewable::renewed_by(first, names, move |known: &Material| {
            let found = Files::read(&config).and_then(|files| {
                let is_new = files != known.files;
                is_new.then(|| files.material(&config)).transpose()
            });
            match found {
                Ok(changed) => Reading {
                    changed: changed.map(|material| (material, said.clone())),
                    complaints: Vec::new(),
                },
                Err(error) => Reading {
                    changed: None,
                    complaints: vec![with_causes(&error)],
                },
            }
        });
        Ok(Self { current })
    }

    /// What a connection begins with. Nobody refuses a server's certificate that has run out in a way that it would hear
    /// of, so each connection is a reason to look at the files again.
    pub(super) fn acceptor(&self) -> TlsAcceptor {
        self.current.may_have_changed();
        self.current.get().acceptor.clone()
    }
}

impl Files {
    fn read(config: &HttpTls) -> Result<Self, TlsError> {
        let clients = config.client_authorities.as_deref();
        Ok(Self {
            certificate: read(CERT, &config.certificate)?,
            key: read(KEY, &config.key)?,
            client_authorities: clients.map(|path| read(CLIENT_CA, path)).transpose()?,
        })
    }

    fn material(self, config: &HttpTls) -> Result<Material, TlsError> {
        let chain = certificates(CERT, &config.certificate, &self.certificate)?;
        let key = PrivateKeyDer::from_pem_slice(&self.key).map_err(|source| TlsError::Pem {
            variable: KEY,
            path: config.key.clone(),
            allowed: "a file with a private key",
            source,
        })?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let pair = |source| TlsError::Pair { source };
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(pair)?;
        let builder = match (&config.client_authorities, &self.client_authorities) {
            (Some(path), Some(text)) => {
                let mut roots = RootCertStore::empty();
                for certificate in certificates(CLIENT_CA, path, text)? {
                    roots.add(certificate).map_err(authorities)?;
                }
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                        .build()
                        .map_err(|source: VerifierBuilderError| authorities(source))?;
                builder.with_client_cert_verifier(verifier)
            }
            (_, _) => builder.with_no_client_auth(),
        };
        let mut server = builder.with_single_cert(chain, key).map_err(pair)?;
        server.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Material {
            files: self,
            acceptor: TlsAcceptor::from(Arc::new(server)),
        })
    }
}

fn authorities(source: impl std::error::Error + Send + Sync + 'static) -> TlsError {
    TlsError::Authorities {
        source: Box::new(source),
    }
}

fn certificates(
    variable: &'static str,
    path: &Path,
    text: &[u8],
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let unusable = |source| TlsError::Pem {
        variable,
        path: path.to_owned(),
        allowed: "a file with at least one certificate",
        source,
    };
    let found = CertificateDer::pem_slice_iter(text)
        .collect::<Result<Vec<_>, pem::Error>>()
        .map_err(unusable)?;
    if found.is_empty() {
        return Err(unusable(pem::Error::NoItemsFound));
    }
    Ok(found)
}

fn read(variable: &'static str, path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|source| TlsError::File {
        variable,
        path: path.to_owned(),
        source,
    })
}
