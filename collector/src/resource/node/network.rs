//! `/proc/net/dev` of the host's first process: what each interface receives and sends (proc(5)).
//!
//! Refuses: which container an interface leads to, and the finer counters that netlink has.

use anyhow::Result;
use procfs::FromBufRead;
use procfs::net::{DeviceStatus, InterfaceDeviceStatus};

use super::Reading;
use super::family::{node, point};
use crate::telemetry::{Metric, MetricKind, Text};

/// The most interfaces; those beyond are cut.
pub(super) const INTERFACES_MAX: usize = 512;

/// node_exporter's counters: name and description.
const NODE: [(&str, &str); 16] = [
    ("node_network_receive_bytes_total", "Network device statistic receive_bytes."),
    ("node_network_receive_packets_total", "Network device statistic receive_packets."),
    ("node_network_receive_errs_total", "Network device statistic receive_errs."),
    ("node_network_receive_drop_total", "Network device statistic receive_drop."),
    ("node_network_receive_fifo_total", "Network device statistic receive_fifo."),
    ("node_network_receive_frame_total", "Network device statistic receive_frame."),
    ("node_network_receive_compressed_total", "Network device statistic receive_compressed."),
    ("node_network_receive_multicast_total", "Network device statistic receive_multicast."),
    ("node_network_transmit_bytes_total", "Network device statistic transmit_bytes."),
    ("node_network_transmit_packets_total", "Network device statistic transmit_packets."),
    ("node_network_transmit_errs_total", "Network device statistic transmit_errs."),
    ("node_network_transmit_drop_total", "Network device statistic transmit_drop."),
    ("node_network_transmit_fifo_total", "Network device statistic transmit_fifo."),
    ("node_network_transmit_colls_total", "Network device statistic transmit_colls."),
    ("node_network_transmit_carrier_total", "Network device statistic transmit_carrier."),
    ("node_network_transmit_compressed_total", "Network device statistic transmit_compressed."),
];

/// The conventions' counters: name, unit, description, the attribute of the interface, and the fields received and sent.
const OWN: [(&str, &str, &str, &str, [usize; 2]); 4] = [
    ("system.network.io", "By", "Bytes received and sent.", "network.interface.name", [0, 8]),
    // The conventions name the interface `system.device` here, and only here.
    ("system.network.packet.count", "{packet}", "Packets received and sent.", "system.device", [1, 9]),
    ("system.network.errors", "{error}", "Network errors.", "network.interface.name", [2, 10]),
    (
        "system.network.packet.dropped",
        "{packet}",
        "Packets dropped though there was no error.",
        "network.interface.name",
        [3, 11],
    ),
];

struct Interface {
    name: String,
    counters: [u64; 16],
    start: u64,
}

/// The counters of all interfaces.
pub(super) fn metrics(reading: &mut Reading<'_>) -> Result<Vec<Metric>> {
    let text = reading.root.read_of_init("net/dev")?;
    let devices = InterfaceDeviceStatus::from_buf_read(text.as_bytes())?.0;
    anyhow::ensure!(!devices.is_empty(), "no interfaces");
    // The map has no order, and the same ones are to be cut each time.
    let mut devices: Vec<DeviceStatus> = devices.into_values().collect();
    devices.sort_unstable_by(|one, other| one.name.cmp(&other.name));
    *reading.cut += devices.len().saturating_sub(INTERFACES_MAX) as u64;
    devices.truncate(INTERFACES_MAX);
    let interfaces: Vec<Interface> = devices.into_iter().map(|device| interface(device, reading)).collect();

    let by_node = NODE.iter().enumerate().map(|(field, (name, description))| {
        let unit = if name.ends_with("_bytes_total") { "By" } else { "" };
        let series = interfaces.iter().map(|interface| {
            let labels = [("device", Text::from(interface.name.clone()))];
            point(interface.start, labels, interface.counters[field] as f64)
        });
        node(MetricKind::Counter, *name, unit, *description).with(series.collect())
    });
    let own = OWN.iter().map(|(name, unit, description, attribute, fields)| {
        let series = interfaces.iter().flat_map(|interface| {
            ["receive", "transmit"].into_iter().zip(fields).map(|(direction, field)| {
                let attributes = [
                    (*attribute, Text::from(interface.name.clone())),
                    ("network.io.direction", Text::from(direction)),
                ];
                point(interface.start, attributes, interface.counters[*field] as f64)
            })
        });
        Metric::new(MetricKind::Counter, *name, *unit, *description).with(series.collect())
    });
    Ok(by_node.chain(own).collect())
}

fn interface(device: DeviceStatus, reading: &mut Reading<'_>) -> Interface {
    let mut counters = [
        device.recv_bytes,
        device.recv_packets,
        device.recv_errs,
        device.recv_drop,
        device.recv_fifo,
        device.recv_frame,
        device.recv_compressed,
        device.recv_multicast,
        device.sent_bytes,
        device.sent_packets,
        device.sent_errs,
        device.sent_drop,
        device.sent_fifo,
        device.sent_colls,
        device.sent_carrier,
        device.sent_compressed,
    ];
    let start = reading.starts.of("network", &device.name, &mut counters, 0);
    Interface { name: device.name, counters, start }
}
