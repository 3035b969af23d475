//! Which format and coding a client wants: `Accept` and `Accept-Encoding`, RFC 9110 sections 12.4.2, 12.5.1, 12.5.3.
//!
//! Refuses: languages and character sets; all texts are UTF-8.

use super::encode::Format;

/// Entries of a header that are read; those behind are left out.
const ENTRIES_MAX: usize = 32;

/// The format that `accept` (all such headers, joined by commas) likes best; of equals the one that tells the most.
/// Text 0.0.4 if it knows none of ours or is absent; nothing if it forbids all formats.
pub fn format(accept: Option<&str>) -> Option<Format> {
    let Some(accept) = accept else { return Some(Format::Text) };
    let mut best: Option<(u16, Format)> = None;
    let mut is_text_forbidden = false;
    for entry in accept.split(',').take(ENTRIES_MAX) {
        let Some((format, quality)) = media_range(entry) else { continue };
        if quality == 0 {
            is_text_forbidden |= format == Format::Text;
        } else if best.is_none_or(|(known, other)| (quality, rank(format)) > (known, rank(other))) {
            best = Some((quality, format));
        }
    }
    match best {
        Some((_, format)) => Some(format),
        None => (!is_text_forbidden).then_some(Format::Text),
    }
}

/// Whether to compress; nothing if the client takes neither gzip nor plain.
pub fn is_gzip(accept_encoding: Option<&str>) -> Option<bool> {
    let (mut gzip, mut identity, mut others) = (None, None, None);
    for entry in accept_encoding.unwrap_or_default().split(',').take(ENTRIES_MAX) {
        let mut parts = entry.split(';').map(str::trim);
        let coding = parts.next().unwrap_or_default();
        let quality = quality(parts);
        if coding.eq_ignore_ascii_case("gzip") || coding.eq_ignore_ascii_case("x-gzip") {
            gzip = Some(quality);
        } else if coding.eq_ignore_ascii_case("identity") {
            identity = Some(quality);
        } else if coding == "*" {
            others = Some(quality);
        }
    }
    let gzip = gzip.or(others).unwrap_or(0);
    if gzip > 0 && gzip >= identity.unwrap_or(1) {
        return Some(true);
    }
    (identity.or(others) != Some(0)).then_some(false)
}

/// Of formats liked alike: native histograms before exemplars before text.
fn rank(format: Format) -> u8 {
    match format {
        Format::Protobuf => 2,
        Format::OpenMetrics => 1,
        Format::Text => 0,
    }
}

/// The format that an entry asks for with its quality in thousandths.
fn media_range(entry: &str) -> Option<(Format, u16)> {
    let mut parts = entry.split(';').map(str::trim);
    let media_type = parts.next()?.to_ascii_lowercase();
    let parameter = |name: &str| {
        let mut parameters = entry.split(';').skip(1).filter_map(|part| part.split_once('='));
        let found = parameters.find(|(key, _)| key.trim().eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.trim().trim_matches('"'))
    };
    let is = |name: &str, value: &str| parameter(name).is_none_or(|found| found.eq_ignore_ascii_case(value));
    let format = match media_type.as_str() {
        "application/vnd.google.protobuf"
            if parameter("proto") == Some("io.prometheus.client.MetricFamily")
                && parameter("encoding") == Some("delimited") =>
        {
            Format::Protobuf
        }
        "application/openmetrics-text" if is("version", "1.0.0") && is("charset", "utf-8") => {
            Format::OpenMetrics
        }
        "text/plain" if is("version", "0.0.4") && is("charset", "utf-8") => Format::Text,
        "*/*" | "text/*" => Format::Text,
        _ => return None,
    };
    Some((format, quality(parts)))
}

/// The `q` parameter in thousandths; 1000 without one, 0 for one that is no number.
fn quality<'a>(mut parameters: impl Iterator<Item = &'a str>) -> u16 {
    let value = parameters.find_map(|part| {
        let (key, value) = part.split_once('=')?;
        key.trim().eq_ignore_ascii_case("q").then_some(value.trim())
    });
    let quality = value.map_or(1.0, |value| value.parse::<f32>().unwrap_or(0.0));
    (quality.clamp(0.0, 1.0) * 1000.0).round() as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PROMETHEUS_2: &str = "application/openmetrics-text;version=1.0.0,\
        application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
    const PROMETHEUS_2_NATIVE: &str = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;\
        encoding=delimited,application/openmetrics-text;version=1.0.0;q=0.8,\
        application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
    const PROMETHEUS_3: &str = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,\
        application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,\
        text/plain;version=0.0.4;q=0.2,*/*;q=0.1";
    const PROMETHEUS_3_NATIVE: &str = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;\
        encoding=delimited;q=0.6,application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,\
        application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,\
        text/plain;version=0.0.4;q=0.2,*/*;q=0.1";

    fn check(accept: &str, expected: Option<Format>) {
        assert_eq!(format(Some(accept)), expected, "{accept}");
    }

    #[test]
    fn formats() {
        assert_eq!(format(None), Some(Format::Text));
        check(PROMETHEUS_2, Some(Format::OpenMetrics));
        check(PROMETHEUS_2_NATIVE, Some(Format::Protobuf));
        check(PROMETHEUS_3, Some(Format::OpenMetrics));
        check(PROMETHEUS_3_NATIVE, Some(Format::Protobuf));
        check("text/html,application/xhtml+xml,*/*;q=0.8", Some(Format::Text));
        check("", Some(Format::Text));
        check("image/png", Some(Format::Text));
        check("application/openmetrics-text; version=0.0.1", Some(Format::Text));
        check("application/openmetrics-text", Some(Format::OpenMetrics));
        check(
            "APPLICATION/OpenMetrics-Text; Version=\"1.0.0\"; Q=0.9, text/plain; q=0.8",
            Some(Format::OpenMetrics),
        );
        check("text/plain;version=0.0.4;q=0.9,application/openmetrics-text;q=0.1", Some(Format::Text));
        check("application/vnd.google.protobuf;encoding=text,text/plain;q=0.1", Some(Format::Text));
        check("text/plain, application/openmetrics-text", Some(Format::OpenMetrics));
        check("*/*;q=0", None);
        check("text/plain;q=0", None);
        check("text/plain;q=0, application/openmetrics-text;q=0.1", Some(Format::OpenMetrics));
    }

    #[test]
    fn codings() {
        for (accept, expected) in [
            ("gzip", Some(true)),
            ("gzip, deflate, br", Some(true)),
            ("", Some(false)),
            ("br", Some(false)),
            ("gzip;q=0", Some(false)),
            ("gzip;q=0.5, identity;q=0.9", Some(false)),
            ("*", Some(true)),
            ("identity;q=0, gzip;q=0", None),
            ("*;q=0", None),
            ("*;q=0, identity", Some(false)),
        ] {
            assert_eq!(is_gzip(Some(accept)), expected, "{accept}");
        }
        assert_eq!(is_gzip(None), Some(false));
    }

    proptest! {
        #[test]
        fn any_header(header in ".*") {
            format(Some(&header));
            is_gzip(Some(&header));
        }
    }
}
