//! What requests are sent with: the two HTTP clients, made of the token and the certificates, and made anew when one of
//! these files has changed.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hyper_rustls::{FixedServerNameResolver, HttpsConnectorBuilder};
use hyper_util::client::legacy::Builder;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use reqwest::Url;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue};
use rs_consul::ConsulBuilder;

use super::error::SetupError;
use super::tls::{self, AddressOf, Material};
use crate::config::ConsulConfig;
use crate::errors::with_causes;
use crate::secrets::{Reading, Renewable};

/// Idle connections kept: a watch, a refresh and a check update overlap, more do not.
const IDLE_CONNECTIONS: usize = 4;
/// Of `rs-consul`: members are written and read one call at a time.
const IDLE_CONNECTIONS_FOR_KEYS: usize = 1;

/// The clients, and what they were made of.
pub(super) struct Clients {
    token: Option<String>,
    /// `None` over plain http.
    material: Option<Material>,
    /// For everything that `rs-consul` cannot do.
    pub(super) http: reqwest::Client,
    /// `rs-consul`; `None` with basic authentication.
    pub(super) for_keys: Option<rs_consul::Consul>,
}

impl Clients {
    fn new(
        config: &ConsulConfig,
        token: Option<String>,
        material: Option<Material>,
    ) -> Result<Self, SetupError> {
        let tls_config = match &material {
            Some(material) => material.client_config(&config.tls)?,
            None => tls::unused()?,
        };
        Ok(Self {
            http: http(config, token.as_deref(), tls_config.clone())?,
            for_keys: for_keys(config, token.as_deref(), tls_config)?,
            token,
            material,
        })
    }
}

/// The clients, with everything that their files hold now. Reads files.
///
/// # Errors
/// A setting that cannot be used, by the variable's name.
pub(super) fn renewable(config: &ConsulConfig) -> Result<Renewable<Clients>, SetupError> {
    let token = config.token.as_ref().map(|token| token.get().to_string());
    let speaks_tls = config.base_url.starts_with("https:");
    let material = speaks_tls
        .then(|| Material::read(&config.tls))
        .transpose()?;
    let clients = Clients::new(config, token, material)?;
    let token_file = config
        .token
        .as_ref()
        .and_then(|token| token.file_variable());
    let mut names: Vec<&str> = token_file.into_iter().collect();
    if speaks_tls {
        names.extend(Material::variables(&config.tls));
    }
    if names.is_empty() {
        return Ok(Renewable::fixed(clients));
    }
    let names = names.join(", ");
    let config = config.clone();
    Ok(Renewable::renewed_by(clients, names, move |known| {
        read_again(&config, known)
    }))
}

/// Each is taken or kept by itself: a directory that cannot be read must not keep a token from being renewed.
fn read_again(config: &ConsulConfig, known: &Clients) -> Reading<Clients> {
    let (mut token, mut material) = (known.token.clone(), known.material.clone());
    let (mut settings, mut complaints) = (Vec::new(), Vec::new());
    match config.token.as_ref().and_then(|token| token.read_file()) {
        Some((variable, Ok(found))) if token.as_ref() != Some(&found) => {
            token = Some(found);
            settings.push(variable);
        }
        Some((_, Err(error))) => complaints.push(with_causes(&error)),
        Some((_, Ok(_))) | None => {}
    }
    if let Some(known) = &mut material {
        // A certificate whose key has not been written yet is none.
        let found = Material::read(&config.tls)
            .and_then(|found| found.client_config(&config.tls).map(|_| found));
        match found {
            Ok(found) => {
                settings.extend(known.changed(&found, &config.tls));
                *known = found;
            }
            Err(error) => complaints.push(with_causes(&error)),
        }
    }
    if settings.is_empty() {
        return Reading {
            changed: None,
            complaints,
        };
    }
    let changed = match Clients::new(config, token, material) {
        Ok(clients) => Some((clients, settings.join(", "))),
        Err(error) => {
            complaints.push(with_causes(&error));
            None
        }
    };
    Reading {
        changed,
        complaints,
    }
}

/// Where requests go, by URL, and what that takes: without a slash at its end.
pub(super) fn base_of(config: &ConsulConfig) -> Result<String, SetupError> {
    let base = config.base_url.trim_end_matches('/');
    let Some(name) = proven_name(config) else {
        return Ok(base.to_owned());
    };
    let mut url = parse(base)?;
    tls::server_name(name)?;
    url.set_host(Some(name))
        .map_err(|_| SetupError::ServerName {
            name: name.to_owned(),
        })?;
    Ok(url.as_str().trim_end_matches('/').to_owned())
}

fn parse(base: &str) -> Result<Url, SetupError> {
    Url::parse(base).map_err(|source| SetupError::Address {
        source: Some(source.into()),
    })
}

/// `CONSUL_TLS_SERVER_NAME`, where there is TLS.
fn proven_name(config: &ConsulConfig) -> Option<&str> {
    let name = config.tls.server_name.as_deref();
    name.filter(|_| config.base_url.starts_with("https:"))
}

fn http(
    config: &ConsulConfig,
    token: Option<&str>,
    tls_config: rustls::ClientConfig,
) -> Result<reqwest::Client, SetupError> {
    let mut builder = reqwest::Client::builder()
        .tls_backend_preconfigured(tls_config)
        .http1_only()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .referer(false)
        .pool_max_idle_per_host(IDLE_CONNECTIONS)
        .pool_idle_timeout(tls::IDLE_TIMEOUT);
    let mut headers = headers(config, token)?;
    let url = parse(config.base_url.trim_end_matches('/'))?;
    if proven_name(config).is_some() {
        let host = url
            .host_str()
            .ok_or(SetupError::Address { source: None })?
            .to_owned();
        let port = url
            .port()
            .map(|port| format!(":{port}"))
            .unwrap_or_default();
        let authority = HeaderValue::from_str(&format!("{host}{port}")).map_err(|source| {
            SetupError::Address {
                source: Some(source.into()),
            }
        })?;
        headers.insert(HOST, authority);
        let host = host.trim_start_matches('[').trim_end_matches(']').into();
        builder = builder.dns_resolver(Arc::new(AddressOf { host }));
    }
    builder
        .default_headers(headers)
        .build()
        .map_err(|source| SetupError::Client {
            source: source.into(),
        })
}

fn for_keys(
    config: &ConsulConfig,
    token: Option<&str>,
    tls_config: rustls::ClientConfig,
) -> Result<Option<rs_consul::Consul>, SetupError> {
    if config.basic_auth.is_some() {
        return Ok(None);
    }
    let connector = HttpsConnectorBuilder::new()
        .with_tls_config(tls_config)
        .https_or_http();
    let connector = match &config.tls.server_name {
        Some(name) => connector
            .with_server_name_resolver(FixedServerNameResolver::new(tls::server_name(name)?)),
        None => connector,
    };
    let mut pool = Builder::new(TokioExecutor::new());
    pool.pool_timer(TokioTimer::new())
        .pool_idle_timeout(tls::IDLE_TIMEOUT)
        .pool_max_idle_per_host(IDLE_CONNECTIONS_FOR_KEYS);
    let mut http = HttpConnector::new();
    // The scheme is the outer connector's business; a small write waits for nothing.
    http.enforce_http(false);
    http.set_nodelay(true);
    let https_client = pool.build(connector.enable_http1().wrap_connector(http));
    let settings = rs_consul::Config {
        address: config.base_url.trim_end_matches('/').to_owned(),
        token: token.map(str::to_owned),
        hyper_builder: pool,
    };
    let client = ConsulBuilder::new(settings)
        .with_https_client(https_client)
        .build();
    Ok(Some(client))
}

/// The token and the password, on every request and in no log.
fn headers(config: &ConsulConfig, token: Option<&str>) -> Result<HeaderMap, SetupError> {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Some(token) = token {
        let mut value = HeaderValue::from_str(token).map_err(|_| SetupError::Header {
            variable: "CONSUL_HTTP_TOKEN",
        })?;
        value.set_sensitive(true);
        headers.insert(HeaderName::from_static("x-consul-token"), value);
    }
    if let Some((user, password)) = &config.basic_auth {
        let credentials = BASE64.encode(format!("{user}:{password}"));
        let mut value = HeaderValue::from_str(&format!("Basic {credentials}")).map_err(|_| {
            SetupError::Header {
                variable: "CONSUL_HTTP_AUTH",
            }
        })?;
        value.set_sensitive(true);
        headers.insert(AUTHORIZATION, value);
    }
    Ok(headers)
}
