//! Takes what looks like a credential out of arguments and text: passwords, tokens, keys.
//!
//! Refuses: certainty. It knows names and shapes; a secret without either passes, and some harmless words go.

mod name;
mod pem;
mod token;
mod value;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;

use anyhow::{Context, Result, ensure};
use regex::{Captures, Regex, RegexBuilder};

/// What stands in place of a secret.
pub const REDACTED: &str = "[redacted]";

/// Expressions that a user may add.
const EXTRA_MAX: usize = 64;

/// Bytes that one compiled expression may take.
const COMPILED_BYTES_MAX: usize = 1 << 20;

/// Bytes of the cache that one expression may use while it searches.
const CACHE_BYTES_MAX: usize = 1 << 20;

/// A replacement can uncover another secret. So often the text is read again, at most.
const PASSES_MAX: usize = 8;

/// Where a secret may begin. Each alternative is short, so that a search never looks far ahead; how far the secret
/// reaches is found by a scan that never goes back. That keeps the whole linear.
const MARKS: &str = r#"(?x)
    (?P<redacted> \[redacted\] )
  | (?P<pem> PRIVATE\ KEY (?:\ BLOCK)? ----- )
  | (?P<url> [A-Za-z0-9] :// )
  | (?P<bearer> (?-u:\b) (?i-u:bearer) [\ \t]{1,8} )
  | (?-u:\b) (?P<jwt> eyJ ) [A-Za-z0-9_-]{8}
  | (?-u:\b) (?P<aws> AKIA | ASIA ) [A-Z0-9]{16} (?-u:\b)
  | (?-u:\b) (?P<token>
        gh[oprsu]_ | github_pat_ | glpat- | xox[abeprs]- | [rs]k_(?:live|test)_ | npm_
    ) [A-Za-z0-9_-]{16}
  | (?-u:\b) (?P<google> AIza ) [A-Za-z0-9_-]{30}
  | (?P<name> (?i-u: pass | pwd | token | secret | key | credential | auth | sig ) )
"#;

/// Ready to redact.
#[derive(Clone, Debug)]
pub struct Redactor {
    marks: Regex,
    extra: Vec<Regex>,
}

/// A mark that was looked at.
enum Seen {
    /// No secret, up to here.
    Nothing(usize),
    /// A secret, or more if the second is not empty.
    Secrets([Range<usize>; 2]),
}

impl Redactor {
    /// With the user's own expressions by name; all they match is redacted.
    ///
    /// # Errors
    ///
    /// If one of them is not a regular expression, is too large, or if there are too many.
    pub fn new(extra: &BTreeMap<String, String>) -> Result<Self> {
        ensure!(
            extra.len() <= EXTRA_MAX,
            "{} expressions to redact by, and at most {EXTRA_MAX} are taken: join some with |",
            extra.len()
        );
        let compile = |expression: &str| {
            let mut builder = RegexBuilder::new(expression);
            builder.size_limit(COMPILED_BYTES_MAX).dfa_size_limit(CACHE_BYTES_MAX).build()
        };
        let marks =
            compile(MARKS).context("the built-in expression to redact by is broken: please report this")?;
        let extra = extra.iter().map(|(name, expression)| {
            compile(expression)
                .with_context(|| format!("the expression {name:?} to redact by cannot be used: {expression}"))
        });
        Ok(Self { marks, extra: extra.collect::<Result<_>>()? })
    }

    /// Command arguments. A secret option's value goes as a whole, whatever it contains.
    pub fn args(&self, args: &[String]) -> Vec<String> {
        let mut is_value = false;
        let mut redacted = Vec::with_capacity(args.len());
        for arg in args {
            // `--auth --verbose`: then it was no option with a value.
            if std::mem::take(&mut is_value) && !arg.is_empty() && (!arg.starts_with('-') || arg == "-") {
                redacted.push(REDACTED.to_owned());
                continue;
            }
            redacted.push(match value::of_arg(arg) {
                value::Arg::Pair { name } => self.text(&format!("{name}={REDACTED}")),
                value::Arg::Option => {
                    is_value = true;
                    arg.clone()
                }
                value::Arg::Other => self.text(arg),
            });
        }
        redacted
    }

    /// Any text. To redact it once more changes nothing.
    pub fn text(&self, text: &str) -> String {
        let mut text = Cow::Borrowed(text);
        for _ in 0..PASSES_MAX {
            let Some(next) = self.pass(&text) else { break };
            text = Cow::Owned(next);
        }
        text.into_owned()
    }

    /// `None` if nothing changed.
    fn pass(&self, text: &str) -> Option<String> {
        let mut redacted = self.built_in(text);
        for regex in &self.extra {
            // What was redacted before is not touched, so that the marker itself never matches.
            let parts = redacted.split(REDACTED).map(|part| replace(regex, part));
            redacted = parts.collect::<Vec<_>>().join(REDACTED);
        }
        (redacted != text).then_some(redacted)
    }

    fn built_in(&self, text: &str) -> String {
        let mut redacted = String::with_capacity(text.len());
        let (mut at, mut copied) = (0, 0);
        while let Some(mark) = self.marks.captures_at(text, at) {
            match look(text, copied, &mark) {
                Seen::Nothing(end) => at = end,
                Seen::Secrets(secrets) => {
                    for secret in secrets.into_iter().filter(|secret| !secret.is_empty()) {
                        redacted.push_str(&text[copied..secret.start]);
                        redacted.push_str(REDACTED);
                        (at, copied) = (secret.end, secret.end);
                    }
                }
            }
        }
        redacted.push_str(&text[copied..]);
        redacted
    }
}

/// What is at this mark. Before `done`, all is redacted.
fn look(text: &str, done: usize, mark: &Captures<'_>) -> Seen {
    let range = |name: &str| mark.name(name).map(|group| group.range());
    let end = mark.get(0).map_or(text.len(), |whole| whole.end());
    let one = |secret: Option<Range<usize>>| match secret {
        Some(secret) => Seen::Secrets([secret, 0..0]),
        None => Seen::Nothing(end),
    };
    if let Some(word) = range("name") {
        let (name, is_option) = name::around(text, word, done);
        let end = name.end.max(end);
        return match value::of_name(text, name, is_option) {
            Some(secret) => Seen::Secrets([secret, 0..0]),
            None => Seen::Nothing(end),
        };
    }
    if range("url").is_some() {
        return one(value::of_url(text, end));
    }
    if range("bearer").is_some() {
        return one(token::bearer(text, end));
    }
    if let Some(header) = range("pem") {
        return one(pem::body(text, done, header));
    }
    if let Some(prefix) = range("jwt") {
        return one(token::json_web_token(text, prefix));
    }
    if let Some(prefix) = range("aws") {
        return Seen::Secrets(token::aws(text, prefix.end..end));
    }
    one(range("token").or_else(|| range("google")).map(|prefix| token::rest(text, prefix.end)))
}

fn replace<'text>(regex: &Regex, text: &'text str) -> Cow<'text, str> {
    // An expression such as `x*` also matches between any two letters.
    regex.replace_all(text, |found: &Captures<'_>| if found[0].is_empty() { "" } else { REDACTED })
}

#[cfg(test)]
mod tests {
    use super::*;

    const AWS_SECRET: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
    const LINE: &str = "MIIEpAIBAAKCAQEA1c7+9z5Pad7OejecsQ0bu3aumbkeyAozIUKoEfsec6cA1c7x";

    fn redactor(extra: &[(&str, &str)]) -> Result<Redactor> {
        Redactor::new(&extra.iter().map(|(name, regex)| (name.to_string(), regex.to_string())).collect())
    }

    /// `«secret»` marks what must go; the rest must stay.
    fn check(marked: &str) {
        let redactor = redactor(&[]).unwrap();
        let input = marked.replace(['«', '»'], "");
        let mut expected = String::new();
        for (number, part) in marked.split(['«', '»']).enumerate() {
            expected.push_str(if number % 2 == 0 { part } else { REDACTED });
        }
        let redacted = redactor.text(&input);
        assert_eq!(redacted, expected, "{input}");
        assert_eq!(redactor.text(&redacted), redacted);
    }

    #[test]
    fn options() {
        for name in [
            "password",
            "token",
            "secret",
            "api-key",
            "apikey",
            "access-key",
            "auth",
            "credential",
            "credentials",
            "private-key",
            "passphrase",
            "db-password",
            "client_secret",
        ] {
            check(&format!("tool --{name} «hunter2» --verbose"));
            check(&format!("tool --{name}=«hunter2» x"));
            check(&format!("tool -{name}=«hunter2» x"));
        }
        check("tool --password '«hunter 2»' x");
        check("java -Djavax.net.ssl.keyStorePassword=«changeit» -jar a.jar");
        check("sh -c \"mysql --password=«a'b» --host=x\"");
    }

    #[test]
    fn environments() {
        check("FOO_PASSWORD=«x» PATH=/bin MY_TOKEN=«y» OTHER=1");
        check("SECRET_KEY_BASE=«abc» AWS_SECRET_ACCESS_KEY=«wJalr/x+y» OPENAI_API_KEY=«zzz»");
        check("MYSQL_PWD=«x» PWD=/home/x OLDPWD=/ DB_PASS=«p» DB_PASSWORD_2=\"«a b»\"");
        check("PASSWORD=«ünïcödé☃» next");
    }

    #[test]
    fn urls() {
        check("postgres://app:«s3cret»@db:5432/x?sslmode=off");
        check("redis://:«p@ss»@cache:6379/0, amqp://u:«p»@h");
        check("mongodb://u:«p»@h1:27017,h2:27017/x");
        check("GET /x?token=«abc»&page=2&api_key=«d»&sig=«e%3D» HTTP/1.1");
        check(
            "http://host:8080/path@v2 git+ssh://git@github.com:x/y.git file:///a/b.js:1:2 fn@http://h:80/x.js:1:2",
        );
    }

    #[test]
    fn headers() {
        check("Authorization: Bearer «abc»");
        check("> authorization: Basic «dXNlcjpwYXNz»\n> Accept: */*");
        check("{'Authorization': 'Bearer «x»', 'Accept': '*/*'}");
        check("curl -H 'Proxy-Authorization: Token «abc»' https://x/");
        check("Authorization: Digest «username=\"x\", response=\"y\"»\nHost: x");
        check("Authorization: AWS4-HMAC-SHA256 «Credential=x, Signature=y»");
        check("X-Api-Key: «abc»\nX-Auth-Token: «abc»\n");
        check("sent bearer «9f8a7b6c5d4e» to x");
    }

    #[test]
    fn pairs() {
        check(r#"{"password": "«hun\"ter2»", "user": "x", "token":"«t»"}"#);
        check(r#"{\"password\":\"«x»\",\"n\":1}"#);
        check(r#"{"log":"login {\\\"password\\\":\\\"«x»\\\"}"}"#);
        check("password: «hunter2»\nuser: x\n  token: «abc»\n- secret: «x»");
        check("password = «hunter2»\n[x]\nsecret-key := «abc»");
        check("Server=db;Uid=app;Pwd=«x»;Password=«y»;Database=z");
        check("AccountName=x;AccountKey=«abc+/==»;EndpointSuffix=core.windows.net");
        check("SharedAccessSignature=«sr=x&sig=y»");
        check("Config(user=x, password=«abc», port=5)");
        check("Config { user: \"x\", token: \"«abc»\" }");
        check("login with password: «hunter2», trying");
        check("got token: «9f8a7b6c5d»");
        check("{\"auth\": \"«dXNlcjpwYXNz»\"}");
        // Cut off.
        check("{\"password\": \"«hunter 2");
    }

    #[test]
    fn shapes() {
        check("key AKIA«IOSFODNN7EXAMPLE» x");
        check(&format!("ASIA«IOSFODNN7EXAMPLE»,«{AWS_SECRET}»"));
        check(
            "ghp_«0123456789abcdefghijABCDEFGHIJ456789» gho_«0123456789abcdefghij» ghs_«0123456789abcdefghij»",
        );
        check("github_pat_«11ABCDEFG0123456789_abcdefghij» glpat-«abcdefghij-123456789»");
        check("xoxb-«123456789012-abcdefghijkl» sk_live_«0123456789abcdefghijklmn»");
        check("AIza«SyA0123456789abcdefghijklmnopqrstuv» npm_«0123456789abcdefghijABCDEFGHIJ456789»");
        check("jwt eyJ«hbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk» x");
        check("eyJ«hbGciOiJIUzI1NiJ9.eyJzdWIiOi");
    }

    #[test]
    fn private_keys() {
        let body = format!("\n{LINE}\n{LINE}\nQw==\n");
        check(&format!("a\n-----BEGIN RSA PRIVATE KEY-----«{body}»-----END RSA PRIVATE KEY-----\nb"));
        check(&format!(
            "-----BEGIN PGP PRIVATE KEY BLOCK-----«\nVersion: x\n{body}»-----END PGP PRIVATE KEY BLOCK-----"
        ));
        let flat = body.replace('\n', "\\n");
        check(&format!("k=-----BEGIN PRIVATE KEY-----«{flat}»-----END PRIVATE KEY-----\\n"));
        check(&format!(
            "{{\"private_key\": \"«-----BEGIN PRIVATE KEY-----{flat}-----END PRIVATE KEY-----\\n»\"}}"
        ));
        // Cut off at the end, within the body and within the last line.
        check(&format!("-----BEGIN PRIVATE KEY-----«\n{LINE}\n{}", &LINE[..9]));
        check(&format!("-----BEGIN PRIVATE KEY-----«\n{LINE}\n-----E"));
        check(&format!(
            "-----BEGIN RSA PRIVATE KEY-----«\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\n{LINE}"
        ));
        // At the beginning, within the first line and within the body.
        check(&format!("IN PRIVATE KEY-----«{body}»-----END PRIVATE KEY-----"));
        check(&format!("«abc\n{LINE}\n{LINE}\nQw==\n»-----END PRIVATE KEY-----\nb"));
        check(
            &format!("one two\n«    {LINE}\n    {LINE}\n»-----END PRIVATE KEY-----")
                .replace("\n«    ", "\n    «"),
        );
        // What follows stays.
        check(&format!("-----BEGIN PRIVATE KEY-----«\n{LINE}»\nthread 'main' panicked at src/main.rs:1:2"));
        check("expected -----BEGIN PRIVATE KEY-----, got nothing");
        check("-----BEGIN CERTIFICATE-----\nMIIE\n-----END CERTIFICATE-----");
    }

    #[test]
    fn harmless_text_stays() {
        for text in [
            "",
            "--password-file=/etc/x --token-count 5 tokenize=3 max_tokens=4096 --author bob",
            "thread 'main' panicked at src/token.rs:12:5: called `Option::unwrap()` on a `None` value",
            "   0: 0x7ffe12345678 - std::sys::backtrace::__rust_begin_short_backtrace::h0123456789abcdef",
            "    at auth (/app/auth:10:5)\n    at Object.<anonymous> (/app/node_modules/token/index.js:1:2)",
            "  File \"/app/secret.py\", line 3, in login\n    token = request.get()\n    password = get_password()",
            "build id 4f3c2b1a0f9e8d7c6b5a43210fedcba987654321 uuid 550e8400-e29b-41d4-a716-446655440000",
            "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            "SyntaxError: Unexpected token: punctuation (})",
            "SyntaxError: Unexpected token < in JSON at position 0",
            "unexpected token: \"else\", found token: Ident",
            "assertion failed: token == Token::Comma; auth::login, secret != x",
            "dial tcp: lookup auth:8080: no such host; auth: failed for x; authorization: denied",
            "Bearer authentication failed: bearer of bad news",
            "secret \"foo\" not found; error: secret: not found; secretName: foo",
            "password: null password=None token=\"\" auth=true password=****** passwd: missing",
            "kex_exchange: key=12 keys: 3 monkey=george primary_key=4 key: value",
            "Foreign key constraint failed: KEY (id)=(5)",
            "signal=SIGSEGV sig=11 code=1 --pass 3 tests_pass=10",
            "eyJ eyJhbGciOiJIUzI1NiJ9 AKIA ghp_short npm_config_registry=https://registry.npmjs.org/",
            "snow ☃ and 日本語: the password of nobody",
        ] {
            check(text);
        }
    }

    /// Arguments apart by `|`, and what is made of them.
    fn check_args(args: &str, expected: &str) {
        let args: Vec<String> = args.split('|').map(str::to_owned).collect();
        let redactor = redactor(&[]).unwrap();
        let redacted = redactor.args(&args);
        assert_eq!(redacted.join("|"), expected);
        assert_eq!(redactor.args(&redacted), redacted);
    }

    #[test]
    fn arguments() {
        check_args("app|--password|a b|--port|80", "app|--password|[redacted]|--port|80");
        check_args("app|--password=a b; c&d|x", "app|--password=[redacted]|x");
        check_args("env|FOO_PASSWORD=a b|app", "env|FOO_PASSWORD=[redacted]|app");
        check_args("app|--auth|--verbose|x", "app|--auth|--verbose|x");
        check_args("app|--auth|-|x", "app|--auth|[redacted]|x");
        check_args("app|--token", "app|--token");
        check_args("app|--password|", "app|--password|");
        check_args(
            "app|--password-file=/etc/x|--token-count|5",
            "app|--password-file=/etc/x|--token-count|5",
        );
        check_args("mysql|-psecret|-p", "mysql|-psecret|-p");
        check_args("kubectl|--from-literal=password=x", "kubectl|--from-literal=password=[redacted]");
        check_args(
            "curl|-H|Authorization: Bearer x|http://a:b@c/",
            "curl|-H|Authorization: Bearer [redacted]|http://a:[redacted]@c/",
        );
        check_args("sh|-c|mysql --password hunter2 x", "sh|-c|mysql --password [redacted] x");
    }

    #[test]
    fn extra_expressions() {
        let redactor_of = |regex| redactor(&[("mine", regex)]).unwrap();
        assert_eq!(redactor_of(r"cust-\d+").text("cust-12 cust-x"), "[redacted] cust-x");
        assert_eq!(redactor_of(r"(?i)größe").text("GRÖSSE GRÖßE"), "GRÖSSE [redacted]");
        assert_eq!(redactor_of("x*").text("axxb"), "a[redacted]b");
        assert_eq!(redactor_of("redacted").text("redacted"), REDACTED);
        assert_eq!(redactor_of("e").text("e[redacted]e"), "[redacted][redacted][redacted]");
        for bad in ["(", r"\p{Nope}", r"(?=x)", r"(\w{1000}){1000}"] {
            let error = format!("{:#}", redactor(&[("mine", bad)]).unwrap_err());
            assert!(error.contains("mine"), "{error}");
        }
        let many = (0..=EXTRA_MAX).map(|number| (number.to_string(), "x".to_owned()));
        Redactor::new(&many.collect()).unwrap_err();
    }

    #[test]
    fn long_text_takes_linear_time() {
        let redactor = redactor(&[]).unwrap();
        for part in [
            "auth=",
            "token: 'x ",
            "password=a(",
            "eyJaaaaaaaa-",
            "authorization:",
            "PRIVATE KEY-----",
            "keykey",
            "://",
            "a://b:c",
            "--password ",
            "\\\\\"token\\\": ",
            "Bearer ",
            "AKIAIOSFODNN7EXAMPLE ",
            " ",
            "-----END PRIVATE KEY-----\nabc ",
        ] {
            let text = part.repeat(200_000 / part.len());
            let start = std::time::Instant::now();
            redactor.text(&text);
            assert!(start.elapsed().as_secs() < 20, "{part}: {:?}", start.elapsed());
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text(text in "(\\PC|\n|\\\\|password|--token|secret|auth|Authorization|Bearer |Basic |eyJhbGciOi|AKIAIOSFODNN7EXAMPLE|\
            ghp_0123456789abcdef|-----BEGIN |-----END |PRIVATE KEY-----|://|\\[redacted\\]|[=:;, \"'&@.\\[\\](){}]|[a-zA-Z0-9+/]{1,30}){0,40}")
        {
            for extra in [&[][..], &[("a", "[a-f]+"), ("b", "x*")]] {
                let redactor = redactor(extra).unwrap();
                let once = redactor.text(&text);
                proptest::prop_assert_eq!(redactor.text(&once), once.clone());
                proptest::prop_assert!(once.len() <= text.len() * REDACTED.len());
                let args: Vec<String> = text.split(' ').map(str::to_owned).collect();
                let once = redactor.args(&args);
                proptest::prop_assert_eq!(redactor.args(&once), once);
            }
        }
    }
}
