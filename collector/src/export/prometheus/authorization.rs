//! Who may scrape: HTTP basic (RFC 7617) and bearer tokens (RFC 6750). Each that is set opens the door.
//!
//! Secrets are compared in constant time. Refuses: password hashes, sessions, `Debug` of secrets.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use subtle::{Choice, ConstantTimeEq};

use super::watched_file::{self, WatchedFiles};

/// What is asked of a client. A token file is read again when it changed.
pub struct Authorization {
    basic: Option<Vec<u8>>,
    bearer: Option<Bearer>,
}

struct Bearer {
    path: PathBuf,
    files: WatchedFiles,
    token: Vec<u8>,
}

impl Authorization {
    /// Asks for nothing if both are absent. Errors: a token file that cannot be read or is empty, a user with a colon.
    pub fn new(basic: Option<(String, String)>, token_file: Option<PathBuf>) -> Result<Self> {
        let basic = match basic {
            Some((user, password)) => {
                ensure!(!user.contains(':'), "the user of HTTP basic authentication has a colon: {user:?}");
                ensure!(!password.is_empty(), "the password of HTTP basic authentication is empty");
                Some(format!("{user}:{password}").into_bytes())
            }
            None => None,
        };
        let bearer = token_file.map(Bearer::new).transpose()?;
        Ok(Self { basic, bearer })
    }

    /// Whether `header`, the value of `Authorization`, lets its client in.
    pub fn allows(&mut self, header: Option<&[u8]>) -> bool {
        if self.basic.is_none() && self.bearer.is_none() {
            return true;
        }
        let Some((scheme, credentials)) = header.and_then(split_scheme) else { return false };
        if scheme.eq_ignore_ascii_case(b"basic") {
            let Some(expected) = &self.basic else { return false };
            let Ok(found) = STANDARD.decode(credentials) else { return false };
            return bool::from(expected.ct_eq(&found));
        }
        if scheme.eq_ignore_ascii_case(b"bearer") {
            let allows =
                self.bearer.as_mut().map_or(Choice::from(0), |bearer| bearer.token().ct_eq(credentials));
            return bool::from(allows);
        }
        false
    }

    /// The value of `WWW-Authenticate`.
    pub fn challenge(&self) -> &'static str {
        match (&self.basic, &self.bearer) {
            (Some(_), Some(_)) => "Basic realm=\"kansoku\", charset=\"UTF-8\", Bearer realm=\"kansoku\"",
            (None, Some(_)) => "Bearer realm=\"kansoku\"",
            _ => "Basic realm=\"kansoku\", charset=\"UTF-8\"",
        }
    }
}

impl Bearer {
    fn new(path: PathBuf) -> Result<Self> {
        let mut files = WatchedFiles::new(vec![path.clone()]);
        files.changed();
        let token = read_token(&path)?;
        Ok(Self { path, files, token })
    }

    /// The token as it is now. A file that is gone or broken keeps the token before it.
    fn token(&mut self) -> &[u8] {
        if self.files.changed() {
            match read_token(&self.path) {
                Ok(token) => self.token = token,
                Err(error) => {
                    tracing::warn!(error = format!("{error:#}"), "the token for scrapes stays as it was")
                }
            }
        }
        &self.token
    }
}

fn read_token(path: &std::path::Path) -> Result<Vec<u8>> {
    let content = watched_file::read(path).context("the bearer token for Prometheus")?;
    let token = content.trim_ascii();
    ensure!(!token.is_empty(), "the bearer token file {} is empty", path.display());
    Ok(token.to_vec())
}

/// `Basic dXNlcg==` -> the scheme and what follows.
fn split_scheme(header: &[u8]) -> Option<(&[u8], &[u8])> {
    let space = header.iter().position(|byte| *byte == b' ')?;
    Some((&header[..space], header[space..].trim_ascii()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(authorization: &mut Authorization, header: &str, expected: bool) {
        assert_eq!(authorization.allows(Some(header.as_bytes())), expected, "{header}");
    }

    fn basic(text: &str) -> String {
        format!("Basic {}", STANDARD.encode(text))
    }

    #[test]
    fn open() {
        let mut open = Authorization::new(None, None).unwrap();
        assert!(open.allows(None));
        check(&mut open, "Bearer x", true);
    }

    #[test]
    fn basic_and_bearer() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        std::fs::write(&path, "secret\n").unwrap();
        let user = Some(("me".to_owned(), "pass:word".to_owned()));
        let mut both = Authorization::new(user.clone(), Some(path.clone())).unwrap();
        assert!(!both.allows(None));
        check(&mut both, &basic("me:pass:word"), true);
        check(&mut both, &basic("me:pass:wor"), false);
        check(&mut both, &basic("me:"), false);
        check(&mut both, "Basic ###", false);
        check(&mut both, "bearer  secret", true);
        check(&mut both, "Bearer secre", false);
        check(&mut both, "Bearer ", false);
        check(&mut both, "Digest secret", false);
        check(&mut both, "secret", false);
        let mut basic_only = Authorization::new(user, None).unwrap();
        check(&mut basic_only, "Bearer secret", false);

        std::fs::write(folder.path().join("new"), "changed").unwrap();
        std::fs::rename(folder.path().join("new"), &path).unwrap();
        check(&mut both, "Bearer secret", false);
        check(&mut both, "Bearer changed", true);
        std::fs::remove_file(&path).unwrap();
        check(&mut both, "Bearer changed", true);
        assert!(Authorization::new(None, Some(path)).is_err());
        assert!(Authorization::new(Some(("a:b".to_owned(), "c".to_owned())), None).is_err());
    }

    proptest! {
        #[test]
        fn any_header(header: Vec<u8>) {
            let mut basic = Authorization::new(Some(("a".to_owned(), "b".to_owned())), None).unwrap();
            prop_assert!(!basic.allows(Some(&header)));
        }
    }
}
