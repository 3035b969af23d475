//! `/proc/net/{netstat,snmp,snmp6}` of the host's first process: counters of its protocols (RFC 1213, RFC 4293).
//!
//! Refuses: what node_exporter leaves out by default; there are hundreds.

use anyhow::{Result, ensure};

use super::Reading;
use super::family::{node, point};
use crate::telemetry::{Metric, MetricKind};

/// The most fields; those beyond are cut.
const FIELDS_MAX: usize = 256;

/// Whether node_exporter has `{protocol}_{field}` by default (1.8: `--collector.netstat.fields`).
fn is_wanted(protocol: &str, field: &str) -> bool {
    let named = |c: char| c.is_ascii_alphanumeric();
    if !protocol.chars().all(named) || !field.chars().all(named) {
        return false;
    }
    if matches!(field, "InErrors" | "InErrs") {
        return true;
    }
    match protocol {
        "Ip" => field == "Forwarding",
        "Ip6" | "IpExt" => matches!(field, "InOctets" | "OutOctets"),
        "Icmp" | "Icmp6" => matches!(field, "InMsgs" | "OutMsgs"),
        "TcpExt" => {
            let one = matches!(field, "TCPSynRetrans" | "TCPTimeouts" | "TCPOFOQueue" | "TCPRcvQDrop");
            one || field.starts_with("Listen") || field.starts_with("Syncookies")
        }
        "Tcp" => matches!(
            field,
            "ActiveOpens" | "InSegs" | "OutSegs" | "OutRsts" | "PassiveOpens" | "RetransSegs" | "CurrEstab"
        ),
        "Udp" | "Udp6" => {
            matches!(field, "InDatagrams" | "OutDatagrams" | "NoPorts" | "RcvbufErrors" | "SndbufErrors")
        }
        _ => false,
    }
}

/// The fields of all protocols. A host without IPv6 has no `snmp6`.
pub(super) fn metrics(reading: &mut Reading<'_>) -> Result<Vec<Metric>> {
    let mut fields = Vec::new();
    for file in ["net/netstat", "net/snmp"] {
        paired(&reading.root.read_of_init(file)?, &mut fields);
    }
    if let Ok(text) = reading.root.read_of_init("net/snmp6") {
        listed(&text, &mut fields);
    }
    ensure!(!fields.is_empty(), "no fields");
    *reading.cut += fields.len().saturating_sub(FIELDS_MAX) as u64;
    fields.truncate(FIELDS_MAX);
    let metric = |(name, value): (String, f64)| {
        let description = format!("Statistic {}.", name.replace('_', ""));
        node(MetricKind::Unknown, format!("node_netstat_{name}"), "", description).with(vec![point(
            0,
            [],
            value,
        )])
    };
    Ok(fields.into_iter().map(metric).collect())
}

/// Two lines for each protocol: the names and the values. A pair that does not fit is left out.
fn paired(text: &str, fields: &mut Vec<(String, f64)>) {
    let mut lines = text.lines();
    while let (Some(names), Some(values)) = (lines.next(), lines.next()) {
        let (Some((protocol, names)), Some((same, values))) = (names.split_once(':'), values.split_once(':'))
        else {
            continue;
        };
        let (names, values) = (names.split_ascii_whitespace(), values.split_ascii_whitespace());
        if protocol != same || names.clone().count() != values.clone().count() {
            continue;
        }
        for (name, value) in names.zip(values) {
            take(protocol, name, value, fields);
        }
    }
}

/// One line for each field: `Udp6InDatagrams 12`.
fn listed(text: &str, fields: &mut Vec<(String, f64)>) {
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        if let (Some(name), Some(value)) = (words.next(), words.next())
            && let Some(six) = name.find('6')
        {
            let (protocol, field) = name.split_at(six + 1);
            take(protocol, field, value, fields);
        }
    }
}

/// Values are signed: `Tcp: MaxConn -1`.
fn take(protocol: &str, field: &str, value: &str, fields: &mut Vec<(String, f64)>) {
    if is_wanted(protocol, field)
        && let Ok(value) = value.parse::<i128>()
    {
        let name = format!("{protocol}_{field}");
        if fields.iter().all(|(known, _)| *known != name) {
            fields.push((name, value as f64));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(parse: fn(&str, &mut Vec<(String, f64)>), text: &str, expected: &[(&str, f64)]) {
        let mut fields = Vec::new();
        parse(text, &mut fields);
        let fields: Vec<(&str, f64)> = fields.iter().map(|(name, value)| (name.as_str(), *value)).collect();
        assert_eq!(fields, expected, "{text}");
    }

    #[test]
    fn pairs() {
        check(paired, "Tcp: MaxConn CurrEstab\nTcp: -1 7\n", &[("Tcp_CurrEstab", 7.0)]);
        check(paired, "UdpLite: InErrors\nUdpLite: 3\n", &[("UdpLite_InErrors", 3.0)]);
        check(
            paired,
            "TcpExt: ListenDrops TW SyncookiesSent\nTcpExt: 1 2 3",
            &[("TcpExt_ListenDrops", 1.0), ("TcpExt_SyncookiesSent", 3.0)],
        );
        check(paired, "Tcp: CurrEstab InSegs\nTcp: 7\n", &[]);
        check(paired, "Tcp: CurrEstab\nUdp: 7\n", &[]);
        check(paired, "Tcp: CurrEstab\n", &[]);
        check(paired, "Tcp: CurrEstab\nTcp: x\n", &[]);
        check(paired, "T{cp: InErrs\nT{cp: 1\n", &[]);
    }

    #[test]
    fn lists() {
        check(
            listed,
            "Ip6InOctets  \t12\nIp6InReceives 1\nUdp6NoPorts 2\n",
            &[("Ip6_InOctets", 12.0), ("Udp6_NoPorts", 2.0)],
        );
        check(listed, "Ip6InOctets\nInOctets 12\n6 1\n", &[]);
    }

    proptest::proptest! {
        #[test]
        fn any_text(text in "(Tcp|Ip6|: |[0-9 \n]|.){0,200}") {
            paired(&text, &mut Vec::new());
            listed(&text, &mut Vec::new());
        }
    }
}
