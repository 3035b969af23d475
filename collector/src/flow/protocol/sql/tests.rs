//! Statements and what must be left of them. Refuses: to say that a statement is valid.

use proptest::prelude::*;

use super::*;

/// Checks the text and the summary.
fn check(source: &str, text: &str, summary: &str) -> Statement {
    let statement = normalise(source.as_bytes(), false);
    assert_eq!(&*statement.text, text, "{source}");
    assert_eq!(&*statement.summary, summary, "{source}");
    statement
}

#[test]
fn literals_become_question_marks() {
    check("SELECT * FROM t WHERE a = 'x' AND b = 12", "SELECT * FROM t WHERE a = ? AND b = ?", "SELECT t");
    check("SELECT 'it''s', E'it\\'s', e'\\\\', 1", "SELECT ?, ?, ?, ?", "SELECT");
    check("SELECT $$a'b$$, $t$ $$ $t $t$, $1", "SELECT ?, ?, $1", "SELECT");
    check("SELECT B'01', x'ff', N'a', U&'\\0041' UESCAPE '!'", "SELECT ?, ?, ?, ? UESCAPE ?", "SELECT");
    check("SELECT .5, 1.5e-3, 0x1F, 1_000, -7, 1e+5, 3abc", "SELECT ?, ?, ?, ?, -?, ?, ?", "SELECT");
    check("SELECT TRUE, false, NULL, t1.c2, a$1", "SELECT TRUE, false, NULL, t1.c2, a$1", "SELECT");
    check("SELECT a::text, b->>'k', '2020-01-01'::date", "SELECT a::text, b->>?, ?::date", "SELECT");
}

#[test]
fn what_may_be_a_literal_is_hidden() {
    check("SELECT 'abc", "SELECT ?…", "SELECT");
    check("SELECT $a$ abc $b$", "SELECT ?…", "SELECT");
    check("SELECT \"abc", "SELECT ?…", "SELECT");
    // PostgreSQL ends the string at the first quote, MySQL does not.
    check(r"SELECT 'a\' , 'secret'", "SELECT ?…", "SELECT");
    check(r"SELECT 'a\\' , 'secret'", "SELECT ? , ?", "SELECT");
    check(r"SELECT E'a\' , secret', b", "SELECT ?, b", "SELECT");
}

#[test]
fn white_space_and_comments_are_dropped() {
    check("  SELECT\n\t1 -- one 'x\n , /* a /* b */ ' */ 2 ", "SELECT ? , ?", "SELECT");
    check("/* trace */ SELECT 1 --", "SELECT ?", "SELECT");
    check("SELECT 1 /* open", "SELECT ?", "SELECT");
    check("", "", "");
    check("\0\u{1}", "", "");
}

#[test]
fn lists_and_rows_are_collapsed() {
    check("SELECT a FROM t WHERE b IN (1, 2,3 , -4)", "SELECT a FROM t WHERE b IN (?)", "SELECT t");
    check("SELECT a FROM t WHERE b in ($1,$2)", "SELECT a FROM t WHERE b in (?)", "SELECT t");
    check(
        "SELECT a FROM t WHERE b IN (1, f(2, 3), 4)",
        "SELECT a FROM t WHERE b IN (?, f(?, ?), ?)",
        "SELECT t",
    );
    check("SELECT ARRAY[1, 2], a[1]", "SELECT ARRAY[?], a[?]", "SELECT");
    check(
        "INSERT INTO t (a, b) VALUES (1, 2), (3, 4),(5,6)",
        "INSERT INTO t (a, b) VALUES (?, ?)",
        "INSERT t",
    );
    check(
        "INSERT INTO t VALUES ($1, f(($2))), (3, (f(4))) RETURNING a, (b)",
        "INSERT INTO t VALUES ($1, f(($2))) RETURNING a, (b)",
        "INSERT t",
    );
    check(
        "INSERT INTO t VALUES (1) ON CONFLICT DO UPDATE SET a = VALUES(a), b = VALUES(b), c = 1",
        "INSERT INTO t VALUES (?) ON CONFLICT DO UPDATE SET a = VALUES(a), b = VALUES(b), c = ?",
        "INSERT t",
    );
}

#[test]
fn summaries_have_few_values() {
    for (source, summary, operation, collection) in [
        (
            "select o.id from public.\"orders\" o",
            "SELECT public.orders",
            Some("SELECT"),
            Some("public.orders"),
        ),
        ("SELECT * FROM a, b AS c, \"d e\" WHERE x", "SELECT a b \"d e\"", Some("SELECT"), None),
        ("SELECT * FROM a x LEFT JOIN b ON b.c = a.c, d", "SELECT a b", Some("SELECT"), None),
        ("SELECT * FROM a JOIN a AS b USING (c)", "SELECT a a", Some("SELECT"), Some("a")),
        ("SELECT * FROM generate_series(1, 2) g", "SELECT", Some("SELECT"), None),
        ("SELECT extract(year FROM b), (SELECT 1 FROM c) FROM a", "SELECT SELECT c a", Some("SELECT"), None),
        ("SELECT a IS DISTINCT FROM b FROM c", "SELECT c", Some("SELECT"), Some("c")),
        ("SELECT a FROM b FOR UPDATE", "SELECT b", Some("SELECT"), Some("b")),
        ("WITH a AS (SELECT 1 FROM b) UPDATE c SET d = 1", "SELECT b UPDATE c", Some("SELECT"), None),
        ("INSERT INTO a SELECT * FROM b", "INSERT a SELECT b", Some("INSERT"), None),
        ("UPDATE ONLY a SET b = 1 FROM c WHERE 1=1", "UPDATE a c", Some("UPDATE"), None),
        ("DELETE FROM a USING b", "DELETE a", Some("DELETE"), Some("a")),
        ("MERGE INTO a USING b ON x WHEN MATCHED THEN UPDATE SET c = 1", "MERGE a", Some("MERGE"), Some("a")),
        ("CREATE TEMP TABLE IF NOT EXISTS a.b (c int)", "CREATE TABLE a.b", Some("CREATE"), Some("a.b")),
        ("CREATE UNIQUE INDEX ON a (b)", "CREATE INDEX", Some("CREATE"), None),
        ("ALTER USER bob PASSWORD 'x'", "ALTER USER", Some("ALTER"), None),
        ("TRUNCATE TABLE a", "TRUNCATE TABLE a", Some("TRUNCATE"), Some("a")),
        ("COPY a (b, c) FROM STDIN", "COPY a", Some("COPY"), Some("a")),
        ("COPY (SELECT * FROM a) TO STDOUT", "COPY SELECT a", Some("COPY"), Some("a")),
        ("GRANT SELECT ON a TO b", "GRANT SELECT", Some("GRANT"), None),
        ("EXPLAIN ANALYZE SELECT * FROM a", "EXPLAIN SELECT a", Some("EXPLAIN"), Some("a")),
        ("BEGIN; UPDATE a SET b = 1; COMMIT", "BEGIN UPDATE a COMMIT", Some("BEGIN"), Some("a")),
        ("SAVEPOINT sp_123", "SAVEPOINT", Some("SAVEPOINT"), None),
        ("FETCH 10 FROM cursor_17", "FETCH", Some("FETCH"), None),
        ("(SELECT 1 FROM a) UNION ALL SELECT 2 FROM b", "SELECT a SELECT b", Some("SELECT"), None),
        ("VALUES (1), (2)", "VALUES", Some("VALUES"), None),
        ("CALL refresh('x')", "CALL refresh", Some("CALL"), Some("refresh")),
        ("SELECT * FROM comment, role WHERE a", "SELECT comment role", Some("SELECT"), None),
        ("frobnicate a from b", "", None, None),
    ] {
        let statement = normalise(source.as_bytes(), false);
        let found = (&*statement.summary, statement.operation, statement.collection.as_deref());
        assert_eq!(found, (summary, operation, collection), "{source}");
    }
}

#[test]
fn long_texts_are_cut_and_still_summarised() {
    let columns = "a_rather_long_name, ".repeat(200);
    let statement = normalise(format!("SELECT {columns} b FROM orders").as_bytes(), false);
    assert!(statement.text.len() <= TEXT_BYTES_MAX && statement.text.ends_with('…'), "{}", statement.text);
    assert_eq!(&*statement.summary, "SELECT orders");
    assert_eq!(&*normalise(b"SELECT a", true).text, "SELECT a…");
    let long = format!("SELECT * FROM t WHERE a IN ({}1)", "1, ".repeat(2000));
    assert_eq!(&*normalise(long.as_bytes(), false).text, "SELECT * FROM t WHERE a IN (?)");
}

#[test]
fn a_cache_gives_the_same() {
    let mut cache = Cache::default();
    for number in 0..200 {
        let text = format!("SELECT {} FROM t{number}", "a".repeat(number));
        for is_cut in [false, true, true, false] {
            assert_eq!(*cache.normalise(text.as_bytes(), is_cut), normalise(text.as_bytes(), is_cut));
        }
    }
    let first = cache.normalise(b"SELECT 1", false);
    assert!(Arc::ptr_eq(&first, &cache.normalise(b"SELECT 1", false)));
}

/// Pieces of SQL that are worth joining in any order.
fn fragments() -> impl Strategy<Value = String> {
    let fragment = prop::sample::select(vec![
        "'",
        "\"",
        "\\",
        "$$",
        "$a$",
        "$",
        "--",
        "\n",
        "/*",
        "*/",
        "(",
        ")",
        "[",
        "]",
        ",",
        ";",
        ".",
        " ",
        "E'",
        "VALUES",
        "IN",
        "SELECT",
        "FROM",
        "secret",
        "1",
        "-",
        "é",
        "INSERT INTO",
        "DISTINCT",
        "`",
    ]);
    prop::collection::vec(fragment, 0..60).prop_map(|fragments| fragments.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn any_bytes(source in prop::collection::vec(any::<u8>(), 0..3000), is_cut: bool) {
        prop_assert!(normalise(&source, is_cut).text.len() <= TEXT_BYTES_MAX);
    }

    #[test]
    fn any_fragments(source in fragments()) {
        prop_assert!(normalise(source.as_bytes(), false).text.len() <= TEXT_BYTES_MAX);
    }

    /// Whatever a standard string holds, nothing of it is shown.
    #[test]
    fn no_string_is_shown(held in "[a-z'\\\\$\"/*-]{0,20}", before in "[a-z ,=(]{0,10}") {
        let secret = format!("SECRET{}SECRET", held.replace('\'', "''"));
        let text = normalise(format!("SELECT {before} '{secret}' , '{secret}'").as_bytes(), false).text;
        prop_assert!(!text.contains("SECRET"), "{}", text);
    }
}
