//! `/sys/class/net`: what each interface is (`Documentation/ABI/testing/sysfs-class-net`).
//!
//! A node of Kubernetes has hundreds of interfaces with twenty files each. So only the state of the link is read each
//! time; the rest when that changed or is a minute old, and of a bounded number at once. An interface whose rest was not
//! read yet has only its state; a link that was lost and came back between two readings is counted a minute later. Refuses: what an interface transfers.

use std::collections::HashMap;

use anyhow::{Context, Result};

use super::Reading;
use super::family::{node, point};
use super::network::INTERFACES_MAX;
use super::root::{self, Root};
use crate::telemetry::{Metric, MetricKind, Point, Text};

/// How long what rarely changes is believed, nanoseconds.
const DETAILS_AGE_MAX_NS: u64 = 60_000_000_000;
/// Of how many interfaces the rest is read in one collection: twenty files of 10 us each.
const DETAILS_READ_MAX: usize = 8;
/// `IFF_UP` of `linux/if.h`.
const IFF_UP: i64 = 1;

/// Numbers in files: the file, the end of node_exporter's name, and whether it is a counter.
const NUMBERS: [(&str, &str, bool); 16] = [
    ("addr_assign_type", "address_assign_type", false),
    ("carrier", "carrier", false),
    ("carrier_changes", "carrier_changes_total", true),
    ("carrier_up_count", "carrier_up_changes_total", true),
    ("carrier_down_count", "carrier_down_changes_total", true),
    ("dev_id", "device_id", false),
    ("dormant", "dormant", false),
    ("flags", "flags", false),
    ("ifindex", "iface_id", false),
    ("iflink", "iface_link", false),
    ("link_mode", "iface_link_mode", false),
    ("mtu", "mtu_bytes", false),
    ("netdev_group", "net_dev_group", false),
    ("name_assign_type", "name_assign_type", false),
    ("tx_queue_len", "transmit_queue_length", false),
    ("type", "protocol_type", false),
];
/// Positions of the counters.
const COUNTERS: [usize; 3] = [2, 3, 4];
/// Position of `flags`.
const FLAGS: usize = 7;
/// Texts in files that are labels of `node_network_info`.
const TEXTS: [&str; 4] = ["address", "broadcast", "duplex", "ifalias"];

/// What was read of the interfaces before.
#[derive(Default)]
pub(super) struct Interfaces {
    known: HashMap<String, Details>,
}

/// What rarely changes of an interface.
struct Details {
    state: String,
    read_unix_ns: u64,
    numbers: [Option<i64>; NUMBERS.len()],
    texts: [String; TEXTS.len()],
    /// Megabits for each second; negative if the driver does not know.
    speed_mbit: Option<i64>,
    start: u64,
}

/// The state of an interface's link, which may say that the rest changed.
struct Link {
    name: String,
    state: String,
}

/// The properties of all interfaces.
pub(super) fn metrics(interfaces: &mut Interfaces, reading: &mut Reading<'_>) -> Result<Vec<Metric>> {
    let names = names(reading)?;
    interfaces.known.retain(|name, _| names.binary_search(name).is_ok());
    // An interface that vanished meanwhile has no state.
    let links: Vec<Link> = names.into_iter().filter_map(|name| link(reading.root, name)).collect();
    refresh(interfaces, &links, reading);

    let up = links.iter().map(|link| {
        let is_up = f64::from(u8::from(link.state == "up"));
        point(0, [("device", Text::from(link.name.clone()))], is_up)
    });
    let description = "Value is 1 if operstate is 'up', 0 otherwise.";
    let mut metrics = vec![node(MetricKind::Gauge, "node_network_up", "", description).with(up.collect())];
    let known: Vec<_> = links.iter().filter_map(|link| interfaces.known.get_key_value(&link.name)).collect();
    metrics.extend(numbers(&known));
    metrics.push(info(&known));
    metrics.push(speed(&known));
    metrics.retain(|metric| !metric.points.is_empty());
    Ok(metrics)
}

fn link(root: &Root, name: String) -> Option<Link> {
    let state = root.read(format!("sys/class/net/{name}/operstate")).ok()?.trim().to_owned();
    Some(Link { name, state })
}

/// Reads the details of some interfaces: first of those that have none or others now, then of those read longest ago.
fn refresh(interfaces: &mut Interfaces, links: &[Link], reading: &mut Reading<'_>) {
    let now = reading.now_unix_ns;
    let age_ns = |link: &Link| match interfaces.known.get(&link.name) {
        Some(known) if known.state == link.state => now.abs_diff(known.read_unix_ns),
        _ => u64::MAX,
    };
    let mut stale: Vec<(u64, &Link)> = links.iter().map(|link| (age_ns(link), link)).collect();
    stale.retain(|(age_ns, _)| *age_ns >= DETAILS_AGE_MAX_NS);
    stale.sort_by_key(|(age_ns, _)| std::cmp::Reverse(*age_ns));
    for (_, link) in stale.into_iter().take(DETAILS_READ_MAX) {
        let mut details = details(reading.root, link);
        details.read_unix_ns = now;
        interfaces.known.insert(link.name.clone(), details);
    }
    for (name, known) in &mut interfaces.known {
        let mut counters = COUNTERS.map(|field| known.numbers[field].unwrap_or(0).max(0) as u64);
        known.start = reading.starts.of("interface", name, &mut counters, 0);
    }
}

/// The interfaces in order. `bonding_masters` is a file and has no folder of its own.
fn names(reading: &mut Reading<'_>) -> Result<Vec<String>> {
    let folder = std::fs::read_dir(reading.root.path("sys/class/net")).context("/sys/class/net")?;
    let entries = folder.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut names: Vec<String> = entries.filter(|name| name != "bonding_masters").collect();
    names.sort_unstable();
    *reading.cut += names.len().saturating_sub(INTERFACES_MAX) as u64;
    names.truncate(INTERFACES_MAX);
    Ok(names)
}

fn details(root: &Root, link: &Link) -> Details {
    // Files that do not fit the interface fail to be read: the carrier of one that is down, the speed of a bridge.
    let text = |file: &str| {
        let text = root.read(format!("sys/class/net/{}/{file}", link.name)).unwrap_or_default();
        text.trim().to_owned()
    };
    Details {
        state: link.state.clone(),
        read_unix_ns: 0,
        numbers: NUMBERS.map(|(file, _, _)| root::number(&text(file))),
        texts: TEXTS.map(text),
        speed_mbit: root::number(&text("speed")),
        start: 0,
    }
}

fn numbers(known: &[(&String, &Details)]) -> Vec<Metric> {
    let metric = |(field, (_, name, is_counter)): (usize, &(&str, &'static str, bool))| {
        let series: Vec<Point> = known
            .iter()
            .filter_map(|(device, details)| {
                let start = if *is_counter { details.start } else { 0 };
                let value = details.numbers[field]? as f64;
                Some(point(start, [("device", Text::from((*device).clone()))], value))
            })
            .collect();
        let kind = if *is_counter { MetricKind::Counter } else { MetricKind::Gauge };
        let unit = if name.ends_with("_bytes") { "By" } else { "" };
        node(kind, format!("node_network_{name}"), unit, format!("Network device property: {name}"))
            .with(series)
    };
    NUMBERS.iter().enumerate().map(metric).collect()
}

fn info(known: &[(&String, &Details)]) -> Metric {
    let series = known.iter().map(|(device, details)| {
        let admin = match details.numbers[FLAGS] {
            Some(flags) if flags & IFF_UP != 0 => "up",
            Some(_) => "down",
            None => "unknown",
        };
        let [address, broadcast, duplex, alias] = details.texts.clone().map(Text::from);
        let labels = [
            ("device", Text::from((*device).clone())),
            ("address", address),
            ("adminstate", Text::from(admin)),
            ("broadcast", broadcast),
            ("duplex", duplex),
            ("ifalias", alias),
            ("operstate", Text::from(details.state.clone())),
        ];
        point(0, labels, 1.0)
    });
    let description = "Non-numeric data from /sys/class/net/<iface>, value is always 1.";
    node(MetricKind::Gauge, "node_network_info", "", description).with(series.collect())
}

/// Speeds that are unknown are left out, as node_exporter 2 will do.
fn speed(known: &[(&String, &Details)]) -> Metric {
    let series = known.iter().filter_map(|(device, details)| {
        let mbit = details.speed_mbit.filter(|mbit| *mbit >= 0)?;
        Some(point(0, [("device", Text::from((*device).clone()))], mbit as f64 * 1e6 / 8.0))
    });
    node(MetricKind::Gauge, "node_network_speed_bytes", "By", "Network device property: speed_bytes")
        .with(series.collect())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::starts::Starts;
    use super::*;

    #[test]
    fn the_rest_of_many_is_read_bit_by_bit() {
        const COUNT: usize = DETAILS_READ_MAX * 2 + 1;
        let folder = tempfile::tempdir().unwrap();
        let write = |interface: usize, file: &str, text: &str| {
            let interface = folder.path().join(format!("sys/class/net/veth{interface:03}"));
            fs::create_dir_all(&interface).unwrap();
            fs::write(interface.join(file), text).unwrap();
        };
        for interface in 0..COUNT {
            write(interface, "operstate", "up");
            write(interface, "mtu", "1500");
        }
        let (root, mut starts, mut cut) = (Root::new(folder.path().to_path_buf()), Starts::default(), 0);
        let mut interfaces = Interfaces::default();
        let mut collect = |now_s: u64| {
            let now_unix_ns = now_s * 1_000_000_000;
            starts.begin(now_unix_ns, Some(1));
            let mut reading = Reading { root: &root, now_unix_ns, starts: &mut starts, cut: &mut cut };
            let metrics = metrics(&mut interfaces, &mut reading).unwrap();
            let mtu = metrics.iter().find(|metric| metric.name == "node_network_mtu_bytes").unwrap();
            let values = mtu.points.iter().map(|point| point.value.clone());
            let new = values.filter(|value| *value == crate::telemetry::Value::Number(9000.0)).count();
            (metrics[0].points.len(), mtu.points.len(), new)
        };
        // Although the first are a minute old by then, those without any come first.
        assert_eq!(collect(100), (COUNT, DETAILS_READ_MAX, 0));
        assert_eq!(collect(200), (COUNT, DETAILS_READ_MAX * 2, 0));
        assert_eq!(collect(300), (COUNT, COUNT, 0));
        for interface in 0..COUNT {
            write(interface, "mtu", "9000");
        }
        assert_eq!(collect(301), (COUNT, COUNT, DETAILS_READ_MAX));
        // A link that changed is read at once.
        write(COUNT - 1, "operstate", "down");
        assert_eq!(collect(302).2, DETAILS_READ_MAX + 2, "and the last of those read at 200");
        assert_eq!(collect(303).2, DETAILS_READ_MAX + 2, "nothing is a minute old");
        assert_eq!(collect(400).2, COUNT);
    }
}
