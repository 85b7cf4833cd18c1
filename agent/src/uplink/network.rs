//! The kernel's word about the machine's network: an address that went away, a link, an address or a route that came.
//!
//! A connection whose address is gone says nothing for minutes; a link that is back says nothing at all. The kernel knows both at once.
//! What it says is a hint: without it everything still comes right, later.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::OwnedFd;

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::reach::Reach;

/// Links, IPv4 addresses and routes, IPv6 addresses and routes: `RTMGRP_*`.
const GROUPS: u32 = 0x1 | 0x10 | 0x40 | 0x100 | 0x400;
/// More than a message of these groups has.
const MESSAGE: usize = 16 * 1024;

const NEW_LINK: u16 = 16;
const NEW_ADDRESS: u16 = 20;
const GONE_ADDRESS: u16 = 21;
const NEW_ROUTE: u16 = 24;
/// Attribute of a link: its name.
const LINK_NAME: u16 = 3;
/// Attributes of an address: the address, and our end of it where they differ.
const ADDRESS: u16 = 1;
const LOCAL: u16 = 2;
/// The link carries something: `IFF_LOWER_UP`.
const CARRIES: u32 = 0x1_0000;
/// Addresses from this scope on serve the link or the machine only.
const SCOPE_LINK: u8 = 253;
/// The routing table of the machine.
const TABLE_MAIN: u8 = 254;
const IPV4: u8 = 2;
/// Links that containers have: they come and go without meaning.
const OF_CONTAINERS: [&str; 6] = ["lo", "veth", "docker", "br-", "cni", "podman"];

/// What changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// The machine has this address no more.
    Gone(IpAddr),
    /// A link, an address or a route came.
    Back,
}

/// Passes changes on, for ever. A machine that does not tell of them is no error.
pub(crate) async fn follow(reach: Reach) {
    if let Err(error) = listen(&reach).await {
        tracing::warn!("the kernel does not tell of changes of the network ({error}): a link that is back is found by trying");
    }
    std::future::pending().await
}

#[expect(deprecated, reason = "its successor is unsafe; an owned descriptor keeps what that asks for")]
async fn listen(reach: &Reach) -> io::Result<()> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket: OwnedFd = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
    bind(&socket, &SocketAddrNetlink::new(0, GROUPS))?;
    let socket = AsyncFd::with_interest(socket, Interest::READABLE)?;
    loop {
        let mut ready = socket.readable().await?;
        // On the heap, and only while there is something to read: changes are rare.
        let mut buffer = vec![0; MESSAGE];
        match ready.try_io(|socket| Ok(rustix::io::read(socket.get_ref(), &mut buffer[..])?)) {
            Ok(Ok(length)) => changes(buffer.get(..length).unwrap_or_default()).into_iter().for_each(|change| reach.changed(change)),
            // More came than the kernel keeps: something changed, nobody knows what.
            Ok(Err(error)) if error.raw_os_error() == Some(rustix::io::Errno::NOBUFS.raw_os_error()) => reach.changed(Change::Back),
            Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
            Ok(Err(error)) => return Err(error),
            Err(_) => {}
        }
    }
}

/// What a batch of messages says. What is not understood says nothing.
fn changes(mut bytes: &[u8]) -> Vec<Change> {
    let mut found = Vec::new();
    while let Some((length, kind)) = head(bytes) {
        let Some(body) = bytes.get(16..length) else { break };
        found.extend(match kind {
            NEW_LINK => link(body),
            NEW_ADDRESS => address(body).map(|_| Change::Back),
            GONE_ADDRESS => address(body).map(Change::Gone),
            NEW_ROUTE => route(body),
            _ => None,
        });
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    found
}

/// Length and kind of the first message: `nlmsghdr`.
fn head(bytes: &[u8]) -> Option<(usize, u16)> {
    let length = usize::try_from(u32::from_ne_bytes(*bytes.first_chunk()?)).ok()?;
    let kind = u16::from_ne_bytes(*bytes.get(4..)?.first_chunk()?);
    (length >= 16).then_some((length, kind))
}

/// `ifinfomsg` and attributes.
fn link(body: &[u8]) -> Option<Change> {
    let flags = u32::from_ne_bytes(*body.get(8..)?.first_chunk()?);
    let name = attribute(body.get(16..)?, LINK_NAME)?;
    let of_containers = OF_CONTAINERS.iter().any(|prefix| name.starts_with(prefix.as_bytes()));
    (flags & CARRIES != 0 && !of_containers).then_some(Change::Back)
}

/// `ifaddrmsg` and attributes: an address that others can reach.
fn address(body: &[u8]) -> Option<IpAddr> {
    let (family, scope) = (*body.first()?, *body.get(3)?);
    if scope >= SCOPE_LINK {
        return None;
    }
    let attributes = body.get(8..)?;
    let bytes = attribute(attributes, LOCAL).or_else(|| attribute(attributes, ADDRESS))?;
    if family == IPV4 {
        Some(Ipv4Addr::from(*bytes.first_chunk::<4>()?).into())
    } else {
        Some(Ipv6Addr::from(*bytes.first_chunk::<16>()?).into())
    }
}

/// `rtmsg`: routes of the machine; of IPv6 only the default, for every link has some of its own.
fn route(body: &[u8]) -> Option<Change> {
    let (family, destination, table) = (*body.first()?, *body.get(1)?, *body.get(4)?);
    (table == TABLE_MAIN && (family == IPV4 || destination == 0)).then_some(Change::Back)
}

/// The value of the first attribute of this kind: `rtattr`.
fn attribute(mut bytes: &[u8], kind: u16) -> Option<&[u8]> {
    loop {
        let length = usize::from(u16::from_ne_bytes(*bytes.first_chunk()?));
        let value = bytes.get(4..length)?;
        if u16::from_ne_bytes(*bytes.get(2..)?.first_chunk()?) == kind {
            return Some(value);
        }
        bytes = bytes.get(length.next_multiple_of(4)..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute_of(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = u16::try_from(4 + value.len()).unwrap().to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn message(kind: u16, fixed: &[u8], attributes: &[Vec<u8>]) -> Vec<u8> {
        let body: Vec<u8> = fixed.iter().copied().chain(attributes.iter().flatten().copied()).collect();
        let mut bytes = u32::try_from(16 + body.len()).unwrap().to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend([0; 10]);
        bytes.extend(body);
        bytes
    }

    fn link_of(name: &[u8], flags: u32) -> Vec<u8> {
        let mut fixed = vec![0; 8];
        fixed.extend(flags.to_ne_bytes());
        fixed.extend([0; 4]);
        message(NEW_LINK, &fixed, &[attribute_of(1, &[1; 6]), attribute_of(LINK_NAME, name)])
    }

    fn address_of(kind: u16, family: u8, scope: u8, bytes: &[u8]) -> Vec<u8> {
        message(kind, &[family, 24, 0, scope, 2, 0, 0, 0], &[attribute_of(ADDRESS, bytes)])
    }

    #[test]
    fn what_concerns_the_way_to_the_server_is_told() {
        let here = [10, 77, 0, 2];
        let gone = Change::Gone(here.into());
        let route_of = |family, destination, table| message(NEW_ROUTE, &[family, destination, 0, 0, table, 0, 0, 1, 0, 0, 0, 0], &[]);
        for (bytes, expected) in [
            (address_of(GONE_ADDRESS, 2, 0, &here), Some(gone)),
            (address_of(GONE_ADDRESS, 10, 0, &[0x20; 16]), Some(Change::Gone([0x20u8; 16].into()))),
            (address_of(GONE_ADDRESS, 10, SCOPE_LINK, &[0xfe; 16]), None),
            (address_of(NEW_ADDRESS, 2, 0, &here), Some(Change::Back)),
            (address_of(NEW_ADDRESS, 10, SCOPE_LINK, &[0xfe; 16]), None),
            (link_of(b"eth0\0", CARRIES), Some(Change::Back)),
            (link_of(b"eth0\0", 0), None),
            (link_of(b"veth12\0", CARRIES), None),
            (route_of(2, 24, TABLE_MAIN), Some(Change::Back)),
            (route_of(2, 32, 255), None),
            (route_of(10, 64, TABLE_MAIN), None),
            (route_of(10, 0, TABLE_MAIN), Some(Change::Back)),
        ] {
            assert_eq!(changes(&bytes), Vec::from_iter(expected), "{bytes:?}");
            // Cut anywhere it says nothing, and breaks nothing.
            for cut in 0..bytes.len() {
                assert_eq!(changes(&bytes[..cut]), [], "{bytes:?} cut at {cut}");
            }
        }
        let two = [address_of(GONE_ADDRESS, 2, 0, &here), link_of(b"wwan0\0", CARRIES)].concat();
        assert_eq!(changes(&two), [gone, Change::Back]);
    }

    #[test]
    fn the_kernel_can_be_listened_to() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        // It ends only with an error.
        let listening = async { tokio::time::timeout(std::time::Duration::from_millis(50), listen(&Reach::new())).await };
        assert!(runtime.block_on(listening).is_err());
    }
}
