//! What to scrape: from the configuration's URLs, and from the annotations of pods.
//!
//! Refuses: in annotations, addresses that no pod has (loopback, link-local); credentials in URLs, and names or paths that would not
//! pass as they are into a request.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use http::Uri;

use crate::identity::Subject;
use crate::telemetry::{Endpoint, Owner, Text};

/// Time between two scrapes if nothing else is said: Prometheus' own default.
pub const INTERVAL_DEFAULT: Duration = Duration::from_mins(1);
/// The shortest time between two scrapes; a shorter one is raised to it.
pub const INTERVAL_MIN: Duration = Duration::from_secs(1);
/// Time for a whole scrape if nothing else is said: Prometheus' own default.
pub const TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);

/// Bytes of a path with its parameters, escaped.
const PATH_BYTES_MAX: usize = 2_048;
/// Parameters of a target.
const PARAMETERS_MAX: usize = 16;
const ANNOTATION: &str = "prometheus.io/";
const PARAMETER: &str = "prometheus.io/param_";

/// Where a page is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TargetSpec {
    /// Whether over TLS.
    pub scheme: Scheme,
    /// An IP address without brackets, or a host name.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// The path with its parameters, escaped; starts with `/`.
    pub path: String,
}

/// How a page is fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// In plain text.
    Http,
    /// Over TLS.
    Https,
}

/// How a target knows us, and we it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// No credentials, and the certificates that the configuration trusts.
    Open,
    /// The service account's token, and the cluster's certificates.
    Cluster,
}

/// A page that is scraped again and again, and whose it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    /// Whose the metrics are.
    pub owner: Owner,
    /// Where the page is.
    pub spec: TargetSpec,
    /// Time between two scrapes, at least `INTERVAL_MIN`.
    pub interval: Duration,
    /// Time for a whole scrape; at most the interval counts.
    pub timeout: Duration,
    /// More resource attributes.
    pub attributes: Vec<(Text, Text)>,
    /// How it is asked.
    pub access: Access,
    /// Whether what it says is the elected agent's to export, and nobody else's.
    pub is_elected: bool,
}

impl Scheme {
    /// As it stands in a URL.
    pub fn name(self) -> &'static str {
        match self {
            Scheme::Http => "http",
            Scheme::Https => "https",
        }
    }

    fn of_name(name: &str) -> Option<Scheme> {
        match name {
            "http" => Some(Scheme::Http),
            "https" => Some(Scheme::Https),
            _ => None,
        }
    }

    fn port(self) -> u16 {
        match self {
            Scheme::Http => 80,
            Scheme::Https => 443,
        }
    }
}

impl TargetSpec {
    /// The target of a URL; the path is `/metrics` if it has none. An address of either kind may stand in brackets.
    ///
    /// # Errors
    /// A URL that is none, is neither http nor https, or holds credentials.
    pub fn of_url(url: &str) -> anyhow::Result<TargetSpec> {
        let uri: Uri = url.trim().parse().context("it is no URL")?;
        let scheme = uri.scheme_str().and_then(Scheme::of_name);
        let Some(scheme) = scheme else { bail!("it has to start with http:// or https://") };
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        ensure!(!authority.contains('@'), "credentials are not supported");
        let bracketed = uri.host().unwrap_or_default();
        let address = bracketed.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let host = address.unwrap_or(bracketed).to_owned();
        ensure!(!host.is_empty(), "it names no host");
        // IPv4 may stand in brackets too: who fills in a node's address does not know which it is.
        ensure!(
            address.is_none_or(|address| address.parse::<IpAddr>().is_ok()),
            "only an address stands in brackets"
        );
        // `Uri::port` passes over a port that is no number.
        let port = match authority.strip_prefix(bracketed).unwrap_or_default() {
            "" => scheme.port(),
            port => port.strip_prefix(':').and_then(port_of).context("its port is none")?,
        };
        let path = match uri.path_and_query().map(|path| path.as_str()) {
            None | Some("/") => "/metrics".to_owned(),
            Some(path) => path.to_owned(),
        };
        ensure!(path.len() <= PATH_BYTES_MAX, "its path is too long");
        Ok(TargetSpec { scheme, host, port, path })
    }

    /// `host:port` as in a URL: the default of `service.instance.id`.
    pub fn authority(&self) -> String {
        match self.host.contains(':') {
            true => format!("[{}]:{}", self.host, self.port),
            false => format!("{}:{}", self.host, self.port),
        }
    }

    /// The whole URL.
    pub fn url(&self) -> String {
        format!("{}://{}{}", self.scheme.name(), self.authority(), self.path)
    }
}

impl Target {
    /// A target with the default times.
    pub fn new(owner: Owner, spec: TargetSpec) -> Target {
        Target {
            owner,
            spec,
            interval: INTERVAL_DEFAULT,
            timeout: TIMEOUT_DEFAULT,
            attributes: Vec::new(),
            access: Access::Open,
            is_elected: false,
        }
    }

    /// A target of the configuration's table `scrape.targets`: its service is its job, or else its key in the table.
    ///
    /// # Errors
    /// A URL that [`TargetSpec::of_url`] refuses; the message names the key.
    pub fn of_config(key: &str, url: &str, job: Option<&str>) -> anyhow::Result<Target> {
        let spec = TargetSpec::of_url(url).with_context(|| format!("bad URL of scrape.targets.{key}"))?;
        let subject = Subject::named(job.unwrap_or(key));
        Ok(Target::new(Owner::Subject(Arc::new(subject)), spec))
    }

    /// What becomes the resource: the owner with the attributes that the compatibility specification asks for
    /// ("Resource Attributes") and `more`.
    pub fn endpoint(&self, more: Vec<(Text, Text)>) -> Owner {
        let spec = &self.spec;
        let mut attributes: Vec<(Text, Text)> = vec![
            ("service.instance.id".into(), spec.authority().into()),
            ("server.address".into(), spec.host.clone().into()),
            ("server.port".into(), spec.port.to_string().into()),
            ("url.scheme".into(), spec.scheme.name().into()),
        ];
        attributes.extend(self.attributes.iter().cloned());
        attributes.extend(more);
        Owner::Endpoint(Arc::new(Endpoint { owner: self.owner.clone(), attributes }))
    }
}

/// The target that a pod's annotations ask for: `prometheus.io/scrape` (`true`), `port`, `path`, `scheme` and `param_*`.
/// Without a port, the first of `container_ports` counts.
///
/// `None` if they do not ask, if there is no port, or if any of them is odd: a pod's author may write anything there.
pub fn of_annotations(
    annotations: &BTreeMap<String, String>,
    pod_ip: IpAddr,
    container_ports: &[u16],
) -> Option<TargetSpec> {
    let value = |name: &str| annotations.get(&format!("{ANNOTATION}{name}")).map(String::as_str);
    if value("scrape")? != "true" || !is_pods(pod_ip) {
        return None;
    }
    let scheme = Scheme::of_name(value("scheme").unwrap_or("http"))?;
    let port = match value("port") {
        Some(port) => port_of(port)?,
        None => container_ports.iter().copied().find(|port| *port > 0)?,
    };
    let mut path = String::new();
    let given = value("path").unwrap_or("/metrics");
    if !given.starts_with('/') {
        path.push('/');
    }
    escape(given, b"/", &mut path)?;
    let parameters = annotations
        .range(PARAMETER.to_owned()..)
        .map_while(|(name, value)| Some((name.strip_prefix(PARAMETER)?, value)));
    for (position, (name, value)) in parameters.enumerate() {
        if position >= PARAMETERS_MAX || name.is_empty() {
            return None;
        }
        path.push(if position == 0 { '?' } else { '&' });
        escape(name, b"", &mut path)?;
        path.push('=');
        escape(value, b"", &mut path)?;
    }
    Some(TargetSpec { scheme, host: pod_ip.to_string(), port, path })
}

/// Digits alone: `parse` would also take a sign.
fn port_of(text: &str) -> Option<u16> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|port| digits && *port > 0)
}

/// Whether a pod can have it. Loopback would be ourselves, link-local the cloud's metadata server.
fn is_pods(address: IpAddr) -> bool {
    let address = address.to_canonical();
    let link_local = match address {
        IpAddr::V4(address) => address.is_link_local() || address.is_broadcast(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    !(link_local || address.is_loopback() || address.is_unspecified() || address.is_multicast())
}

/// Appends `text` with all but RFC 3986's unreserved characters and `kept` escaped. `None` if it holds a control
/// character or grows too long.
fn escape(text: &str, kept: &[u8], out: &mut String) -> Option<()> {
    if text.chars().any(char::is_control) {
        return None;
    }
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) || kept.contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
        if out.len() > PATH_BYTES_MAX {
            return None;
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn annotations(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| (format!("{ANNOTATION}{name}"), (*value).to_owned())).collect()
    }

    #[test]
    fn pods_ask_by_annotations() {
        #[track_caller]
        fn check(pairs: &[(&str, &str)], address: &str, expected: Option<&str>) {
            let found = of_annotations(&annotations(pairs), address.parse().unwrap(), &[8080, 9090]);
            assert_eq!(found.map(|spec| spec.url()).as_deref(), expected, "{pairs:?}");
        }
        let ask = ("scrape", "true");
        check(&[ask], "10.0.0.1", Some("http://10.0.0.1:8080/metrics"));
        check(&[ask, ("port", "9100"), ("path", "/m")], "fd00::1", Some("http://[fd00::1]:9100/m"));
        check(
            &[ask, ("path", "m/x y?z"), ("scheme", "https")],
            "10.0.0.1",
            Some("https://10.0.0.1:8080/m/x%20y%3Fz"),
        );
        check(
            &[ask, ("param_b", "x&y"), ("param_a", "é")],
            "10.0.0.1",
            Some("http://10.0.0.1:8080/metrics?a=%C3%A9&b=x%26y"),
        );
        check(&[], "10.0.0.1", None);
        check(&[("scrape", "false")], "10.0.0.1", None);
        check(&[("scrape", "True")], "10.0.0.1", None);
        for port in ["0", "65536", "-1", "+80", "80 ", "", "http", "8e3", "80@evil"] {
            check(&[ask, ("port", port)], "10.0.0.1", None);
        }
        for path in ["/a\nb", "/a\r\nHost: b", "\0", "/\u{85}", &"é".repeat(1000)] {
            check(&[ask, ("path", path)], "10.0.0.1", None);
        }
        for scheme in ["", "ftp", "file", "HTTP", "http://evil"] {
            check(&[ask, ("scheme", scheme)], "10.0.0.1", None);
        }
        for address in
            ["127.0.0.1", "169.254.169.254", "0.0.0.0", "::1", "fe80::1", "224.0.0.1", "::ffff:127.0.0.1"]
        {
            check(&[ask], address, None);
        }
        check(&[ask, ("param_", "x")], "10.0.0.1", None);
        assert_eq!(of_annotations(&annotations(&[ask]), [10, 0, 0, 1].into(), &[]), None);
    }

    #[test]
    fn urls_of_the_configuration() {
        #[track_caller]
        fn check(url: &str, expected: Result<&str, &str>) {
            match (TargetSpec::of_url(url), expected) {
                (Ok(spec), Ok(expected)) => assert_eq!(spec.url(), expected),
                (Err(error), Err(part)) => assert!(format!("{error:#}").contains(part), "{error:#}"),
                (found, _) => panic!("{url}: {found:?}"),
            }
        }
        check("http://a:9100", Ok("http://a:9100/metrics"));
        check("https://a/x?y=z", Ok("https://a:443/x?y=z"));
        check("http://[::1]:80/m", Ok("http://[::1]:80/m"));
        // What `https://[$(HOST_IP)]:10250/metrics` becomes on a node of either kind, and without its brackets.
        check("https://[fd00::7]:10250/metrics", Ok("https://[fd00::7]:10250/metrics"));
        check("https://[10.0.0.7]:10250/metrics", Ok("https://10.0.0.7:10250/metrics"));
        check("https://fd00::7:10250/metrics", Err(""));
        check("http://[a]:80/", Err("brackets"));
        check("http://[]:80/", Err(""));
        check("http://u:p@a/", Err("credentials"));
        check("a:9100/metrics", Err(""));
        check("ftp://a/", Err("http://"));
        check("http://a:0/", Err("port"));
        check("http://a:/", Err("port"));
        check("http://a:99999/", Err(""));
        check("", Err(""));
    }

    #[test]
    fn the_resource_names_the_endpoint() {
        let target = Target::of_config("shop", "https://a:1", Some("till")).unwrap();
        let Owner::Endpoint(endpoint) = target.endpoint(vec![("region".into(), "x".into())]) else {
            panic!()
        };
        let Owner::Subject(subject) = &endpoint.owner else { panic!() };
        assert_eq!(subject.own_name, "till");
        let text: Vec<String> =
            endpoint.attributes.iter().map(|(key, value)| format!("{key}={value}")).collect();
        assert_eq!(
            text,
            ["service.instance.id=a:1", "server.address=a", "server.port=1", "url.scheme=https", "region=x"]
        );
        assert!(
            format!("{:#}", Target::of_config("shop", "x y", None).unwrap_err())
                .contains("scrape.targets.shop")
        );
    }

    proptest! {
        #[test]
        fn what_is_found_is_a_uri(
            port in "\\PC{0,6}", path in any::<String>(), scheme in "http|https|\\PC*",
            name in any::<String>(), value in any::<String>(),
        ) {
            let parameter = format!("param_{name}");
            let pairs = [("scrape", "true"), ("port", port.as_str()), ("path", &path), ("scheme", &scheme), (&parameter, &value)];
            if let Some(spec) = of_annotations(&annotations(&pairs), [10, 0, 0, 1].into(), &[]) {
                let uri: Uri = spec.url().parse().unwrap();
                prop_assert_eq!(uri.authority().unwrap().as_str(), spec.authority());
                prop_assert_eq!(uri.path_and_query().unwrap().as_str(), spec.path);
            }
        }
    }
}
