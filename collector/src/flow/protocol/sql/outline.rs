//! What a statement does, and to what: `INSERT orders SELECT carts`.
//!
//! Refuses: columns, aliases, and names that are made up as a program runs (savepoints, cursors, prepared statements).

use super::lexer::Token;

/// Bytes of a summary.
const SUMMARY_BYTES_MAX: usize = 255;

/// Longest keyword.
const KEYWORD_BYTES_MAX: usize = 17;

/// What a word means here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keyword {
    /// Reads or writes rows; may stand within other statements.
    Rows(&'static str),
    /// Begins a statement and says nothing elsewhere. Whether its target comes right after it.
    Command(&'static str, bool),
    /// Begins a statement that makes, changes or removes an object.
    Definition(&'static str),
    /// An object of a definition. Whether its name is of the few.
    Object(&'static str, bool),
    /// A target follows, in `SELECT` and `DELETE`.
    From,
    /// A target follows.
    Join,
    /// A target follows.
    Into,
    /// `IN`
    In,
    /// `VALUES`
    Values,
    /// `WITH`
    With,
    /// What a `SELECT` or an `INSERT` may follow.
    Opener,
    /// May stand before a target.
    Modifier,
    /// `DISTINCT`
    Distinct,
    /// Ends a list of targets.
    Clause,
    /// Anything else.
    Other,
}

impl Keyword {
    /// Of a word in any case.
    pub fn of(word: &[u8]) -> Self {
        let mut buffer = [0; KEYWORD_BYTES_MAX];
        let Some(upper) = buffer.get_mut(..word.len()) else { return Self::Other };
        upper.copy_from_slice(word);
        upper.make_ascii_uppercase();
        Self::of_query(upper)
            .or_else(|| Self::of_definition(upper))
            .unwrap_or_else(|| Self::of_command(upper))
    }

    fn of_query(word: &[u8]) -> Option<Self> {
        Some(match word {
            b"SELECT" => Self::Rows("SELECT"),
            b"INSERT" => Self::Rows("INSERT"),
            b"UPDATE" => Self::Rows("UPDATE"),
            b"DELETE" => Self::Rows("DELETE"),
            b"MERGE" => Self::Rows("MERGE"),
            b"REPLACE" => Self::Rows("REPLACE"),
            b"FROM" => Self::From,
            b"JOIN" => Self::Join,
            b"INTO" => Self::Into,
            b"IN" => Self::In,
            b"VALUES" => Self::Values,
            b"WITH" => Self::With,
            b"AS" | b"ALL" | b"UNION" | b"EXCEPT" | b"INTERSECT" => Self::Opener,
            b"ONLY" | b"LATERAL" | b"IF" | b"NOT" | b"EXISTS" | b"CONCURRENTLY" => Self::Modifier,
            b"DISTINCT" => Self::Distinct,
            b"WHERE" | b"ORDER" | b"GROUP" | b"HAVING" | b"LIMIT" | b"OFFSET" | b"ON" | b"USING"
            | b"RETURNING" | b"FOR" | b"WINDOW" | b"DEFAULT" | b"LEFT" | b"RIGHT" | b"INNER" | b"FULL"
            | b"CROSS" | b"NATURAL" => Self::Clause,
            _ => return None,
        })
    }

    fn of_definition(word: &[u8]) -> Option<Self> {
        Some(match word {
            b"CREATE" => Self::Definition("CREATE"),
            b"ALTER" => Self::Definition("ALTER"),
            b"DROP" => Self::Definition("DROP"),
            b"TRUNCATE" => Self::Definition("TRUNCATE"),
            b"LOCK" => Self::Definition("LOCK"),
            b"REFRESH" => Self::Definition("REFRESH"),
            b"REINDEX" => Self::Definition("REINDEX"),
            b"COMMENT" => Self::Definition("COMMENT"),
            b"GRANT" => Self::Definition("GRANT"),
            b"REVOKE" => Self::Definition("REVOKE"),
            b"TABLE" => Self::Object("TABLE", true),
            b"VIEW" => Self::Object("VIEW", true),
            b"INDEX" => Self::Object("INDEX", true),
            b"SEQUENCE" => Self::Object("SEQUENCE", true),
            b"SCHEMA" => Self::Object("SCHEMA", false),
            b"DATABASE" => Self::Object("DATABASE", false),
            b"FUNCTION" => Self::Object("FUNCTION", false),
            b"PROCEDURE" => Self::Object("PROCEDURE", false),
            b"TRIGGER" => Self::Object("TRIGGER", false),
            b"TYPE" => Self::Object("TYPE", false),
            b"EXTENSION" => Self::Object("EXTENSION", false),
            b"ROLE" => Self::Object("ROLE", false),
            b"USER" => Self::Object("USER", false),
            b"PUBLICATION" => Self::Object("PUBLICATION", false),
            b"SUBSCRIPTION" => Self::Object("SUBSCRIPTION", false),
            _ => return None,
        })
    }

    fn of_command(word: &[u8]) -> Self {
        match word {
            b"BEGIN" => Self::Command("BEGIN", false),
            b"START" => Self::Command("START", false),
            b"COMMIT" => Self::Command("COMMIT", false),
            b"END" => Self::Command("END", false),
            b"ROLLBACK" => Self::Command("ROLLBACK", false),
            b"ABORT" => Self::Command("ABORT", false),
            b"SAVEPOINT" => Self::Command("SAVEPOINT", false),
            b"RELEASE" => Self::Command("RELEASE", false),
            b"PREPARE" => Self::Command("PREPARE", false),
            b"EXECUTE" => Self::Command("EXECUTE", false),
            b"DEALLOCATE" => Self::Command("DEALLOCATE", false),
            b"DECLARE" => Self::Command("DECLARE", false),
            b"FETCH" => Self::Command("FETCH", false),
            b"MOVE" => Self::Command("MOVE", false),
            b"CLOSE" => Self::Command("CLOSE", false),
            b"COPY" => Self::Command("COPY", true),
            b"CALL" => Self::Command("CALL", true),
            b"DO" => Self::Command("DO", false),
            b"EXPLAIN" => Self::Command("EXPLAIN", false),
            b"ANALYZE" | b"ANALYSE" => Self::Command("ANALYZE", false),
            b"VACUUM" => Self::Command("VACUUM", false),
            b"CLUSTER" => Self::Command("CLUSTER", false),
            b"SET" => Self::Command("SET", false),
            b"RESET" => Self::Command("RESET", false),
            b"SHOW" => Self::Command("SHOW", false),
            b"DISCARD" => Self::Command("DISCARD", false),
            b"LISTEN" => Self::Command("LISTEN", false),
            b"NOTIFY" => Self::Command("NOTIFY", false),
            b"UNLISTEN" => Self::Command("UNLISTEN", false),
            b"CHECKPOINT" => Self::Command("CHECKPOINT", false),
            b"START_REPLICATION" => Self::Command("START_REPLICATION", false),
            b"IDENTIFY_SYSTEM" => Self::Command("IDENTIFY_SYSTEM", false),
            _ => Self::Other,
        }
    }
}

/// The summary of a text, as its tokens are read.
#[derive(Debug)]
pub struct Outline {
    summary: Vec<u8>,
    operation: Option<&'static str>,
    place: Place,
    /// The target that is being read or was read last.
    target: Option<Target>,
    /// Whether a comma at this place is followed by another target.
    in_targets: bool,
    /// One bit for each open parenthesis, the innermost lowest: whether a query stands in it.
    queries: u64,
    collections: Collections,
}

/// What the last token was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// A statement begins.
    Start,
    /// A query may begin: after a parenthesis, `AS`, `EXPLAIN`.
    Opened,
    /// In a definition before its object.
    Definition,
    /// A target comes. Whether a parenthesis after it would make it a function.
    Target { may_be_function: bool },
    /// After `IS DISTINCT`.
    Distinct,
    /// Anywhere else.
    Middle,
}

#[derive(Clone, Copy, Debug)]
struct Target {
    /// Where it begins in the summary.
    start: usize,
    may_be_function: bool,
    /// Whether a dot was the last token, so that a name goes on.
    is_open: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum Collections {
    None,
    One(Vec<u8>),
    Several,
}

impl Default for Outline {
    fn default() -> Self {
        Self {
            summary: Vec::new(),
            operation: None,
            place: Place::Start,
            target: None,
            in_targets: false,
            queries: 0,
            collections: Collections::None,
        }
    }
}

impl Outline {
    /// Reads a token, which is no white space.
    pub fn take(&mut self, token: Token<'_>, keyword: Keyword) {
        if self.go_on(token) {
            return;
        }
        match token {
            Token::Symbol(symbol) => self.take_symbol(symbol),
            Token::Word(word) => self.take_word(word, keyword),
            Token::Name(name) => match self.place {
                Place::Target { may_be_function } => self.begin_target(bare(name), may_be_function),
                _ => self.place = Place::Middle,
            },
            _ => self.place = Place::Middle,
        }
    }

    /// Summary, first operation and the only table.
    pub fn finish(mut self) -> (Box<str>, Option<&'static str>, Option<Box<str>>) {
        self.end_target();
        let text = |bytes: Vec<u8>| match String::from_utf8(bytes) {
            Ok(text) => text.into_boxed_str(),
            Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned().into_boxed_str(),
        };
        let collection = match self.collections {
            Collections::One(name) => Some(text(name)),
            _ => None,
        };
        (text(self.summary), self.operation, collection)
    }

    /// Goes on with a target: its further parts, or the parenthesis that shows that it is a function.
    fn go_on(&mut self, token: Token<'_>) -> bool {
        let Some(target) = &mut self.target else { return false };
        let start = target.start;
        let name = match (token, target.is_open) {
            (Token::Symbol(b'.'), false) => {
                target.is_open = true;
                &b"."[..]
            }
            (Token::Word(word), true) => word,
            (Token::Name(name), true) => bare(name),
            (Token::Symbol(b'('), false) if target.may_be_function => {
                self.summary.truncate(start);
                self.target = None;
                return false;
            }
            _ => {
                self.end_target();
                return false;
            }
        };
        target.is_open = name == b".";
        if self.summary.len() + name.len() <= SUMMARY_BYTES_MAX {
            self.summary.extend_from_slice(name);
        }
        true
    }

    fn take_symbol(&mut self, symbol: u8) {
        self.place = match symbol {
            b';' => {
                self.in_targets = false;
                self.queries = 0;
                Place::Start
            }
            b'(' => {
                self.in_targets = false;
                self.queries <<= 1;
                if self.place == Place::Start { Place::Start } else { Place::Opened }
            }
            b')' => {
                self.in_targets = false;
                self.queries >>= 1;
                Place::Opened
            }
            b',' if self.in_targets => Place::Target { may_be_function: true },
            _ => Place::Middle,
        };
    }

    fn take_word(&mut self, word: &[u8], keyword: Keyword) {
        let place = std::mem::replace(&mut self.place, Place::Middle);
        match (keyword, place) {
            (Keyword::Rows(name), Place::Start | Place::Opened) => self.begin_rows(name),
            (Keyword::Rows("SELECT"), _) => self.begin_rows("SELECT"),
            (Keyword::Command(name, has_target), Place::Start) => {
                self.add_operation(name);
                let target = Place::Target { may_be_function: false };
                self.place = if has_target { target } else { Place::Opened };
            }
            (Keyword::Definition(name), Place::Start) => {
                self.add_operation(name);
                self.place = Place::Definition;
            }
            (Keyword::Values, Place::Start) => self.add_operation("VALUES"),
            (Keyword::With, Place::Start) => self.place = Place::Opened,
            (Keyword::Object(name, is_named), Place::Definition) => {
                self.append(name.as_bytes());
                self.place = if is_named { Place::Target { may_be_function: false } } else { Place::Middle };
            }
            // `CREATE UNIQUE INDEX`, but not the privileges of `GRANT SELECT ON`.
            (Keyword::Other | Keyword::Modifier, Place::Definition) => self.place = Place::Definition,
            (Keyword::Modifier, Place::Target { .. }) => self.place = place,
            // Most keywords may also be names.
            (
                Keyword::Other | Keyword::Command(..) | Keyword::Definition(_) | Keyword::Object(..),
                Place::Target { may_be_function },
            ) => self.begin_target(word, may_be_function),
            // `ANALYZE`, `VERBOSE` and their like stand between a command and what it is about.
            (Keyword::Command(..), Place::Opened) | (Keyword::Opener, _) => self.place = Place::Opened,
            (Keyword::From, Place::Distinct) => {}
            (Keyword::From, _) if self.queries & 1 == 1 => self.expect_targets(),
            (Keyword::Join, _) => self.expect_targets(),
            (Keyword::Into, _) => self.place = Place::Target { may_be_function: false },
            (Keyword::Distinct, _) => self.place = Place::Distinct,
            (Keyword::Clause | Keyword::Values | Keyword::Command("SET", _), _) => self.in_targets = false,
            _ => {}
        }
    }

    fn begin_rows(&mut self, name: &'static str) {
        self.add_operation(name);
        self.in_targets = false;
        self.queries |= u64::from(matches!(name, "SELECT" | "DELETE" | "UPDATE"));
        self.place = match name {
            "UPDATE" => Place::Target { may_be_function: false },
            _ => Place::Middle,
        };
    }

    fn expect_targets(&mut self) {
        self.in_targets = true;
        self.place = Place::Target { may_be_function: true };
    }

    fn add_operation(&mut self, name: &'static str) {
        self.operation = self.operation.or(Some(name));
        self.append(name.as_bytes());
    }

    fn begin_target(&mut self, name: &[u8], may_be_function: bool) {
        self.place = Place::Middle;
        let start = self.summary.len();
        if self.append(name) {
            self.target = Some(Target { start, may_be_function, is_open: false });
        }
    }

    fn end_target(&mut self) {
        let Some(target) = self.target.take() else { return };
        let name = self.summary.get(target.start..).unwrap_or_default().trim_ascii_start();
        self.collections = match std::mem::replace(&mut self.collections, Collections::Several) {
            Collections::None => Collections::One(name.to_vec()),
            Collections::One(known) if known == name => Collections::One(known),
            _ => Collections::Several,
        };
    }

    /// Appends a word if there is room for it.
    fn append(&mut self, word: &[u8]) -> bool {
        let fits = self.summary.len() + 1 + word.len() <= SUMMARY_BYTES_MAX;
        if fits {
            if !self.summary.is_empty() {
                self.summary.push(b' ');
            }
            self.summary.extend_from_slice(word);
        }
        fits
    }
}

/// A quoted name without its quotes, if it needs none.
fn bare(name: &[u8]) -> &[u8] {
    match name {
        [b'"' | b'`', bare @ .., _]
            if bare.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'_') =>
        {
            bare
        }
        _ => name,
    }
}
