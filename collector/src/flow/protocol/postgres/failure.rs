//! What an ErrorResponse may say: the SQLSTATE and the name of its class.
//!
//! Refuses: the messages themselves, which hold values of rows and parameters.

use super::super::{Failure, Text};

/// Of the body of an ErrorResponse, which may be cut.
pub fn failure(body: &[u8]) -> Failure {
    let code = body.split(|byte| *byte == 0).find_map(|field| field.strip_prefix(b"C"));
    let code = code.filter(|code| code.len() == 5 && code.iter().all(u8::is_ascii_alphanumeric));
    let Some(code) = code.and_then(|code| std::str::from_utf8(code).ok()) else {
        return Failure { kind: Text::Borrowed("_OTHER"), message: String::new(), is_servers: false };
    };
    let class = code.get(..2).unwrap_or_default();
    Failure {
        message: class_name(class).to_owned(),
        is_servers: matches!(class, "08" | "53" | "57" | "58" | "XX"),
        kind: code.to_owned().into(),
    }
}

/// Appendix A of PostgreSQL's documentation.
fn class_name(class: &str) -> &'static str {
    match class {
        "01" => "warning",
        "02" => "no data",
        "03" => "SQL statement not yet complete",
        "08" => "connection exception",
        "09" => "triggered action exception",
        "0A" => "feature not supported",
        "0B" => "invalid transaction initiation",
        "0F" => "locator exception",
        "0L" => "invalid grantor",
        "0P" => "invalid role specification",
        "0Z" => "diagnostics exception",
        "20" => "case not found",
        "21" => "cardinality violation",
        "22" => "data exception",
        "23" => "integrity constraint violation",
        "24" => "invalid cursor state",
        "25" => "invalid transaction state",
        "26" => "invalid SQL statement name",
        "27" => "triggered data change violation",
        "28" => "invalid authorization specification",
        "2B" => "dependent privilege descriptors still exist",
        "2D" => "invalid transaction termination",
        "2F" => "SQL routine exception",
        "34" => "invalid cursor name",
        "38" => "external routine exception",
        "39" => "external routine invocation exception",
        "3B" => "savepoint exception",
        "3D" => "invalid catalog name",
        "3F" => "invalid schema name",
        "40" => "transaction rollback",
        "42" => "syntax error or access rule violation",
        "44" => "with check option violation",
        "53" => "insufficient resources",
        "54" => "program limit exceeded",
        "55" => "object not in prerequisite state",
        "57" => "operator intervention",
        "58" => "system error",
        "F0" => "configuration file error",
        "HV" => "foreign data wrapper error",
        "P0" => "PL/pgSQL error",
        "XX" => "internal error",
        _ => "",
    }
}
