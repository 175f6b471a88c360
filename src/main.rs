//! tmp
use std::time::Duration;
use tarsec::config::*;
use tarsec::decide::timing::Timing;
fn main() {
    let e = |k: &str, d: &str| std::env::var(k).unwrap_or(d.into());
    let lease: u64 = e("LEASE", "3").parse().unwrap();
    let addr = e("TARANTOOL_ADDR", "127.0.0.1:3301");
    let port = addr.rsplit(':').next().unwrap().parse().unwrap();
    let c = Config {
        tarantool: TarantoolConfig {
            addr: TarantoolAddr::Tcp(addr.clone()),
            user: Some("agent".into()),
            password: "agent".into(),
        },
        consul: ConsulConfig {
            base_url: format!("http://{}", e("CONSUL_HTTP_ADDR", "127.0.0.1:8500")),
            token: None,
            basic_auth: None,
            tls: ConsulTls::default(),
            namespace: None,
            kv_prefix: "tarsec".into(),
            lock_key: None,
            session_name: "tarsec".into(),
            monitor_retries: 3,
            monitor_retry_interval: Duration::from_secs(1),
        },
        catalog: CatalogConfig {
            naming: ServiceNaming::Prefix("tarantool".into()),
            master_tags: vec!["master".into()],
            replica_tags: vec!["replica".into()],
            deregister_after: Duration::from_secs(259200),
        },
        announce: Announce {
            host: "127.0.0.1".into(),
            port,
            id: addr.clone(),
        },
        cluster: "play".into(),
        priority: 0,
        timing: Timing::new(
            Duration::from_secs(lease),
            Duration::from_secs(10.max(lease)),
            Duration::from_millis(500),
            Duration::from_secs(1),
            Duration::from_millis(50),
        )
        .unwrap(),
        replication: ReplicationMode::Keep,
        hung_instance: HungInstanceAction::Kill,
        log: LogConfig {
            level: tracing::Level::INFO,
            json: false,
        },
    };
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_max_level(if e("LOG_LEVEL", "info") == "debug" {
            tracing::Level::DEBUG
        } else {
            tracing::Level::INFO
        })
        .init();
    let rt = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let x = rt.block_on(tarsec::run(c));
    eprintln!("{x:?}");
}
