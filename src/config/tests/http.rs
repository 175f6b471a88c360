//! `HTTP_LISTEN` and what belongs to it.

use super::*;

#[test]
fn nothing_listens_unless_it_is_set() {
    assert_eq!(good(&[]).http, None);
    assert_eq!(good(&[("HTTP_LISTEN", "")]).http, None);
}

#[test]
fn an_address_and_a_port_are_listened_at() {
    for address in ["127.0.0.1:7301", "0.0.0.0:80", "[::1]:7301", "[::]:65535"] {
        let http = good(&[("HTTP_LISTEN", address)]).http.unwrap();
        assert_eq!(http.listen.to_string(), address);
        assert_eq!(http.tls, None);
    }
    for address in [
        "7301",
        ":7301",
        "localhost:7301",
        "127.0.0.1",
        "127.0.0.1:0",
        "::1:7301",
        "http://127.0.0.1:7301",
    ] {
        let parts = ["HTTP_LISTEN is ", address, "such as 127.0.0.1:7301"];
        assert_bad(&[("HTTP_LISTEN", address)], &parts);
    }
}

#[test]
fn a_certificate_and_its_key_belong_together_and_to_a_listener() {
    let listen = ("HTTP_LISTEN", "127.0.0.1:7301");
    let (cert, key) = (("HTTP_TLS_CERT", "/c.pem"), ("HTTP_TLS_KEY", "/k.pem"));
    let clients = ("HTTP_TLS_CLIENT_CA", "/ca.pem");
    let http = good(&[listen, cert, key, clients]).http.unwrap();
    let tls = http.tls.unwrap();
    assert_eq!(tls.client_authorities, Some("/ca.pem".into()));
    assert_bad(&[listen, cert], &["HTTP_TLS_CERT is set", "HTTP_TLS_KEY"]);
    assert_bad(&[listen, key], &["HTTP_TLS_KEY is set", "HTTP_TLS_CERT"]);
    assert_bad(
        &[listen, clients],
        &["HTTP_TLS_CLIENT_CA is set", "HTTP_TLS_CERT"],
    );
    assert_bad(&[cert, key], &["HTTP_TLS_CERT is set", "HTTP_LISTEN"]);
}
