//! A server with keys and certificate of its own, from nothing to its first operator.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use skerry_server::dev;
use support::{client, code, release_key};

fn server(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_skerry-server")).args(args).output().unwrap()
}

/// What a command that succeeds prints.
fn printed(args: &[&str]) -> String {
    let output = server(args);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn configuration(folder: &Path) -> String {
    // Any authority serves for the certificate; the development server's is at hand.
    dev::prepare(folder, &dev::Address::new("127.0.0.1:0".parse().unwrap(), None).unwrap()).unwrap();
    let path = |name: &str| folder.join(name).display().to_string();
    let text = format!(
        "listen = '127.0.0.1:0'\ndata = '{}'\nlog = 'warn'\n[tls]\ncertificate = '{}'\nkey = '{}'\n[trust]\nroots = ['{}']\ndirector_key = '{}'\n",
        path("server"),
        path("tls.pem"),
        path("tls.key"),
        path("trust/root.cose"),
        path("trust/director.key")
    );
    std::fs::write(folder.join("server.toml"), text).unwrap();
    path("server.toml")
}

#[tokio::test]
async fn from_nothing_to_the_first_operator() {
    let folder = tempfile::tempdir().unwrap();
    let config = configuration(folder.path());
    let public = release_key(folder.path()).public().to_string();
    let trust = folder.path().join("trust");
    printed(&["trust", "--out", trust.to_str().unwrap(), "--release", &public]);
    let add = |name: &str, role: &str| printed(&["operator", "add", "--config", &config, "--name", name, "--role", role]);
    let first = add("ada", "admin");

    let mut running =
        Command::new(env!("CARGO_BIN_EXE_skerry-server")).args(["run", "--config", &config]).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(running.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let url = line.trim().strip_prefix("ready ").unwrap().to_owned();
    let status = client(folder.path(), &url, &first).status().await.unwrap();
    assert!(!status.development);
    // Beside the running server.
    let second = add("bob", "reader");
    client(folder.path(), &url, &second).status().await.unwrap();
    assert_eq!(printed(&["operator", "list", "--config", &config]), "admin  ada\nreader  bob");
    printed(&["operator", "remove", "--config", &config, "--name", "bob"]);
    assert_eq!(code(client(folder.path(), &url, &second).status().await), "401 unauthorized");
    running.kill().unwrap();
    running.wait().unwrap();

    let refused = server(&["operator", "add", "--config", &config, "--name", "ada", "--role", "reader"]);
    assert_eq!(refused.status.code(), Some(1));
    let refused = server(&["operator", "add", "--config", &config, "--name", "eve", "--role", "root"]);
    assert_eq!(refused.status.code(), Some(64));
}
