//! One TLS configuration for every way we talk to Consul: rustls with ring, named explicitly, so that nothing
//! depends on a process-wide default that another crate may set.

use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use super::error::SetupError;
use crate::config::ConsulTls;

/// How long an unused connection to Consul is kept: longer than the longest interval between two calls.
pub(super) const IDLE_TIMEOUT: Duration = Duration::from_secs(90);

/// What the files hold for a Consul that is spoken to over https: the authorities to trust, and our own certificate.
pub(super) struct Material {
    /// `None`: any server is trusted.
    authorities: Option<RootCertStore>,
    client: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
}

impl Clone for Material {
    fn clone(&self) -> Self {
        let client = self.client.as_ref();
        Self {
            authorities: self.authorities.clone(),
            client: client.map(|(chain, key)| (chain.clone(), key.clone_key())),
        }
    }
}

impl Material {
    /// Reads the files.
    ///
    /// # Errors
    /// A file that cannot be read or used, by its variable.
    pub(super) fn read(tls: &ConsulTls) -> Result<Self, SetupError> {
        let authorities = (!tls.skip_verify).then(|| authorities(tls)).transpose()?;
        let client = match &tls.client {
            Some((certificate, key)) => {
                let chain = certificates("CONSUL_CLIENT_CERT", certificate)?;
                Some((chain, private_key(key)?))
            }
            None => None,
        };
        Ok(Self {
            authorities,
            client,
        })
    }

    /// The variables that name the files; where none names authorities, they are the system's.
    pub(super) fn variables(tls: &ConsulTls) -> Vec<&'static str> {
        let mut names = match (tls.skip_verify, &tls.ca_file, &tls.ca_path) {
            (true, _, _) => vec![],
            (false, None, None) => vec![SYSTEMS],
            (false, file, path) => {
                let file = file.as_ref().map(|_| "CONSUL_CACERT");
                file.into_iter()
                    .chain(path.as_ref().map(|_| "CONSUL_CAPATH"))
                    .collect()
            }
        };
        if tls.client.is_some() {
            names.extend(["CONSUL_CLIENT_CERT", "CONSUL_CLIENT_KEY"]);
        }
        names
    }

    /// The variables of the files in which `newer` found something else.
    pub(super) fn changed(&self, newer: &Self, tls: &ConsulTls) -> Vec<&'static str> {
        let roots = |it: &Self| it.authorities.as_ref().map(|store| store.roots.clone());
        let (old, new) = (self.client.as_ref(), newer.client.as_ref());
        let is_kept = |name: &&str| match *name {
            "CONSUL_CLIENT_CERT" => old.map(|it| &it.0) == new.map(|it| &it.0),
            "CONSUL_CLIENT_KEY" => old.map(|it| &it.1) == new.map(|it| &it.1),
            _ => roots(self) == roots(newer),
        };
        let mut names = Self::variables(tls);
        names.retain(|name| !is_kept(name));
        names
    }

    /// # Errors
    /// Certificate and key do not belong together, by their variables.
    pub(super) fn client_config(&self, tls: &ConsulTls) -> Result<ClientConfig, SetupError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|source| SetupError::Client {
                source: source.into(),
            })?;
        let Self {
            authorities,
            client,
        } = self.clone();
        let builder = match authorities {
            None => builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(AnyCertificate { provider })),
            Some(authorities) => builder.with_root_certificates(authorities),
        };
        let (Some((certificate, key)), Some((chain, private))) = (&tls.client, client) else {
            return Ok(builder.with_no_client_auth());
        };
        builder
            .with_client_auth_cert(chain, private)
            .map_err(|source| SetupError::ClientCertificate {
                certificate: certificate.clone(),
                key: key.clone(),
                source,
            })
    }
}

/// What stands for a variable where none names the authorities.
const SYSTEMS: &str = "the system's certificate authorities";

/// The configuration for a Consul that is spoken to over plain http: it trusts nobody and is never asked to.
/// Both clients want one all the same, and would look for a process-wide provider if they were given none.
///
/// # Errors
/// Never in practice: ring supports the protocol versions that rustls defaults to.
pub(super) fn unused() -> Result<ClientConfig, SetupError> {
    let builder =
        ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|source| SetupError::Client {
                source: source.into(),
            })?;
    Ok(builder
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth())
}

/// `CONSUL_TLS_SERVER_NAME` as a name that can be asked for (SNI) and proven (certificate).
///
/// # Errors
/// It is not a host name. An IP address is none: it cannot be asked for.
pub(super) fn server_name(name: &str) -> Result<ServerName<'static>, SetupError> {
    let refused = || SetupError::ServerName {
        name: name.to_owned(),
    };
    if name.parse::<IpAddr>().is_ok() {
        return Err(refused());
    }
    ServerName::try_from(name.to_owned()).map_err(|_| refused())
}

/// Resolves any name to the addresses of one host.
///
/// reqwest has no setting for the server's name: it asks for, and checks, the host in the URL. So the URL carries the
/// name to prove, and this says where that is.
pub(super) struct AddressOf {
    /// The host that is really connected to.
    pub(super) host: Arc<str>,
}

impl Resolve for AddressOf {
    fn resolve(&self, _: Name) -> Resolving {
        let host = Arc::clone(&self.host);
        Box::pin(async move {
            let found: Vec<_> = tokio::net::lookup_host((&*host, 0)).await?.collect();
            let found: Addrs = Box::new(found.into_iter());
            Ok(found)
        })
    }
}

fn authorities(tls: &ConsulTls) -> Result<RootCertStore, SetupError> {
    let mut roots = RootCertStore::empty();
    if let Some(file) = &tls.ca_file {
        trust(
            "CONSUL_CACERT",
            file,
            certificates("CONSUL_CACERT", file)?,
            &mut roots,
        )?;
    }
    if let Some(directory) = &tls.ca_path {
        trust_directory("CONSUL_CAPATH", directory, &mut roots)?;
    }
    if tls.ca_file.is_none() && tls.ca_path.is_none() {
        let found = rustls_native_certs::load_native_certs();
        // A system's store may hold certificates that rustls cannot read; the others still count.
        roots.add_parsable_certificates(found.certs);
        if roots.is_empty() {
            return Err(SetupError::NoAuthorities {
                source: found.errors.into_iter().next(),
            });
        }
    }
    Ok(roots)
}

/// Every PEM file in the directory; files of another kind are passed over, but one certificate there must be.
fn trust_directory(
    variable: &'static str,
    directory: &Path,
    roots: &mut RootCertStore,
) -> Result<(), SetupError> {
    let unreadable = |source| SetupError::File {
        variable,
        path: directory.to_owned(),
        source,
    };
    for entry in std::fs::read_dir(directory).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        if !path.is_file() {
            continue;
        }
        match certificates(variable, &path) {
            Ok(found) => trust(variable, &path, found, roots)?,
            Err(SetupError::Pem {
                source: pem::Error::NoItemsFound,
                ..
            }) => {}
            Err(other) => return Err(other),
        }
    }
    if roots.is_empty() {
        return Err(SetupError::Pem {
            variable,
            path: directory.to_owned(),
            allowed: "a directory with at least one certificate",
            source: pem::Error::NoItemsFound,
        });
    }
    Ok(())
}

fn trust(
    variable: &'static str,
    path: &Path,
    found: Vec<CertificateDer<'static>>,
    roots: &mut RootCertStore,
) -> Result<(), SetupError> {
    for certificate in found {
        roots
            .add(certificate)
            .map_err(|source| SetupError::Authority {
                variable,
                path: path.to_owned(),
                source,
            })?;
    }
    Ok(())
}

fn certificates(
    variable: &'static str,
    path: &Path,
) -> Result<Vec<CertificateDer<'static>>, SetupError> {
    let unusable = |source| SetupError::Pem {
        variable,
        path: path.to_owned(),
        allowed: "a file with at least one certificate",
        source,
    };
    let text = read(variable, path)?;
    let found = CertificateDer::pem_slice_iter(&text)
        .collect::<Result<Vec<_>, pem::Error>>()
        .map_err(unusable)?;
    if found.is_empty() {
        return Err(unusable(pem::Error::NoItemsFound));
    }
    Ok(found)
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, SetupError> {
    let variable = "CONSUL_CLIENT_KEY";
    PrivateKeyDer::from_pem_slice(&read(variable, path)?).map_err(|source| SetupError::Pem {
        variable,
        path: path.to_owned(),
        allowed: "a file with a private key",
        source,
    })
}

fn read(variable: &'static str, path: &Path) -> Result<Vec<u8>, SetupError> {
    std::fs::read(path).map_err(|source: io::Error| SetupError::File {
        variable,
        path: path.to_owned(),
        source,
    })
}

/// `CONSUL_HTTP_SSL_VERIFY=false`: any server that answers is believed to be Consul, provided that it owns the key of
/// its certificate.
#[derive(Debug)]
struct AnyCertificate {
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(
            message,
            cert,
            dss,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            cert,
            dss,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::SetupError;
    use crate::config::{ConsulConfig, ConsulTls};
    use crate::consul::testing::{self, TIMEOUT, with_causes};
    use crate::consul::{Consul, ConsulError};

    /// Both clients reach Consul, or the first error.
    async fn reach(settings: &ConsulConfig, key: &str) -> Result<(), ConsulError> {
        let consul = Consul::new(settings, TIMEOUT).unwrap();
        let over_wire = consul.read_lock(key).await.map(|_| ());
        let over_crate = consul.put_key(key, b"over tls").await;
        assert_eq!(
            over_wire.is_ok(),
            over_crate.is_ok(),
            "{over_wire:?} {over_crate:?}"
        );
        over_wire.and(over_crate)
    }

    fn with(change: impl FnOnce(&mut ConsulTls)) -> ConsulConfig {
        let mut settings = testing::with_tls().https_settings("127.0.0.1");
        change(&mut settings.tls);
        settings
    }

    #[tokio::test]
    async fn a_private_authority_and_a_client_certificate() {
        reach(&with(|_| {}), "tls/file").await.unwrap();
        let directory = testing::with_tls().file("authorities");
        let from_directory = with(|tls| (tls.ca_file, tls.ca_path) = (None, Some(directory)));
        reach(&from_directory, "tls/directory").await.unwrap();
    }

    #[tokio::test]
    async fn a_server_proves_the_name_that_was_set_for_it() {
        for host in ["localhost", "127.0.0.1"] {
            let mut settings = testing::with_tls().https_settings(host);
            settings.tls.server_name = Some("server.dc1.consul".to_owned());
            reach(&settings, "tls/name").await.unwrap();
            settings.tls.server_name = Some("server.dc2.consul".to_owned());
            let refused = with_causes(&reach(&settings, "tls/name").await.unwrap_err());
            assert!(
                refused.contains("not valid for name \"server.dc2.consul\""),
                "{refused}"
            );
        }
    }

    #[tokio::test]
    async fn a_certificate_for_another_name_is_refused_in_words() {
        let settings = testing::with_tls().https_settings("localhost");
        let error = reach(&settings, "tls/mismatch").await.unwrap_err();
        assert!(matches!(error, ConsulError::Unreachable { .. }), "{error}");
        let words = with_causes(&error);
        assert!(
            words.contains("certificate not valid for name \"localhost\""),
            "{words}"
        );
        let mut unverified = settings;
        unverified.tls.skip_verify = true;
        unverified.tls.ca_file = None;
        reach(&unverified, "tls/unverified").await.unwrap();
    }

    #[tokio::test]
    async fn strangers_are_refused_on_both_sides() {
        let unknown = testing::with_tls().file("client.pem");
        let error = reach(&with(|tls| tls.ca_file = Some(unknown)), "tls/stranger")
            .await
            .unwrap_err();
        assert!(
            with_causes(&error).contains("invalid peer certificate"),
            "{}",
            with_causes(&error)
        );
        let error = reach(&with(|tls| tls.client = None), "tls/anonymous")
            .await
            .unwrap_err();
        assert!(
            with_causes(&error).contains("ertificate"),
            "{}",
            with_causes(&error)
        );
    }

    #[test]
    fn files_that_cannot_be_used_are_named_with_their_variable() {
        let agent = testing::with_tls();
        let (ca, key, other) = (
            agent.file("ca.pem"),
            agent.file("client.key"),
            agent.file("server.key"),
        );
        let (certificate, log) = (agent.file("client.pem"), agent.file("settings.json"));
        let cases = [
            (
                with(|tls| tls.ca_file = Some("/nowhere/ca.pem".into())),
                "could not read /nowhere/ca.pem of CONSUL_CACERT",
            ),
            (
                with(|tls| tls.ca_file = Some(key.clone())),
                "CONSUL_CACERT is ",
            ),
            (
                with(|tls| tls.ca_path = Some("/nowhere".into())),
                "could not read /nowhere of CONSUL_CAPATH",
            ),
            (
                with(|tls| tls.client = Some((log, key))),
                "CONSUL_CLIENT_CERT is ",
            ),
            (
                with(|tls| tls.client = Some((certificate.clone(), ca))),
                "CONSUL_CLIENT_KEY is ",
            ),
            (
                with(|tls| tls.client = Some((certificate, other))),
                "could not use ",
            ),
            (
                with(|tls| tls.server_name = Some("10.0.0.1".to_owned())),
                "CONSUL_TLS_SERVER_NAME is \"10.0.0.1\"",
            ),
            (
                with(|tls| tls.server_name = Some("a b".to_owned())),
                "CONSUL_TLS_SERVER_NAME is \"a b\"",
            ),
        ];
        for (settings, words) in cases {
            let error: SetupError = Consul::new(&settings, TIMEOUT).unwrap_err();
            assert!(error.to_string().starts_with(words), "{error}");
        }
    }
}
