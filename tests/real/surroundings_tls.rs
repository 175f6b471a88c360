//! Consul over TLS, with a private authority and client certificates.

use std::path::{Path, PathBuf};
use std::process::Command;

use tarsec_harness::{Agent, AgentBuilder, Consul, ConsulOptions, ReplicaSet, Result, World, json};

use crate::support::{SOON, world};

/// A Consul that demands client certificates. Its own is for 127.0.0.1, localhost and server.dc1.consul; it listens on
/// 127.0.0.2, too, which is none of them.
async fn secured(world: &World) -> Result<Consul> {
    let options = ConsulOptions::default().mutual_tls();
    world
        .consul_with(options.config("client_addr", json!("127.0.0.1 127.0.0.2")))
        .await
}

/// Where the harness put authority, certificates and keys.
fn file(world: &World, name: &str) -> PathBuf {
    let path = world.dir().join("consultls").join(name);
    assert!(path.exists(), "{}", path.display());
    path
}

/// An authority that has signed nothing.
fn other_authority(world: &World) -> PathBuf {
    let path = world.dir().join("other.pem");
    let output = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
        ])
        .args([
            "-keyout",
            "other.key",
            "-out",
            "other.pem",
            "-subj",
            "/CN=another CA",
        ])
        .current_dir(world.dir())
        .output()
        .expect("openssl runs");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    path
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

/// One agent after another on the same instance, each by its own settings.
struct Bench<'a> {
    world: &'a World,
    consul: Consul,
    set: ReplicaSet,
}

impl<'a> Bench<'a> {
    async fn start(world: &'a World) -> Result<Self> {
        let (consul, set) = (secured(world).await?, world.replica_set(1).await?);
        Ok(Self { world, consul, set })
    }

    async fn agent(
        &self,
        name: &str,
        adjust: impl FnOnce(AgentBuilder) -> AgentBuilder,
    ) -> Result<Agent> {
        let agent = self.world.agent(&self.set[0], &self.consul)?.name(name);
        adjust(agent).start().await
    }

    fn elsewhere(&self) -> String {
        self.consul.agent_addr(0).replace("127.0.0.1", "127.0.0.2")
    }

    /// These settings make a master, over both of the ways to Consul, and take their leave.
    async fn assert_works(
        &self,
        name: &str,
        adjust: impl FnOnce(AgentBuilder) -> AgentBuilder,
    ) -> Result<()> {
        let agent = self.agent(name, adjust).await?;
        self.set.wait_for_master(SOON).await?;
        assert_eq!(agent.term(SOON).await?.code(), Some(0), "{name}");
        let logs = agent.logs()?;
        // The session of the agent before is lost, which is a warning, too.
        let failures: Vec<_> = logs
            .iter()
            .filter(|line| line.text.contains("could not"))
            .collect();
        assert!(failures.is_empty(), "{name}: {failures:#?}");
        Ok(())
    }

    /// These settings are waited for with a reason that has these words, and nothing becomes writable.
    async fn assert_waits(
        &self,
        name: &str,
        words: &[&str],
        adjust: impl FnOnce(AgentBuilder) -> AgentBuilder,
    ) -> Result<()> {
        let agent = self.agent(name, adjust).await?;
        let key = format!("tarsec/{}/{}/leader", self.world.cluster(), self.set.uuid());
        let beginning = format!("waiting for Consul: could not watch lock {key}: consul ");
        let fits = |line: &tarsec_harness::LogLine| {
            let to = line.field("to").as_str().unwrap_or_default();
            to.starts_with(&beginning) && words.iter().all(|words| to.contains(words))
        };
        agent
            .wait_for_log(SOON, &format!("{name}: {words:?}"), 0, fits)
            .await?;
        assert_eq!(self.set.writable().await, [0_usize; 0], "{name}");
        assert_eq!(agent.term(SOON).await?.code(), Some(0), "{name}");
        Ok(())
    }
}

#[tokio::test]
async fn certificates_that_fit_make_a_master() {
    let story = async |world: &World| {
        let bench = Bench::start(world).await?;
        bench.assert_works("file", |agent| agent).await?;
        let directory = world.dir().join("authorities");
        std::fs::create_dir(&directory).expect("the world can be written to");
        std::fs::copy(file(world, "ca.pem"), directory.join("ca.pem"))
            .expect("the world can be written to");
        bench
            .assert_works("directory", |agent| {
                agent
                    .without_env("CONSUL_CACERT")
                    .env("CONSUL_CAPATH", &text(&directory))
            })
            .await?;
        bench
            .assert_works("server-name", |agent| {
                agent
                    .env("CONSUL_HTTP_ADDR", &bench.elsewhere())
                    .env("CONSUL_TLS_SERVER_NAME", "server.dc1.consul")
            })
            .await?;
        let other = other_authority(world);
        bench
            .assert_works("unverified", |agent| {
                agent
                    .env("CONSUL_HTTP_ADDR", &bench.elsewhere())
                    .env("CONSUL_CACERT", &text(&other))
                    .env("CONSUL_HTTP_SSL_VERIFY", "false")
            })
            .await?;
        let address = format!("https://{}", bench.consul.agent_addr(0));
        bench
            .assert_works("scheme", |agent| {
                agent
                    .without_env("CONSUL_HTTP_SSL")
                    .env("CONSUL_HTTP_ADDR", &address)
            })
            .await
    };
    world().story("tls-fits", story).await;
}

#[tokio::test]
async fn what_does_not_fit_is_named_with_the_variable_and_waited_for() {
    let story = async |world: &World| {
        let bench = Bench::start(world).await?;
        let elsewhere = bench.elsewhere();
        let host = format!(
            "unreachable, its certificate is not for the host in CONSUL_HTTP_ADDR (https://{elsewhere}) or the name in \
             CONSUL_TLS_SERVER_NAME: set the latter to a name that the certificate is for"
        );
        let names = "certificate not valid for name \"127.0.0.2\"";
        bench
            .assert_waits("other-host", &[&host, names], |agent| {
                agent.env("CONSUL_HTTP_ADDR", &elsewhere)
            })
            .await?;
        let names = "certificate not valid for name \"server.dc2.consul\"";
        bench
            .assert_waits(
                "other-name",
                &["its certificate is not for", names],
                |agent| agent.env("CONSUL_TLS_SERVER_NAME", "server.dc2.consul"),
            )
            .await?;
        let other = other_authority(world);
        let words = "unreachable, nobody in CONSUL_CACERT or CONSUL_CAPATH (without them: the system's authorities) \
                     has signed its certificate: set one of them to its authority: ";
        bench
            .assert_waits("other-authority", &[words, "UnknownIssuer"], |agent| {
                agent.env("CONSUL_CACERT", &text(&other))
            })
            .await?;
        let words = "unreachable, it demands a client certificate that it trusts: set CONSUL_CLIENT_CERT and \
                     CONSUL_CLIENT_KEY: ";
        bench
            .assert_waits("no-client", &[words], |agent| {
                agent
                    .without_env("CONSUL_CLIENT_CERT")
                    .without_env("CONSUL_CLIENT_KEY")
            })
            .await?;
        let words = "answered 400 (Client sent an HTTP request to an HTTPS server.), there is TLS at CONSUL_HTTP_ADDR: \
                     set CONSUL_HTTP_SSL=true";
        bench
            .assert_waits("plain", &[words], |agent| {
                agent.env("CONSUL_HTTP_SSL", "false")
            })
            .await?;
        let plain = world.consul().await?.agent_addr(0);
        let words = format!(
            "unreachable, there is no TLS at CONSUL_HTTP_ADDR (https://{plain}): change it or CONSUL_HTTP_SSL: "
        );
        bench
            .assert_waits("no-tls", &[&words], |agent| {
                agent.env("CONSUL_HTTP_ADDR", &plain)
            })
            .await?;
        let nobody = format!("127.0.0.1:{}", world.port()?);
        let words = format!("unreachable, CONSUL_HTTP_ADDR is https://{nobody}: ");
        bench
            .assert_waits("nobody", &[&words, "Connection refused"], |agent| {
                agent.env("CONSUL_HTTP_ADDR", &nobody)
            })
            .await
    };
    world().story("tls-misfits", story).await;
}

#[tokio::test]
async fn files_that_cannot_be_used_end_the_agent_with_code_2() {
    let story = async |world: &World| {
        let bench = Bench::start(world).await?;
        let key = text(&file(world, "client.key"));
        let server_key = text(&file(world, "server.key"));
        let ca = text(&file(world, "ca.pem"));
        let client = text(&file(world, "client.pem"));
        let empty = world.dir().join("empty");
        std::fs::create_dir(&empty).expect("the world can be written to");
        let empty = text(&empty);
        let cases = [
            ("CONSUL_CACERT", "/nowhere/ca.pem", "could not read /nowhere/ca.pem of CONSUL_CACERT: No such file or directory (os error 2)".to_owned()),
            ("CONSUL_CACERT", &key, format!("CONSUL_CACERT is {key}, allowed is a file with at least one certificate in PEM: ")),
            ("CONSUL_CAPATH", "/nowhere", "could not read /nowhere of CONSUL_CAPATH: No such file or directory (os error 2)".to_owned()),
            ("CONSUL_CAPATH", &empty, format!("CONSUL_CAPATH is {empty}, allowed is a directory with at least one certificate in PEM: ")),
            ("CONSUL_CLIENT_CERT", &key, format!("CONSUL_CLIENT_CERT is {key}, allowed is a file with at least one certificate in PEM: ")),
            ("CONSUL_CLIENT_KEY", &ca, format!("CONSUL_CLIENT_KEY is {ca}, allowed is a file with a private key in PEM: ")),
            ("CONSUL_CLIENT_KEY", &server_key, format!("could not use {client} of CONSUL_CLIENT_CERT with {server_key} of CONSUL_CLIENT_KEY: ")),
            ("CONSUL_TLS_SERVER_NAME", "10.0.0.1", "CONSUL_TLS_SERVER_NAME is \"10.0.0.1\", allowed is a host name".to_owned()),
        ];
        for (at, (variable, value, sentence)) in cases.into_iter().enumerate() {
            let agent = bench
                .agent(&format!("files-{at}"), |agent| {
                    let agent = if variable == "CONSUL_CAPATH" {
                        agent.without_env("CONSUL_CACERT")
                    } else {
                        agent
                    };
                    agent.env(variable, value)
                })
                .await?;
            assert_eq!(
                agent.wait(SOON).await?.code(),
                Some(2),
                "{variable}={value}"
            );
            let logs = agent.logs()?;
            let last = logs.last().expect("it has said something");
            let said = last.field("error").as_str().unwrap_or_default();
            assert!(
                said.starts_with(&sentence),
                "{variable}={value}: {last}\nexpected {sentence}"
            );
        }
        assert_eq!(bench.set.writable().await, [0_usize; 0]);
        Ok(())
    };
    world().story("tls-files", story).await;
}

#[tokio::test]
async fn a_failover_over_tls_with_client_certificates() {
    let story = async |world: &World| {
        let consul = secured(world).await?;
        let set = world.replica_set(2).await?;
        let agents = world.agents(&set, &consul).await?;
        let writers = set.writers().start();
        let first = set.wait_for_master(SOON).await?;
        writers.wait_for_writes(50, SOON).await?;
        set[first].kill().await?;
        let second = set.wait_for_new_master(first, SOON).await?;
        set[first].start().await?;
        set.wait_for_mesh(SOON).await?;
        // All connections break and are made anew.
        consul.restart().await?;
        assert_eq!(set.wait_for_master(SOON).await?, second);
        assert_eq!(agents[second].term(SOON).await?.code(), Some(0));
        assert_eq!(set.wait_for_new_master(second, SOON).await?, first);
        writers.stop().await?.judge().assert_safe();
        Ok(())
    };
    world().story("tls-failover", story).await;
}
