//! Databases and name servers: what their own clients did, what the servers counted themselves, and the spans of both ends.
//!
//! Refuses: to let a value out: literals, keys and values are looked for in every byte of telemetry.

use std::collections::BTreeMap;
use std::io::Write;
use std::process::{Command, Stdio};

use tests::dnsmasq::{ADDRESSES, Dnsmasq, NAME, dig};
use tests::postgres::{Bench, Postgres};
use tests::receiver::{Protocol, free_address};
use tests::services::Service;
use tests::spans::{self, Span};
use tests::tools;
use tests::traced::{Told, Traced};
use tests::workload::utf8;

/// What no span, metric, profile or log may hold.
const SECRET: &str = "k4ns0ku-s3cret";

/// Runs a command with these lines as its input; returns what it says, whether it is content or not.
fn feed(mut command: Command, input: &str) -> String {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
    let mut pipe = child.stdin.take().expect("standard input is a pipe");
    pipe.write_all(input.as_bytes()).expect("it reads");
    drop(pipe);
    String::from_utf8_lossy(&child.wait_with_output().expect("our child").stdout).into_owned()
}

/// Name, status code and rows of spans, in their order.
fn outlines(mut spans: Vec<&Span>) -> Vec<(String, String, String)> {
    spans.sort_by_key(|span| span.start_ns);
    let outline = |span: &&Span| {
        let attribute = |key| span.attribute(key).to_owned();
        (span.name.clone(), attribute("db.response.status_code"), attribute("db.response.returned_rows"))
    };
    spans.iter().map(outline).collect()
}

/// How often each name is there.
fn counts<'a>(names: impl Iterator<Item = &'a str>) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    names.for_each(|name| *counts.entry(name.to_owned()).or_default() += 1);
    counts
}

/// Expects that each span of a server is the child of the client's span of the same exchange.
#[track_caller]
fn check_joined(told: &Told, port: u16) {
    let by_id = spans::by_id(&told.spans);
    for server in told.at(port, false) {
        let client =
            by_id.get(&*server.parent).unwrap_or_else(|| panic!("no parent of {}", server.summary()));
        let both = || format!("{} below {}", server.summary(), client.summary());
        assert_eq!(server.attribute("kansoku.link.proof"), "connection", "{}", both());
        assert_eq!((&client.trace_id, &client.name), (&server.trace_id, &server.name), "{}", both());
        for key in ["db.query.text", "db.response.status_code", "dns.question.name"] {
            assert_eq!(client.attribute(key), server.attribute(key), "{}", both());
        }
    }
}

/// A line for psql, and of its span: the name, the SQLSTATE, the rows.
type Statement = (&'static str, &'static str, &'static str, &'static str);

const STATEMENTS: [Statement; 17] = [
    ("create table orders (id int primary key, note text);", "CREATE TABLE orders", "", ""),
    ("insert into orders values (1, 'SECRET'), (2, $$SECRET$$), (3, E'SECRET\\'');", "INSERT orders", "", ""),
    ("select note from orders where note = 'SECRET' or id in (1, 2);", "SELECT orders", "", "2"),
    ("select count(*) from orders o join orders p on o.id = p.id;", "SELECT orders orders", "", "1"),
    ("select 1 as \"one\"\\; select 2\\; select 3;", "SELECT SELECT SELECT", "", "3"),
    ("select 1/0;", "SELECT", "22012", ""),
    ("select 'SECRET'::int;", "SELECT", "22P02", ""),
    ("selec 'SECRET';", "postgresql", "42601", ""),
    ("select * from nowhere;", "SELECT nowhere", "42P01", ""),
    ("insert into orders values (1, 'SECRET');", "INSERT orders", "23505", ""),
    ("copy orders from stdin;\n7\tSECRET\n8\tother\n\\.", "COPY orders", "", ""),
    ("copy orders to stdout;", "COPY orders", "", ""),
    ("begin;", "BEGIN", "", ""),
    ("update orders set note = 'SECRET' where id = 7;", "UPDATE orders", "", ""),
    ("delete from orders where id = 8;", "DELETE orders", "", ""),
    ("rollback;", "ROLLBACK", "", ""),
    ("-- SECRET\nselect /* SECRET */ 'a' || 'SECRET';", "SELECT", "", "1"),
];

#[test]
fn psql_by_statement() {
    let postgres = Postgres::start(&[]);
    let port = postgres.address().port();
    let traced = Traced::start(Protocol::Grpc, &[]);
    let script: Vec<&str> = STATEMENTS.iter().map(|(line, ..)| *line).collect();
    let mut psql = postgres.client_over_tcp("psql");
    psql.args(["-X", "-q"]);
    let said = feed(psql, &script.join("\n").replace("SECRET", SECRET));
    assert!(said.contains(SECRET), "the database has it: {said}");
    traced.wait_at(&[port], 2 * STATEMENTS.len());
    let told = traced.stop();
    let owned = |text: &str| text.to_owned();
    let expected: Vec<_> =
        STATEMENTS.iter().map(|(_, name, state, rows)| (owned(name), owned(state), owned(rows))).collect();
    for is_client in [true, false] {
        assert_eq!(outlines(told.at(port, is_client)), expected, "is_client: {is_client}");
    }
    check_joined(&told, port);
    told.expect_none_of(SECRET);
    for span in told.at(port, true) {
        assert_eq!((span.attribute("db.system.name"), &*span.service), ("postgresql", "psql"));
        assert_eq!(span.attribute("db.namespace"), "postgres");
        let state = span.attribute("db.response.status_code");
        assert_eq!((span.is_error, span.attribute("error.type")), (!state.is_empty(), state));
    }
    for span in told.at(port, false) {
        // The server is to blame for its own failures alone, and there were none.
        assert!(!span.is_error, "{}", span.summary());
    }
}

const TRANSACTION: &str = "\\set aid random(1, 1000)\nbegin;\n\
    update pgbench_accounts set abalance = abalance + 4711 where aid = :aid;\n\
    select abalance from pgbench_accounts where aid = :aid;\nend;\n";

/// pgbench's own count, by both ends, in each way to send statements.
#[test]
fn pgbench_in_each_mode() {
    const CLIENTS: u64 = 4;
    const EACH: u64 = 50;
    let postgres = Postgres::start(&[]);
    postgres.prepare_bench(1);
    let port = postgres.address().port();
    let directory = tempfile::TempDir::new().expect("a temporary directory");
    let script = directory.path().join("transaction.sql");
    tools::write_file(&script, TRANSACTION.as_bytes());
    for mode in ["simple", "extended", "prepared"] {
        let traced = Traced::start(Protocol::Grpc, &[]);
        let mut pgbench = postgres.client_over_tcp("pgbench");
        let (clients, each) = (CLIENTS.to_string(), EACH.to_string());
        pgbench.args(["-n", "-M", mode, "-c", &clients, "-t", &each, "-f", utf8(&script)]);
        let bench = Bench::parse(&String::from_utf8_lossy(&tools::succeed(&mut pgbench).stdout));
        assert_eq!((bench.transactions, bench.failed), (CLIENTS * EACH, 0));
        traced.wait_at(&[port], 2 * 4 * bench.transactions as usize);
        let told = traced.stop();
        let names = ["BEGIN", "UPDATE pgbench_accounts", "SELECT pgbench_accounts", "END"];
        let expected: BTreeMap<String, u64> =
            names.iter().map(|name| ((*name).to_owned(), bench.transactions)).collect();
        for is_client in [true, false] {
            let spans = told.at(port, is_client);
            let names = counts(spans.iter().map(|span| &*span.name));
            assert_eq!(names, expected, "{mode}, is_client: {is_client}");
            assert!(spans.iter().all(|span| span.attribute("error.type").is_empty()), "{mode}");
            assert!(spans.iter().all(|span| span.attribute("kansoku.partial").is_empty()), "{mode}");
        }
        check_joined(&told, port);
        told.expect_none_of("4711");
    }
}

fn redis_client(program: &str, redis: &Service) -> Command {
    let mut command = Command::new(tools::require(program, "redis-tools"));
    command.args(["-p", &redis.port().to_string()]);
    command
}

/// Calls by command as Redis counted them, those too that it refused or that failed.
fn redis_calls(redis: &Service) -> BTreeMap<String, u64> {
    let mut command = redis_client("redis-cli", redis);
    let said = tools::succeed(command.args(["info", "commandstats"]));
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    let of_line = |line: &str| {
        let (name, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
        let count = |text: &str| text.split(',').next()?.parse::<u64>().ok();
        let refused = rest.split_once("rejected_calls=").and_then(|(_, rest)| count(rest)).unwrap_or(0);
        Some((name.replace('|', " ").to_uppercase(), count(rest)? + refused))
    };
    said.lines().filter_map(|line| of_line(line.trim())).collect()
}

/// What Redis was asked between two counts.
fn grown(after: BTreeMap<String, u64>, before: &BTreeMap<String, u64>) -> BTreeMap<String, u64> {
    let growth = after.into_iter().map(|(name, count)| {
        let grown = count - before.get(&name).copied().unwrap_or(0);
        (name, grown)
    });
    growth.filter(|(_, count)| *count > 0).collect()
}

/// Does something to a Redis; waits until this share of what it counted at both ends is told, and returns both.
#[track_caller]
fn check_redis(redis: &Service, share: f64, work: impl FnOnce()) -> (Told, BTreeMap<String, u64>) {
    let before = redis_calls(redis);
    let traced = Traced::start(Protocol::Grpc, &[]);
    work();
    // The question for the first count was before the agent, the one for this is counted with the next.
    let mut calls = grown(redis_calls(redis), &before);
    *calls.entry("INFO".to_owned()).or_default() = 1;
    let total = 2 * calls.values().sum::<u64>();
    traced.wait_at(&[redis.port()], (share * total as f64) as usize);
    let told = traced.stop();
    (told, calls)
}

const COMMANDS: &str = "SET SECRET SECRET\nGET SECRET\nget SECRET\nMSET SECRET 1 SECRET2 2\nINCR SECRET\nLPUSH list SECRET SECRET\n\
    LRANGE list 0 -1\nHSET hash SECRET SECRET\nHGETALL hash\nINCR list\nSETEX SECRET\nEXPIRE SECRET 100\nSELECT 3\nGET SECRET\n\
    MULTI\nSET a SECRET\nINCR a\nEXEC\nMULTI\nSET b 1\nDISCARD\nEVAL \"return redis.call('get','SECRET')\" 0\nCONFIG GET save\nPING\n";

/// redis-cli by its commands: the names, the failures, and no argument.
#[test]
fn redis_by_command() {
    let redis = Service::redis();
    let (told, mut calls) = check_redis(&redis, 1.0, || {
        let said = feed(redis_client("redis-cli", &redis), &COMMANDS.replace("SECRET", SECRET));
        assert!(said.contains(SECRET), "Redis has it: {said}");
    });
    // Redis counts what a script calls, which nobody asked for, and does not what was discarded.
    for (name, difference) in [("GET", -1), ("SET", 1)] {
        let count = calls.get_mut(name).expect("it was called");
        *count = count.checked_add_signed(difference).expect("it was called");
    }
    for is_client in [true, false] {
        let spans = told.at(redis.port(), is_client);
        assert_eq!(counts(spans.iter().map(|span| &*span.name)), calls, "is_client: {is_client}");
        let failed = spans.iter().filter(|span| !span.attribute("db.response.status_code").is_empty());
        let failed = counts(failed.map(|span| &*span.name));
        assert_eq!(failed, BTreeMap::from([("INCR".into(), 1), ("SETEX".into(), 1)]), "{is_client}");
    }
    check_joined(&told, redis.port());
    told.expect_none_of(SECRET);
    let clients = told.at(redis.port(), true);
    let text = |name: &str| {
        clients.iter().find(|span| span.name == name).map(|span| span.attribute("db.query.text"))
    };
    assert_eq!(text("HSET"), Some("HSET ? ? ?"));
    let in_three = clients.iter().filter(|span| span.attribute("db.namespace") == "3");
    assert!(in_three.count() >= 10, "all after SELECT 3");
}

/// Commands that are sent ahead of their replies.
#[test]
fn redis_pipelines() {
    let redis = Service::redis();
    let (told, calls) = check_redis(&redis, 0.5, || {
        let mut benchmark = redis_client("redis-benchmark", &redis);
        benchmark.args(["-P", "16", "-c", "5", "-n", "1600", "-t", "get,set", "-q"]);
        tools::succeed(&mut benchmark);
        let mut bulk = String::new();
        for number in 0..100 {
            bulk.push_str(&format!("*3\r\n$3\r\nSET\r\n$14\r\n{SECRET}\r\n$3\r\n{number:03}\r\n"));
        }
        let mut pipe = redis_client("redis-cli", &redis);
        pipe.arg("--pipe");
        let said = feed(pipe, &bulk);
        assert!(said.contains("errors: 0, replies: 100"), "{said}");
    });
    // Before a connection is recognised, 512 bytes of a message are captured: what is behind is counted by its replies, and the
    // name of the command that is cut there may be none.
    let total = 2 * calls.values().sum::<u64>();
    let mut found = told.books.of("span").lost_as("exchange_broken");
    for is_client in [true, false] {
        let names = told.at(redis.port(), is_client);
        found += names.len() as u64;
        let whole = names.iter().filter(|span| span.attribute("kansoku.partial").is_empty());
        for (name, count) in counts(whole.map(|span| &*span.name)) {
            let called = calls.get(&name).copied().unwrap_or(0);
            assert!(count <= called, "{count} of {called} {name}");
        }
    }
    println!("{found} of {total}, {:?}", told.books.of("span").lost);
    assert_eq!(found, total, "spans and counted losses are all that Redis was asked");
    let by_id = spans::by_id(&told.spans);
    let servers = told.at(redis.port(), false);
    let joined = servers.iter().filter_map(|server| Some((server, by_id.get(&*server.parent)?)));
    let whole = joined.filter(|(server, _)| server.attribute("kansoku.partial").is_empty());
    for (server, client) in whole.clone().filter(|(_, client)| client.attribute("kansoku.partial").is_empty())
    {
        assert_eq!(server.name, client.name);
    }
    assert!(whole.count() * 2 >= servers.len(), "most of what both ends told is one trace");
    told.expect_none_of(SECRET);
}

/// Messages of channels are delivered, not asked for.
#[test]
fn redis_channels() {
    let redis = Service::redis();
    let (told, calls) = check_redis(&redis, 1.0, || {
        let mut subscriber = redis_client("redis-cli", &redis);
        subscriber.stdin(Stdio::piped()).stdout(Stdio::null());
        let mut subscriber = subscriber.spawn().expect("redis-cli starts");
        let mut pipe = subscriber.stdin.take().expect("standard input is a pipe");
        pipe.write_all(format!("SUBSCRIBE {SECRET} other\n").as_bytes()).expect("it reads");
        let receivers = || feed(redis_client("redis-cli", &redis), &format!("PUBLISH {SECRET} {SECRET}\n"));
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while receivers().trim() != "1" {
            assert!(std::time::Instant::now() < deadline, "nobody subscribes");
        }
        (0..9).for_each(|_| assert_eq!(receivers().trim(), "1"));
        subscriber.kill().expect("our child");
        subscriber.wait().expect("our child");
    });
    let delivered = 10;
    for is_client in [true, false] {
        let calling = told.at(redis.port(), is_client);
        let calling = calling.iter().filter(|span| span.attribute("messaging.system").is_empty());
        let names = counts(calling.map(|span| &*span.name).filter(|name| *name != "receive"));
        assert_eq!(names, calls, "is_client: {is_client}");
    }
    let messages: Vec<&Span> =
        told.spans.iter().filter(|span| span.is_at(&[redis.port()]) && span.name == "receive").collect();
    let kinds = counts(
        messages
            .iter()
            .map(|span| if format!("{:?}", span.kind) == "Consumer" { "Consumer" } else { "Producer" }),
    );
    assert_eq!(kinds, BTreeMap::from([("Consumer".into(), delivered), ("Producer".into(), delivered)]));
    told.expect_none_of(SECRET);
}

/// Asks libc's resolver for a name, from a mount namespace where `resolv.conf` leads to this server.
fn resolve_by_libc(server: &Dnsmasq, name: &str) -> String {
    let script = "import socket, sys\ntry: print(sorted({entry[4][0] for entry in socket.getaddrinfo(sys.argv[1], 80)}))\n\
                  except socket.gaierror: print('nobody')";
    let mount = format!("mount --bind {} /etc/resolv.conf && exec \"$@\"", utf8(&server.resolver_file()));
    tools::output_of("unshare", &["--mount", "sh", "-c", &mount, "sh", "python3", "-c", script, name])
}

/// What dig is told to ask: a name, a type, and what is in the answer.
const QUESTIONS: [(&str, &str, &str); 4] = [
    (NAME, "A", ADDRESSES[0]),
    (NAME, "AAAA", ADDRESSES[1]),
    ("nobody.test", "A", "status: NXDOMAIN"),
    (NAME, "MX", "status: NOERROR"),
];

/// What dig and libc ask, over UDP and TCP, by both ends.
#[test]
fn names_by_question() {
    let usual = Dnsmasq::start(([127, 77, 0, 1], 53).into());
    // Where no port says what it is, datagrams alone are recognised.
    let unusual = Dnsmasq::start(free_address());
    let cases: [(_, &[_], _); 2] = [(&unusual, &["+notcp"], false), (&usual, &["+notcp", "+tcp"], true)];
    for (server, transports, has_libc) in cases {
        let port = server.address().port();
        let before = server.questions().len();
        let traced = Traced::start(Protocol::Grpc, &[]);
        for transport in transports {
            for (name, kind, answer) in QUESTIONS {
                let said = dig(server.address(), &[transport, name, kind]);
                assert!(said.contains(answer), "{said}");
            }
        }
        if has_libc {
            assert_eq!(resolve_by_libc(server, NAME).trim(), format!("{ADDRESSES:?}").replace('"', "'"));
            assert_eq!(resolve_by_libc(server, "missing.test").trim(), "nobody");
        }
        let asked = counts(server.questions().iter().skip(before).map(String::as_str));
        let total = asked.values().sum::<u64>();
        traced.wait_at(&[port], 2 * total as usize);
        let mut told = traced.stop();
        told.spans.retain(|span| span.name.starts_with("DNS") && span.is_at(&[port]));
        for is_client in [true, false] {
            let spans = told.at(port, is_client);
            let questions: Vec<String> = spans
                .iter()
                .map(|span| {
                    format!(
                        "{} {}",
                        span.name.trim_start_matches("DNS "),
                        span.attribute("dns.question.name")
                    )
                })
                .collect();
            assert_eq!(counts(questions.iter().map(String::as_str)), asked, "{port}, is_client: {is_client}");
            for span in spans {
                let is_missing = span.attribute("dns.question.name") != NAME;
                let error = if is_missing { "NXDOMAIN" } else { "" };
                // Nobody's mistake but the one's who asked.
                let expected = if is_client { error } else { "" };
                assert_eq!(span.attribute("error.type"), expected, "{}", span.summary());
                let answer = match &*span.name {
                    _ if is_missing => "",
                    "DNS A" => ADDRESSES[0],
                    "DNS AAAA" => ADDRESSES[1],
                    _ => "",
                };
                assert_eq!(span.attribute("dns.answers"), answer, "{}", span.summary());
            }
        }
        let by_transport = counts(told.at(port, true).iter().map(|span| span.attribute("network.transport")));
        let over_tcp = QUESTIONS.len() as u64 * (transports.len() as u64 - 1);
        assert_eq!(by_transport.get("tcp").copied().unwrap_or(0), over_tcp, "{by_transport:?}");
        check_joined_names(&told, port);
    }
}

/// Who asks and who answers are one trace, over TCP by the place in its bytes, over UDP by who asked with which number.
#[track_caller]
fn check_joined_names(told: &Told, port: u16) {
    let by_id = spans::by_id(&told.spans);
    for server in told.at(port, false) {
        let client =
            by_id.get(&*server.parent).unwrap_or_else(|| panic!("no parent of {}", server.summary()));
        let key = "dns.question.name";
        assert_eq!((client.attribute(key), &client.name), (server.attribute(key), &server.name));
    }
}
