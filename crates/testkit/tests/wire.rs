//! The wire between two TAP devices: delay is felt, a link that is down carries nothing.
//!
//! Needs root.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use skerry_testkit::command::{run, until};
use skerry_testkit::{Netns, Way, Wire, http, need};

#[test]
fn delay_is_felt_and_a_link_that_is_down_carries_nothing() -> Result<()> {
    if !need::bed()? {
        return Ok(());
    }
    let (near, far) = (Netns::create("near")?, Netns::create("far")?);
    let slow = Way::new(0.0, 60.0, 0.0);
    let wire = Wire::start((&near.path(), "t0"), (&far.path(), "t1"), [slow; 2])?;
    for (namespace, interface, address) in [(&near, "t0", "10.78.0.1/24"), (&far, "t1", "10.78.0.2/24")] {
        run(Command::new("ip").args(["-n", namespace.name(), "addr", "add", address, "dev", interface]))?;
        run(Command::new("ip").args(["-n", namespace.name(), "link", "set", interface, "up"]))?;
    }

    let address: SocketAddr = "10.78.0.2:80".parse()?;
    far.enter()?;
    let listener = TcpListener::bind(address)?;
    thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            let _ = stream.read(&mut [0; 1024]);
            let _ = stream.write_all(b"HTTP/1.0 200 OK\r\n\r\nhello");
        }
    });
    near.enter()?;
    until("an answer over the wire", Duration::from_secs(10), || Ok(http::get(address, "/", Duration::from_secs(2)).ok()))?;
    let start = Instant::now();
    ensure!(http::get(address, "/", Duration::from_secs(10))? == "hello");
    // Connecting and asking are a round trip of 120 ms each.
    ensure!(start.elapsed() >= Duration::from_millis(230), "answered in {:?}", start.elapsed());
    wire.set([Way::DOWN; 2]);
    ensure!(http::get(address, "/", Duration::from_millis(500)).is_err(), "a link that is down carried an answer");
    Ok(())
}
