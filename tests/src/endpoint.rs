//! The agent's `/metrics`: started with it, scraped, and read as text.
//!
//! Refuses: the page that another scrape was just answered with; [`Endpoint::scrape`] waits until a new one is made.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::agent::Agent;
use crate::cgroup::ContainerCgroup;
use crate::http;
use crate::promql::Sample;
use crate::receiver::free_address;
use crate::workload::utf8;

/// A page that is younger than 0.9 s is given out again.
const FRESH: Duration = Duration::from_millis(950);

/// Between the tick of exports, nothing is collected but for a scrape.
const INTERVAL: &str = "metrics.interval_ms=3600000";

/// The endpoint of an agent.
pub struct Endpoint {
    address: SocketAddr,
    scraped: Cell<Option<Instant>>,
    _directory: TempDir,
}

/// Starts `kansoku run` with an endpoint, without crash records and without a backend, and waits until it is hooked in.
pub fn start(settings: &[&str]) -> (Agent, Endpoint) {
    start_with(&[&[INTERVAL], settings].concat(), &[])
}

/// Likewise, with variables in its environment and the usual interval of exports.
pub fn start_with(settings: &[&str], variables: &[(&str, &str)]) -> (Agent, Endpoint) {
    let address = free_address();
    let listen = format!("prometheus.listen={address}");
    let directory = TempDir::new().expect("a temporary directory");
    let flame_graph = format!("local.flame_graph={}", utf8(&directory.path().join("flames.html")));
    // Every call is counted: what is tested is exact.
    let exact = "budget.syscalls_percent=0";
    let own = ["crash.enabled=false", "profile.frequency_hz=1", exact, &flame_graph, &listen];
    let settings = own.iter().chain(settings).flat_map(|setting| ["--set", setting]);
    let agent = Agent::run(&settings.collect::<Vec<_>>(), variables);
    (agent, Endpoint { address, scraped: Cell::new(None), _directory: directory })
}

impl Endpoint {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Scrapes a page of this moment.
    #[track_caller]
    pub fn scrape(&self) -> Page {
        if let Some(scraped) = self.scraped.get() {
            std::thread::sleep(FRESH.saturating_sub(scraped.elapsed()));
        }
        let answer = http::get(self.address, "/metrics", &[]).unwrap_or_else(|error| panic!("{error}"));
        self.scraped.set(Some(Instant::now()));
        Page::parse(answer.expect_success().text())
    }

    /// Scrapes a page that knows a container: the agent hears of it some hundred milliseconds after its first process.
    #[track_caller]
    pub fn scrape_of(&self, container: &ContainerCgroup) -> Page {
        self.scrape_until(container.id(), |page| {
            !page.series("syscall_io_operations_total", &[container.label()]).is_empty()
        })
    }

    /// Scrapes until a page is good enough, and returns that. Fails if none is.
    #[track_caller]
    pub fn scrape_until(&self, what: &str, is_enough: impl Fn(&Page) -> bool) -> Page {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let page = self.scrape();
            if is_enough(&page) {
                return page;
            }
            assert!(Instant::now() < deadline, "{what}: not on the page, which has\n{}", page.outline());
        }
    }
}

/// A page in Prometheus' text format.
#[derive(Clone, Debug)]
pub struct Page {
    /// As it came.
    pub text: String,
    samples: BTreeMap<String, Vec<Sample>>,
}

impl Page {
    /// What a failed test should show: how many series each metric has.
    fn outline(&self) -> String {
        let lines = self.samples.iter().map(|(name, samples)| format!("{} {name}\n", samples.len()));
        lines.collect()
    }

    /// Reads a page; fails on a line that is none.
    #[track_caller]
    pub fn parse(text: String) -> Self {
        let mut samples: BTreeMap<String, Vec<Sample>> = BTreeMap::new();
        for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let (name, sample) = sample(line).unwrap_or_else(|| panic!("no sample: {line:?}"));
            samples.entry(name).or_default().push(sample);
        }
        Self { text, samples }
    }

    /// The series of a name that have these labels; an empty value means that the label is not there.
    pub fn series(&self, name: &str, labels: &[(&str, &str)]) -> Vec<&Sample> {
        let has = |sample: &&Sample| labels.iter().all(|(name, value)| sample.label(name) == *value);
        self.samples.get(name).into_iter().flatten().filter(has).collect()
    }

    /// Their sum; 0 if there are none.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.series(name, labels).iter().map(|sample| sample.value).sum()
    }

    /// The value of the only series with these labels.
    #[track_caller]
    pub fn value(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let found = self.series(name, labels);
        assert_eq!(found.len(), 1, "{name} {labels:?}: {found:#?}");
        found[0].value
    }

    /// The sums of a name's series by the values of some labels, joined by a space. Zeros are left out.
    pub fn by(&self, name: &str, of: &[(&str, &str)], labels: &[&str]) -> BTreeMap<String, f64> {
        let mut sums = BTreeMap::new();
        for sample in self.series(name, of) {
            let key: Vec<&str> = labels.iter().map(|label| sample.label(label)).collect();
            *sums.entry(key.join(" ").trim_end().to_owned()).or_default() += sample.value;
        }
        sums.retain(|_, sum| *sum != 0.0);
        sums
    }

    /// How much more than on a page before.
    pub fn grown(&self, before: &Self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.sum(name, labels) - before.sum(name, labels)
    }

    /// How many series there are.
    pub fn count(&self) -> usize {
        self.samples.values().map(Vec::len).sum()
    }

    /// All names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.samples.keys().map(String::as_str)
    }
}

/// `name{label="value",...} value [time]`
fn sample(line: &str) -> Option<(String, Sample)> {
    let name_end = line.find(['{', ' '])?;
    let (name, mut rest) = line.split_at(name_end);
    let mut labels = BTreeMap::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        while !rest.starts_with('}') {
            let (label, after) = rest.split_once("=\"")?;
            let (value, after) = quoted(after)?;
            labels.insert(label.to_owned(), value);
            rest = after.strip_prefix(',').unwrap_or(after);
        }
        rest = &rest[1..];
    }
    let value = rest.split_ascii_whitespace().next()?.parse().ok()?;
    Some((name.to_owned(), Sample { labels, value }))
}

/// The text up to the closing quote, and what is behind it.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => match characters.next()?.1 {
                'n' => value.push('\n'),
                other => value.push(other),
            },
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::Page;

    #[test]
    fn a_page() {
        let text = "# TYPE a counter\na{x=\"1\",y=\"a\\\"}\\\\ b\"} 2\na{x=\"2\"} 3 1700000000\nb +Inf\n";
        let page = Page::parse(text.to_owned());
        assert_eq!(page.value("a", &[("y", "a\"}\\ b")]), 2.0);
        assert_eq!(page.sum("a", &[]), 5.0);
        assert_eq!(page.sum("a", &[("y", "")]), 3.0);
        assert_eq!(page.value("b", &[]), f64::INFINITY);
        assert_eq!(
            page.by("a", &[], &["x"]).into_iter().collect::<Vec<_>>(),
            [("1".into(), 2.0), ("2".into(), 3.0)]
        );
    }
}
