//! A certificate authority with one server and one client certificate, made by `openssl`.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::{Error, Result};

/// Where the PEM files are.
#[derive(Debug, Clone)]
pub(crate) struct Files {
    pub(crate) ca: PathBuf,
    pub(crate) server_cert: PathBuf,
    pub(crate) server_key: PathBuf,
    pub(crate) client_cert: PathBuf,
    pub(crate) client_key: PathBuf,
}

/// Makes the files in `dir`.
pub(crate) fn make(dir: &Path) -> Result<Files> {
    let key = [
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
    ];
    let ca = [
        &["req", "-x509"][..],
        &key,
        &[
            "-keyout",
            "ca.key",
            "-out",
            "ca.pem",
            "-days",
            "2",
            "-subj",
            "/CN=harness CA",
        ],
        &["-addext", "keyUsage=critical,keyCertSign,cRLSign"],
    ];
    openssl(dir, &ca.concat())?;
    let names = "subjectAltName=IP:127.0.0.1,DNS:localhost,DNS:server.dc1.consul";
    sign(
        dir,
        &key,
        "server",
        &format!("{names}\nextendedKeyUsage=serverAuth,clientAuth\n"),
    )?;
    sign(
        dir,
        &key,
        "client",
        "subjectAltName=DNS:client\nextendedKeyUsage=clientAuth\n",
    )?;
    Ok(Files {
        ca: dir.join("ca.pem"),
        server_cert: dir.join("server.pem"),
        server_key: dir.join("server.key"),
        client_cert: dir.join("client.pem"),
        client_key: dir.join("client.key"),
    })
}

fn sign(dir: &Path, key: &[&str], name: &str, extensions: &str) -> Result<()> {
    let file = |kind: &str| format!("{name}.{kind}");
    let ext = dir.join(file("ext"));
    // Verifiers want version 3, which openssl makes when there are extensions.
    std::fs::write(&ext, format!("basicConstraints=CA:FALSE\n{extensions}"))
        .map_err(Error::io(format!("write {}", ext.display())))?;
    let subject = format!("/CN={name}");
    let (key_file, csr, pem, ext) = (file("key"), file("csr"), file("pem"), file("ext"));
    let request = [
        &["req"][..],
        key,
        &["-keyout", &key_file, "-out", &csr, "-subj", &subject],
    ];
    openssl(dir, &request.concat())?;
    let authority = [
        "-CA",
        "ca.pem",
        "-CAkey",
        "ca.key",
        "-CAcreateserial",
        "-days",
        "2",
    ];
    let signing = [
        &["x509", "-req", "-in", &csr, "-out", &pem, "-extfile", &ext][..],
        &authority,
    ];
    openssl(dir, &signing.concat())
}

fn openssl(dir: &Path, args: &[&str]) -> Result<()> {
    let output = Command::new("openssl").args(args).current_dir(dir).output();
    let output = output.map_err(Error::io("run openssl"))?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    Err(Error::Program {
        program: format!("openssl {}", args.join(" ")),
        output: text,
    })
}
