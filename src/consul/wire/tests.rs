//! Servers that keep silent, break off, go on for ever or point elsewhere.

use proptest::prelude::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;
use crate::consul::Consul;
use crate::consul::testing::{self, with_causes};

const SHORT: Duration = Duration::from_millis(200);

/// A server that answers every connection's first request with `reply` and hangs up, and hands out what it was asked.
async fn server(reply: Vec<u8>) -> (ConsulConfig, tokio::sync::mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (asked, questions) = tokio::sync::mpsc::channel(8);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut question = vec![0; 4096];
            let length = stream.read(&mut question).await.unwrap_or(0);
            let _ = asked
                .send(String::from_utf8_lossy(&question[..length]).into_owned())
                .await;
            let _ = stream.write_all(&reply).await;
        }
    });
    (testing::settings(format!("http://{address}")), questions)
}

#[tokio::test]
async fn nothing_is_sent_until_consul_allows_it() {
    let reply = b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 60\r\nContent-Length: 0\r\n\r\n";
    let (settings, mut questions) = server(reply.to_vec()).await;
    let lease = Duration::from_secs(40);
    let consul = Consul::for_lease(&settings, testing::TIMEOUT, lease).unwrap();
    let is_throttled =
        |error: ConsulError| matches!(error, ConsulError::Throttled { code: 429, .. });
    for _ in 0..20 {
        // One by each of the two clients; what the first is told holds for the second.
        assert!(is_throttled(
            consul.put_key_if("k", 0, b"").await.unwrap_err()
        ));
        assert!(is_throttled(consul.put_key("k", b"").await.unwrap_err()));
        assert!(is_throttled(consul.read_lock("k").await.unwrap_err()));
        let wait = Duration::from_secs(1);
        assert!(is_throttled(
            consul.watch_lock("k", 0, wait).await.unwrap_err()
        ));
        let renewed = consul.renew_session(&SessionId::new("s")).await;
        assert!(is_throttled(renewed.unwrap_err()));
    }
    let mut asked = Vec::new();
    while let Ok(question) = questions.try_recv() {
        asked.push(question.lines().next().unwrap_or_default().to_owned());
    }
    assert_eq!(asked.len(), 4, "one in each lane: {asked:?}");
}

#[tokio::test]
async fn a_client_of_others_that_is_refused_closes_the_lane_as_well() {
    let reply = b"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 0\r\n\r\n";
    let (settings, mut questions) = server(reply.to_vec()).await;
    let consul = Consul::new(&settings, testing::TIMEOUT).unwrap();
    for _ in 0..3 {
        let error = consul.put_key("k", b"").await.unwrap_err();
        assert!(matches!(error, ConsulError::Throttled { .. }), "{error}");
    }
    assert!(questions.try_recv().is_ok());
    assert!(questions.try_recv().is_err(), "only the first was sent");
}

#[tokio::test]
async fn silence_is_a_timeout() {
    // The kernel accepts, nobody answers.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let settings = testing::settings(format!("http://{}", listener.local_addr().unwrap()));
    let consul = Consul::new(&settings, SHORT).unwrap();
    assert!(matches!(
        consul.read_lock("k").await,
        Err(ConsulError::Timeout { after: SHORT, .. })
    ));
    assert!(matches!(
        consul.put_key("k", b"").await,
        Err(ConsulError::Timeout { .. })
    ));
    let held = SHORT + Duration::from_millis(160 + 10);
    match consul.watch_lock("k", 1, Duration::from_millis(160)).await {
        Err(ConsulError::Timeout { after, .. }) => assert_eq!(after, held),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_body_that_never_ends_in_time_is_a_timeout() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let settings = testing::settings(format!("http://{}", listener.local_addr().unwrap()));
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        assert!(stream.read(&mut [0; 4096]).await.unwrap() > 0);
        stream
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n[")
            .await
            .unwrap();
        tokio::time::sleep(Duration::from_secs(60)).await;
    });
    let consul = Consul::new(&settings, SHORT).unwrap();
    assert!(matches!(
        consul.read_lock("k").await,
        Err(ConsulError::Timeout { .. })
    ));
}

#[tokio::test]
async fn a_refused_or_broken_connection_is_unreachable() {
    let (settings, _questions) =
        server(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n[".to_vec()).await;
    let consul = Consul::new(&settings, testing::TIMEOUT).unwrap();
    assert!(matches!(
        consul.read_lock("k").await,
        Err(ConsulError::Unreachable { .. })
    ));
    assert!(matches!(
        consul.put_key("k", b"").await,
        Err(ConsulError::Unreachable { .. })
    ));
    let free = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let consul = Consul::new(
        &testing::settings(format!("http://{free}")),
        testing::TIMEOUT,
    )
    .unwrap();
    let error = consul.read_lock("k").await.unwrap_err();
    assert!(
        with_causes(&error).starts_with(
            "could not read lock k: consul is unreachable, CONSUL_HTTP_ADDR is http://"
        ),
        "{}",
        with_causes(&error)
    );
    assert!(
        with_causes(&error).contains("onnection refused"),
        "{}",
        with_causes(&error)
    );
    assert!(matches!(
        consul.put_key("k", b"").await,
        Err(ConsulError::Unreachable { .. })
    ));
}

#[tokio::test]
async fn an_endless_answer_is_cut_off() {
    let mut reply = b"HTTP/1.1 200 OK\r\nX-Consul-Index: 7\r\n\r\n".to_vec();
    reply.resize(ANSWER_LIMIT_BYTES + 1000, b' ');
    let (settings, _questions) = server(reply).await;
    let consul = Consul::new(&settings, testing::TIMEOUT).unwrap();
    assert!(matches!(
        consul.read_lock("k").await,
        Err(ConsulError::TooLong { .. })
    ));
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let reply =
        b"HTTP/1.1 301 Moved\r\nLocation: /v1/kv/other\r\nContent-Length: 0\r\n\r\n".to_vec();
    let (settings, _questions) = server(reply).await;
    let consul = Consul::new(&settings, testing::TIMEOUT).unwrap();
    assert!(matches!(
        consul.read_lock("k").await,
        Err(ConsulError::Status { code: 301, .. })
    ));
}

#[tokio::test]
async fn the_token_and_the_password_are_sent_and_never_shown() {
    let (settings, mut questions) =
        server(b"HTTP/1.1 500 No\r\nContent-Length: 2\r\n\r\nno".to_vec()).await;
    let basic_auth = Some(("user".to_owned(), "pass:word".to_owned()));
    let settings = ConsulConfig {
        token: Some("t0ken".into()),
        basic_auth,
        ..settings
    };
    let consul = Consul::new(&settings, testing::TIMEOUT).unwrap();
    let error = consul.put_key("k", b"").await.unwrap_err();
    let question = questions.recv().await.unwrap().to_lowercase();
    assert!(question.contains("x-consul-token: t0ken\r\n"), "{question}");
    assert!(
        question.contains("authorization: basic dxnlcjpwyxnzondvcmq=\r\n"),
        "{question}"
    );
    for shown in [
        format!("{consul:?}"),
        format!("{error:?}"),
        with_causes(&error),
    ] {
        assert!(
            !shown.contains("t0ken") && !shown.contains("word"),
            "{shown}"
        );
    }
    let broken = ConsulConfig {
        token: Some("t0ken\n".into()),
        ..settings
    };
    let error = Consul::new(&broken, testing::TIMEOUT).unwrap_err();
    assert_eq!(
        error.to_string(),
        "CONSUL_HTTP_TOKEN holds characters that no HTTP header can carry"
    );
}

#[tokio::test]
async fn connections_are_kept() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let settings = testing::settings(format!("http://{}", listener.local_addr().unwrap()));
    let consul = Consul::new(&settings, testing::TIMEOUT).unwrap();
    // One connection for each of the two clients; a third would never be answered.
    let serve = tokio::spawn(async move {
        for _ in 0..2 {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut question = [0; 4096];
                while matches!(stream.read(&mut question).await, Ok(1..)) {
                    let reply =
                        b"HTTP/1.1 404 Not Found\r\nX-Consul-Index: 7\r\nContent-Length: 0\r\n\r\n";
                    let _ = stream.write_all(reply).await;
                }
            });
        }
    });
    for _ in 0..5 {
        assert_eq!(consul.read_lock("k").await.unwrap().key, None);
        // Goes through the other client.
        assert!(consul.put_key("k", b"").await.is_err());
    }
    serve.await.unwrap();
}

proptest! {
    #[test]
    fn a_key_path_names_its_key_alone(key: String) {
        if let Ok(path) = key_path("test", &key) {
            let url = reqwest::Url::parse(&format!("http://host{path}")).unwrap();
            prop_assert_eq!(url.path(), &path);
            prop_assert_eq!((url.query(), url.fragment()), (None, None));
        }
    }

    #[test]
    fn consuls_words_are_bounded(body: Vec<u8>) {
        prop_assert!(quoted(&body).chars().count() <= MESSAGE_LIMIT_CHARS);
    }
}
