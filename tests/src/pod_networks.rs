//! The networks of two pods of which each sees the other as it would on another node: by the IP of a Service, and as an IP
//! that nobody on this node has.
//!
//! What kube-proxy and the other node would do, the kernel's own address translation does. Refuses: rules in the host's network.

use std::process::Command;

use crate::tools;

/// Network namespaces of a client and a server, joined by one link.
pub struct PodNetworks(());

impl PodNetworks {
    /// The client's namespace.
    pub const CLIENT: &str = "kansoku-test-client";
    /// The server's.
    pub const SERVER: &str = "kansoku-test-server";
    /// The client's address as it sees it itself.
    pub const CLIENT_ADDRESS: &str = "198.18.1.1";
    /// The client's address as the server sees it.
    pub const CLIENT_FROM_AFAR: &str = "10.77.0.9";
    /// The server's address as it sees it itself.
    pub const SERVER_ADDRESS: &str = "198.18.1.2";
    /// The server's address as the client asks for it.
    pub const SERVICE_ADDRESS: &str = "10.96.77.7";

    /// Makes both.
    pub fn make() -> Self {
        let networks = Self(());
        let nft = tools::require("nft", "nftables");
        let (client, server) = (Self::CLIENT, Self::SERVER);
        for line in [
            format!("netns add {client}"),
            format!("netns add {server}"),
            format!("-netns {client} link add eth0 type veth peer name eth0 netns {server}"),
            format!("-netns {client} address add {}/24 dev eth0", Self::CLIENT_ADDRESS),
            format!("-netns {server} address add {}/24 dev eth0", Self::SERVER_ADDRESS),
            format!("-netns {client} link set lo up"),
            format!("-netns {server} link set lo up"),
            format!("-netns {client} link set eth0 up"),
            format!("-netns {server} link set eth0 up"),
            format!("-netns {client} route add default via {}", Self::SERVER_ADDRESS),
            format!("-netns {server} route add default via {}", Self::CLIENT_ADDRESS),
        ] {
            tools::succeed(Command::new("ip").args(line.split(' ')));
        }
        let rules = format!(
            "table ip kansoku {{\n\
             chain output {{ type nat hook output priority -100; ip daddr {} dnat to {}; }}\n\
             chain postrouting {{ type nat hook postrouting priority 100; ip daddr {} snat to {}; }}\n}}",
            Self::SERVICE_ADDRESS,
            Self::SERVER_ADDRESS,
            Self::SERVER_ADDRESS,
            Self::CLIENT_FROM_AFAR
        );
        tools::succeed(Command::new("ip").args(["netns", "exec", client]).arg(&nft).arg(rules));
        networks
    }
}

impl Drop for PodNetworks {
    fn drop(&mut self) {
        for name in [Self::CLIENT, Self::SERVER] {
            let _gone = Command::new("ip").args(["netns", "delete", name]).status();
        }
    }
}
