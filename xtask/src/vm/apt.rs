//! A private apt: reads Debian suites through this machine's own mirror without touching its apt state.
//!
//! Lists, caches, status and sources live in one directory under `target/vm`; the machine's proxies and
//! logins still apply. It refuses to name a mirror of its own and to install anything: it only searches and
//! downloads.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::host::{DEBIAN_KEYRING, stdout_of};

/// Names a Debian mirror (the part before `/dists`) for machines whose own sources are not Debian's.
const MIRROR_VARIABLE: &str = "KANSOKU_DEBIAN_MIRROR";

/// Which of Debian's two archives a suite is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Archive {
    Main,
    Security,
}

/// One suite, such as `trixie` in the main archive.
#[derive(Clone, Copy, Debug)]
pub struct Suite {
    pub archive: Archive,
    pub name: &'static str,
}

/// Base addresses this machine fetches packages from. Some may be no Debian mirrors at all; see
/// [`sources_list`].
#[derive(Debug, Default, PartialEq, Eq)]
struct Mirrors {
    main: Vec<String>,
    security: Vec<String>,
}

/// An apt with its own sources and its own state.
pub struct PrivateApt {
    config: PathBuf,
}

impl PrivateApt {
    /// Prepares `dir` and reads the package lists of `suites`.
    pub fn open(dir: &Path, suites: &[Suite]) -> Result<Self> {
        let lists = dir.join("lists/partial");
        let archives = dir.join("cache/archives/partial");
        for made in [&lists, &archives] {
            fs::create_dir_all(made).with_context(|| format!("create {}", made.display()))?;
        }
        let sources = sources_list(&Mirrors::of_this_machine()?, suites);
        let config = dir.join("apt.conf");
        for (path, text) in [
            (dir.join("status"), String::new()),
            (dir.join("sources.list"), sources.clone()),
            (config.clone(), private_config(dir)),
        ] {
            fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
        }
        let apt = PrivateApt { config };
        apt.update(&sources)?;
        Ok(apt)
    }

    /// Names of the packages that match the extended regular expression `pattern` and can be downloaded.
    pub fn search(&self, pattern: &str) -> Result<Vec<String>> {
        let found = stdout_of(self.command("apt-cache").args(["search", "--names-only", pattern]))?;
        Ok(found.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect())
    }

    /// Downloads `package` into `dir`. apt checks its hash against the signed lists.
    pub fn download(&self, package: &str, dir: &Path) -> Result<()> {
        stdout_of(self.command("apt-get").current_dir(dir).args(["download", package]))
            .with_context(|| format!("download {package}; run again if the mirror changed meanwhile"))?;
        Ok(())
    }

    /// A single absent suite is normal here, so an update that read at least one suite counts.
    fn update(&self, sources: &str) -> Result<()> {
        let Err(error) = stdout_of(self.command("apt-get").arg("update")) else {
            return Ok(());
        };
        let readable = stdout_of(self.command("apt-cache").args(["search", "--names-only", "^linux-"]))?;
        if readable.is_empty() {
            return Err(error).with_context(|| {
                format!("read these lists, or set {MIRROR_VARIABLE} to a Debian mirror's address:\n{sources}")
            });
        }
        Ok(())
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.arg("-c").arg(&self.config).env("LC_ALL", "C");
        command
    }
}

impl Mirrors {
    fn of_this_machine() -> Result<Self> {
        if let Ok(base) = env::var(MIRROR_VARIABLE) {
            return Ok(Self::of_base(base.trim_end_matches('/')));
        }
        // Prints, without any network access, what an update would fetch: both source formats arrive parsed.
        let uris = stdout_of(Command::new("apt-get").args(["update", "--print-uris"]).env("LC_ALL", "C"))
            .with_context(|| format!("read this machine's apt sources, or set {MIRROR_VARIABLE}"))?;
        let mirrors = Self::parse(&uris);
        if mirrors.main.is_empty() && mirrors.security.is_empty() {
            bail!("this machine has no apt sources; set {MIRROR_VARIABLE} to a Debian mirror's base address");
        }
        Ok(mirrors)
    }

    fn of_base(base: &str) -> Self {
        Mirrors { main: vec![base.to_owned()], security: vec![format!("{base}-security")] }
    }

    /// Reads lines such as `'http://host/debian/dists/bookworm/InRelease' name 0`.
    fn parse(uris: &str) -> Self {
        let mut mirrors = Mirrors::default();
        for line in uris.lines() {
            let Some(address) = line.strip_prefix('\'').and_then(|rest| rest.split('\'').next()) else {
                continue;
            };
            let Some(address) = address.strip_suffix("/InRelease") else { continue };
            let Some((base, suite)) = address.split_once("/dists/") else { continue };
            let known = if suite.ends_with("-security") { &mut mirrors.security } else { &mut mirrors.main };
            if !known.iter().any(|other| other == base) {
                known.push(base.to_owned());
            }
        }
        mirrors.derive_missing_archive();
        mirrors
    }

    /// Mirrors keep the two archives side by side, as `debian` and `debian-security`.
    fn derive_missing_archive(&mut self) {
        if self.security.is_empty() {
            self.security = self.main.iter().map(|base| format!("{base}-security")).collect();
        }
        if self.main.is_empty() {
            self.main = self
                .security
                .iter()
                .filter_map(|base| base.strip_suffix("-security"))
                .map(str::to_owned)
                .collect();
        }
    }
}

/// Asks every known mirror for every suite. Those that are not Debian's lack the suite or its signature, and
/// drop out.
fn sources_list(mirrors: &Mirrors, suites: &[Suite]) -> String {
    let mut text = String::new();
    for Suite { archive, name } in suites {
        let bases = match archive {
            Archive::Main => &mirrors.main,
            Archive::Security => &mirrors.security,
        };
        for base in bases {
            text +=
                &format!("deb [arch=amd64 targets=Packages signed-by={DEBIAN_KEYRING}] {base} {name} main\n");
        }
    }
    text
}

/// Read after the machine's own configuration, so it may clear hooks that would clean the machine's package
/// cache.
fn private_config(dir: &Path) -> String {
    let dir = dir.display();
    format!(
        r#"#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear DPkg::Post-Invoke;
APT::Architecture "amd64";
APT::Sandbox::User "root";
Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";
APT::Update::Error-Mode "any";
Dir::State "{dir}";
Dir::State::lists "{dir}/lists";
Dir::State::status "{dir}/status";
Dir::Cache "{dir}/cache";
Dir::Etc::sourcelist "{dir}/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRIXIE: Suite = Suite { archive: Archive::Main, name: "trixie" };

    #[test]
    fn mirrors_are_read_once_each_and_sorted_by_archive() {
        let mirrors = Mirrors::parse(
            "'http://m.test/debian/dists/bookworm/InRelease' m.test_InRelease 0 \n\
             'http://m.test/debian/dists/bookworm-updates/InRelease' m.test_InRelease 0 \n\
             'http://m.test/debian-security/dists/bookworm-security/InRelease' m.test_InRelease 0 \n\
             'http://m.test/debian/dists/bookworm/main/binary-amd64/Packages.xz' m.test_Packages 0 \n",
        );
        assert_eq!(mirrors, Mirrors::of_base("http://m.test/debian"));
    }

    #[test]
    fn an_archive_without_a_source_is_expected_beside_the_other() {
        let expected = Mirrors::of_base("http://m.test/debian");
        assert_eq!(Mirrors::parse("'http://m.test/debian/dists/sid/InRelease' n 0 "), expected);
        assert_eq!(
            Mirrors::parse("'http://m.test/debian-security/dists/x-security/InRelease' n 0 "),
            expected
        );
    }

    #[test]
    fn every_mirror_is_asked_for_the_suite() {
        let mirrors = Mirrors { main: vec!["http://a".into(), "http://b".into()], security: Vec::new() };
        let text = sources_list(&mirrors, &[TRIXIE]);
        assert_eq!(text.lines().count(), 2);
        assert!(
            text.contains("] http://a trixie main\n") && text.contains("] http://b trixie main\n"),
            "{text}"
        );
    }
}
