//! [`RawConfig`] → [`Config`], section by section, every error kept.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use super::error::{AndAlso, ConfigError, SettingError};
use super::http::http;
use super::names::{check_names, check_operators_names};
use super::peer::peer;
use super::settings::{OPERATORS, RawConfig, Var, settings};
use super::{
    Announce, CatalogConfig, Config, ConsulConfig, ConsulTls, ElectionConfig, LogConfig,
    OperatorConfig, ReplicationMode, Role, ServiceNaming, TarantoolConfig, VshardConfig, parse,
    service,
};
use crate::decide::timing::Timing;
use crate::secrets::{Check, Secret, SecretFile};
use crate::tarantool::uri::Unfit;

/// Consul reaps critical services no sooner than this
/// (<https://developer.hashicorp.com/consul/api-docs/agent/check>, `DeregisterCriticalServiceAfter`).
const DEREGISTER_MIN: Duration = Duration::from_secs(60);
/// No idleness and no cooldown is longer.
const DAY: Duration = Duration::from_secs(86_400);
/// Ten years: as good as never.
const DEREGISTER_MAX: Duration = Duration::from_secs(10 * 365 * 86_400);

impl Config {
    /// Reads the environment of this process.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn from_env() -> Result<Self, ConfigError> {
        let (variables, not_unicode) = environment(|name| settings().any(|s| s.name == name));
        let ((), config) = not_unicode.and_also(Self::from_iter(variables))?;
        Ok(config)
    }

    /// Reads an environment that is given as pairs of name and value.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    #[allow(
        clippy::should_implement_trait,
        reason = "named after envy's; it may fail, so it cannot be the trait's"
    )]
    pub fn from_iter(
        variables: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let environment: HashMap<String, String> = variables.into_iter().collect();
        let raw = raw(&environment, settings().map(|setting| setting.name))?;
        let ((), config) = check_names(&environment).and_also(build(&raw))?;
        Ok(config)
    }
}

impl OperatorConfig {
    /// Reads the environment of this process.
    ///
    /// # Errors
    /// Everything that is wrong with what the commands read.
    pub fn from_env() -> Result<Self, ConfigError> {
        let (variables, not_unicode) = environment(|name| OPERATORS.contains(&name));
        let ((), config) = not_unicode.and_also(Self::from_iter(variables))?;
        Ok(config)
    }

    /// Reads an environment that is given as pairs of name and value.
    ///
    /// # Errors
    /// Everything that is wrong with what the commands read.
    #[allow(
        clippy::should_implement_trait,
        reason = "named after envy's; it may fail, so it cannot be the trait's"
    )]
    pub fn from_iter(
        variables: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let environment: HashMap<String, String> = variables.into_iter().collect();
        let raw = raw(&environment, OPERATORS.iter().copied())?;
        let ((((), cluster), consul), log) = check_operators_names(&environment)
            .and_also(not_blank(raw.cluster_name(), parse::name))
            .and_also(consul(&raw))
            .and_also(log(&raw))?;
        Ok(Self {
            consul,
            cluster,
            log,
        })
    }
}

/// This process's environment, and an error for each of our own variables that is no text.
fn environment(is_ours: impl Fn(&str) -> bool) -> (Vec<(String, String)>, Result<(), ConfigError>) {
    let mut variables = Vec::new();
    let mut not_unicode = Vec::new();
    for (name, value) in std::env::vars_os() {
        // A name that is not text is none of our variables.
        let Ok(name) = name.into_string() else {
            continue;
        };
        match value.into_string() {
            Ok(value) => variables.push((name, value)),
            Err(_) if is_ours(&name) => not_unicode.push(SettingError::NotUnicode { name }),
            Err(_) => {}
        }
    }
    (variables, ConfigError::from_all(not_unicode))
}

/// Only these names reach envy: it folds case, and would trip over `priority` beside `PRIORITY`.
fn raw(
    environment: &HashMap<String, String>,
    names: impl Iterator<Item = &'static str>,
) -> Result<RawConfig, ConfigError> {
    let ours = names.filter_map(|name| {
        let value = environment.get(name)?;
        Some((name.to_owned(), value.clone()))
    });
    Ok(envy::from_iter(ours)?)
}

fn build(raw: &RawConfig) -> Result<Config, ConfigError> {
    let instance = tarantool(raw)
        .and_also(raw.hung_instance_action().required(parse::hung_instance))
        .and_also(raw.replication().required(parse::replication))
        .and_also(raw.guard().required(parse::guard))
        .and_also(peer(raw));
    let replica_set = not_blank(raw.cluster_name(), parse::name)
        .and_also(raw.priority().optional(parse::integer));
    let (
        (((((((instance, vshard), replica_set), succession), timing), consul), catalog), http),
        log,
    ) = instance
        .and_also(vshard(raw))
        .and_also(replica_set)
        .and_also(succession(raw))
        .and_also(timing(raw))
        .and_also(consul(raw))
        .and_also(catalog(raw))
        .and_also(http(raw))
        .and_also(log(raw))?;

    let (((((tarantool, announce), hung_instance), replication), guard), peers) = instance;
    let ((election, failsafe), member_interval) = succession;
    let (cluster, priority) = replica_set;
    let (variable, name) = match &catalog.naming {
        ServiceNaming::Name(name) => (raw.consul_service_name(), name),
        ServiceNaming::Prefix(prefix) => (raw.consul_service_prefix(), prefix),
    };
    if let Some(allowed) = service::too_long(name, &cluster) {
        return Err(variable.invalid(allowed));
    }
    if replication == ReplicationMode::Follow {
        follows_with(raw, &tarantool)?;
    }
    Ok(Config {
        tarantool,
        peers,
        consul,
        catalog,
        announce,
        vshard,
        cluster,
        priority,
        election,
        failsafe,
        member_interval,
        guard,
        timing,
        replication,
        hung_instance,
        http,
        log,
    })
}

fn log(raw: &RawConfig) -> Result<LogConfig, ConfigError> {
    raw.log_level()
        .required(parse::level)
        .and_also(raw.log_format().required(parse::format))
        .and_also(raw.dump_format().optional(parse::format))
        .map(|((level, json), dumps)| LogConfig {
            level,
            json,
            json_dumps: dumps.unwrap_or(json),
        })
}

fn tarantool(raw: &RawConfig) -> Result<(TarantoolConfig, Announce), ConfigError> {
    let addr = raw.tarantool_addr().required(parse::tarantool_addr);
    let derived = addr.as_ref().ok().and_then(parse::announce_from);
    let announce = match (raw.announce_addr().optional(parse::announce), derived) {
        (Ok(Some(announce)), _) | (Ok(None), Some(announce)) => Ok(Some(announce)),
        // The address is wrong, and says so itself.
        (Ok(None), None) => Ok(None),
        (Err(error), _) => Err(error),
    };
    let user = raw.tarantool_user().optional(parse::text);
    // A login that no URI carries is refused where a URI is to be made of it.
    let any: Check = |_, _| Ok(());
    let password = secret(raw.tarantool_password(), raw.tarantool_password_file(), any);
    let control = raw.tarantool_control().optional(parse::socket);
    let ((((addr, announce), user), password), control) = addr
        .and_also(announce)
        .and_also(user)
        .and_also(password)
        .and_also(control)?;

    if user.is_none() && password.is_some() {
        return Err(SettingError::Without {
            name: secret_name(raw.tarantool_password(), raw.tarantool_password_file()),
            missing: "TARANTOOL_USER",
        }
        .into());
    }
    let announce = announce.ok_or_else(|| raw.tarantool_addr().invalid("host:port"))?;
    Ok((
        TarantoolConfig {
            addr,
            user,
            password: password.unwrap_or_default(),
            control,
        },
        announce,
    ))
}

fn vshard(raw: &RawConfig) -> Result<VshardConfig, ConfigError> {
    let login = secret(
        raw.vshard_password(),
        raw.vshard_password_file(),
        carried_by_vshard,
    );
    let ((((role, on), config_key), user), password) = raw
        .role()
        .required(parse::role)
        .and_also(raw.vshard().required(parse::vshard))
        .and_also(raw.vshard_config_key().optional(parse::key))
        .and_also(raw.vshard_user().optional(parse::text))
        .and_also(login)?;
    if !on && role == Role::Router {
        return Err(raw.vshard().invalid("auto, where ROLE is router"));
    }
    if !on && config_key.is_some() {
        let allowed = "auto, where VSHARD_CONFIG_KEY is set";
        return Err(raw.vshard().invalid(allowed));
    }
    let login = match (user, password) {
        (Some(user), password) => Some((user, password.unwrap_or_default())),
        (None, None) => None,
        (None, Some(_)) => {
            let name = secret_name(raw.vshard_password(), raw.vshard_password_file());
            return Err(lone(name, "VSHARD_USER"));
        }
    };
    let names = [
        "VSHARD_USER",
        secret_name(raw.vshard_password(), raw.vshard_password_file()),
    ];
    let password = login.as_ref().map(|(_, password)| password.get());
    let user = login.as_ref().map(|(user, _)| user.as_str());
    let texts = user
        .zip(password.as_deref())
        .map(|(user, password)| [user, password.as_str()]);
    carried_by_uris(names, texts, IN_VSHARDS)?;
    Ok(VshardConfig {
        role,
        on,
        config_key,
        login,
    })
}

fn succession(raw: &RawConfig) -> Result<((ElectionConfig, bool), Duration), ConfigError> {
    let window = parse::duration_within(Duration::from_millis(10), Duration::from_secs(10));
    let interval = parse::duration_within(Duration::from_secs(1), Duration::from_secs(3600));
    let election = raw
        .election()
        .required(parse::elector)
        .and_also(raw.election_window().required(window))
        .and_also(raw.sync_loss().required(parse::sync_loss))
        .and_also(raw.max_lag_rows().required(parse::rows))
        .and_also(raw.max_idle().required(parse::duration_or_off(DAY)))
        .and_also(
            raw.failover_cooldown()
                .required(parse::duration_or_off(DAY)),
        )
        .map(
            |(((((elector, window), sync_loss), max_lag_rows), max_idle), cooldown)| {
                ElectionConfig {
                    elector,
                    window,
                    sync_loss,
                    max_lag_rows,
                    max_idle,
                    cooldown,
                }
            },
        );
    election
        .and_also(raw.failsafe().required(parse::switch))
        .and_also(raw.member_interval().required(interval))
}

fn timing(raw: &RawConfig) -> Result<Timing, ConfigError> {
    let (((lease, ttl), (interval, timeout)), liveness) = raw
        .master_lease()
        .required(parse::duration)
        .and_also(raw.consul_lock_ttl().required(parse::duration))
        .and_also(
            raw.healthcheck_interval()
                .optional(parse::duration)
                .and_also(raw.healthcheck_timeout().optional(parse::duration)),
        )
        .and_also(raw.liveness_interval().optional(parse::duration))?;
    let interval = interval.unwrap_or_else(|| Duration::from_secs(1).min(lease / 4));
    let timeout = timeout.unwrap_or_else(|| Duration::from_secs(2).min(lease / 2));
    let liveness = liveness.unwrap_or_else(|| Duration::from_millis(50).min(interval));
    Ok(Timing::new(lease, ttl, interval, timeout, liveness)?)
}

fn consul(raw: &RawConfig) -> Result<ConsulConfig, ConfigError> {
    let base_url = raw
        .consul_http_ssl()
        .required(parse::boolean)
        .and_then(|ssl| raw.consul_http_addr().required(parse::consul_url(ssl)));
    let token = token(raw);
    let basic_auth = raw.consul_http_auth().optional(parse::basic_auth);
    let namespace = raw.consul_namespace().optional(parse::name);
    let keys = not_blank(raw.consul_kv_prefix(), parse::key)
        .and_also(raw.consul_lock_key().optional(parse::key))
        .and_also(not_blank(raw.consul_lock_session_name(), parse::name));
    let interval = parse::duration_within(Duration::from_millis(10), Duration::from_secs(60));
    let monitor = raw
        .consul_lock_monitor_retries()
        .required(parse::retries)
        .and_also(raw.consul_lock_monitor_retry_interval().required(interval));
    let (((access, tls), keys), monitor) = base_url
        .and_also(token)
        .and_also(basic_auth)
        .and_also(namespace)
        .and_also(consul_tls(raw))
        .and_also(keys)
        .and_also(monitor)?;

    let (((base_url, token), basic_auth), namespace) = access;
    let ((kv_prefix, lock_key), session_name) = keys;
    let (monitor_retries, monitor_retry_interval) = monitor;
    Ok(ConsulConfig {
        base_url,
        token,
        basic_auth,
        tls,
        namespace,
        kv_prefix,
        lock_key,
        session_name,
        monitor_retries,
        monitor_retry_interval,
    })
}

/// A token travels in a header, so it must be visible ASCII.
fn token(raw: &RawConfig) -> Result<Option<Secret>, ConfigError> {
    let direct = raw.consul_http_token();
    let given = direct.verbatim().unwrap_or_default();
    if !is_visible(given) {
        return Err(direct.invalid("visible ASCII without blanks"));
    }
    let is_token: Check = |file, text| match is_visible(text) {
        true => Ok(()),
        false => Err(SettingError::Invalid {
            name: file.variable,
            value: super::error::shown(&file.path),
            allowed: "a file with visible ASCII without blanks".to_owned(),
        }),
    };
    secret(direct, raw.consul_http_token_file(), is_token)
}

fn is_visible(token: &str) -> bool {
    token.bytes().all(|byte| byte.is_ascii_graphic())
}

fn consul_tls(raw: &RawConfig) -> Result<ConsulTls, ConfigError> {
    let pair = match (
        raw.consul_client_cert().set(),
        raw.consul_client_key().set(),
    ) {
        (Some(cert), Some(key)) => Ok(Some((cert.into(), key.into()))),
        (None, None) => Ok(None),
        (Some(_), None) => Err(lone("CONSUL_CLIENT_CERT", "CONSUL_CLIENT_KEY")),
        (None, Some(_)) => Err(lone("CONSUL_CLIENT_KEY", "CONSUL_CLIENT_CERT")),
    };
    let (((((), verify), ca_file), ca_path), (client, server_name)) = Ok(())
        .and_also(raw.consul_http_ssl_verify().required(parse::boolean))
        .and_also(raw.consul_cacert().optional(parse::path))
        .and_also(raw.consul_capath().optional(parse::path))
        .and_also(pair.and_also(raw.consul_tls_server_name().optional(parse::text)))?;
    Ok(ConsulTls {
        skip_verify: !verify,
        ca_file,
        ca_path,
        client,
        server_name,
    })
}

pub(super) fn lone(name: &'static str, missing: &'static str) -> ConfigError {
    SettingError::Without { name, missing }.into()
}

fn catalog(raw: &RawConfig) -> Result<CatalogConfig, ConfigError> {
    let (replica_tags, replica_variable) = match (raw.replica_tags().set(), raw.slave_tags().set())
    {
        (Some(_), Some(_)) => (
            Err(SettingError::Both {
                first: "REPLICA_TAGS",
                second: "SLAVE_TAGS",
            }
            .into()),
            "REPLICA_TAGS",
        ),
        (None, Some(_)) => (raw.slave_tags().required(parse::tags), "SLAVE_TAGS"),
        (Some(_) | None, None) => (raw.replica_tags().required(parse::tags), "REPLICA_TAGS"),
    };
    let after = parse::duration_within(DEREGISTER_MIN, DEREGISTER_MAX);
    let (
        ((((naming, master_tags), replica_tags), router_tags), replica_max_idle),
        deregister_after,
    ) = naming(raw)
        .and_also(raw.master_tags().required(parse::tags))
        .and_also(replica_tags)
        .and_also(raw.router_tags().required(parse::tags))
        .and_also(raw.replica_max_idle().required(parse::duration_or_off(DAY)))
        .and_also(raw.consul_deregister_service_after().required(after))?;
    match (&naming, master_tags.first()) {
        (ServiceNaming::Name(_), Some(tag)) if replica_tags.first() == Some(tag) => {
            Err(SettingError::SameTags {
                replica_variable,
                tag: tag.clone(),
            }
            .into())
        }
        (ServiceNaming::Name(_) | ServiceNaming::Prefix(_), _) => Ok(CatalogConfig {
            naming,
            master_tags,
            replica_tags,
            router_tags,
            replica_max_idle,
            deregister_after,
        }),
    }
}

fn naming(raw: &RawConfig) -> Result<ServiceNaming, ConfigError> {
    match (
        raw.consul_service_name().set(),
        raw.consul_service_prefix().set(),
    ) {
        (Some(_), Some(_)) => Err(SettingError::Both {
            first: "CONSUL_SERVICE_NAME",
            second: "CONSUL_SERVICE_PREFIX",
        }
        .into()),
        (Some(_), None) => raw
            .consul_service_name()
            .required(service::template)
            .map(ServiceNaming::Name),
        (None, Some(_)) => raw
            .consul_service_prefix()
            .required(service::template)
            .map(ServiceNaming::Prefix),
        (None, None) => Ok(ServiceNaming::Prefix("tarantool".to_owned())),
    }
}

/// A name set to nothing is a template that went wrong, and the default would be somebody else's name.
fn not_blank<T>(var: Var<'_>, parse: impl Fn(&str) -> Result<T, String>) -> Result<T, ConfigError> {
    if var.is_blank() {
        parse("").map_err(|allowed| var.invalid(allowed))
    } else {
        var.required(parse)
    }
}

/// A secret, from its own variable or from the file that its `*_FILE` variable names.
pub(super) fn secret(
    direct: Var<'_>,
    file: Var<'_>,
    check: Check,
) -> Result<Option<Secret>, ConfigError> {
    match (direct.verbatim(), file.set()) {
        (None, None) => Ok(None),
        (Some(_), Some(_)) => Err(SettingError::Both {
            first: direct.setting.name,
            second: file.setting.name,
        }
        .into()),
        (Some(secret), None) => Ok(Some(secret.into())),
        (None, Some(path)) => {
            let secret = Secret::in_file(file.setting.name, Path::new(path), check);
            Ok(Some(secret?))
        }
    }
}

/// Where a secret came from.
pub(super) fn secret_name(direct: Var<'_>, file: Var<'_>) -> &'static str {
    if direct.set().is_some() {
        direct.setting.name
    } else {
        file.setting.name
    }
}

/// With `REPLICATION=follow` the agent's login becomes part of the master's URI.
fn follows_with(raw: &RawConfig, tarantool: &TarantoolConfig) -> Result<(), ConfigError> {
    let names = [
        "TARANTOOL_USER",
        secret_name(raw.tarantool_password(), raw.tarantool_password_file()),
    ];
    let user = tarantool.user.as_deref();
    let password = tarantool.password.get();
    let login = user.map(|user| [user, password.as_str()]);
    let reason = "with REPLICATION=follow it is part of the master's";
    carried_by_uris(names, login, reason)
}

const IN_VSHARDS: &str = "it becomes part of those in vshard's configuration";

fn carried_by_vshard(file: &SecretFile, password: &str) -> Result<(), SettingError> {
    unfit_for_uris(file.variable, password, IN_VSHARDS).map_or(Ok(()), Err)
}

fn unfit_for_uris(name: &'static str, text: &str, reason: &'static str) -> Option<SettingError> {
    Some(SettingError::NotForUri {
        name,
        found: Unfit::first_in(text)?.to_string(),
        reason,
        allowed: Unfit::ALLOWED,
    })
}

/// A user and its password that are to be put in front of an address.
fn carried_by_uris(
    names: [&'static str; 2],
    login: Option<[&str; 2]>,
    reason: &'static str,
) -> Result<(), ConfigError> {
    let login = login.unwrap_or_default();
    let texts = names.into_iter().zip(login);
    ConfigError::from_all(texts.filter_map(|(name, text)| unfit_for_uris(name, text, reason)))
}
