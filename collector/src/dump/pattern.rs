//! Takes over `/proc/sys/kernel/core_pattern`, and gives it back.
//!
//! The value is the whole machine's: whoever had it before gets it back when the agent stops, and if the agent is
//! killed, when it stops the next time or by `kansoku core-handler --restore`. For that the previous value lies in a
//! file before ours is written. Refuses: to give back what somebody else has changed since.

use std::fs;
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// Where the kernel keeps the pattern.
pub const CORE_PATTERN: &str = "/proc/sys/kernel/core_pattern";

/// `CORENAME_MAX_SIZE` without the end of the string. The kernel cuts a longer pattern without a word.
const PATTERN_BYTES_MAX: usize = 127;

/// `UNIX_PATH_MAX` without the end of the string.
const SOCKET_BYTES_MAX: usize = 107;

/// The first kernel that dumps into a socket.
const SOCKET_RELEASE: (u32, u32) = (6, 16);

/// The kernel's own default, for when nobody knows what was there.
const KERNEL_DEFAULT: &str = "core";

/// The host's files, as its first process sees them, in the host's pid namespace.
const HOST_ROOT: &str = "/proc/1/root";

/// Bytes of the remembered file: two patterns and their line ends.
const REMEMBERED_BYTES_MAX: u64 = 2 * (PATTERN_BYTES_MAX as u64 + 1);

/// How the kernel reaches us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pattern {
    /// It connects to this socket.
    Socket(PathBuf),
    /// It starts this executable as root, with the core as its standard input and no environment. So the file with its
    /// configuration is named: `EXECUTABLE core-handler --config FILE PID NAMESPACE_PID SIGNAL TIME`.
    Pipe(PathBuf, PathBuf),
}

/// `core_pattern` while it is ours. Dropped, it is given back.
#[derive(Debug)]
pub struct Takeover {
    pattern_path: PathBuf,
    remembered_path: PathBuf,
    previous: String,
    ours: String,
    pattern: Pattern,
    is_over: bool,
}

/// What became of the pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Restored {
    /// This value is back.
    Previous(String),
    /// Somebody else has put this value there, which stays.
    Foreign(String),
    /// We never had it.
    Nothing,
}

/// Whether a kernel of this release (`uname -r`) can dump into a socket.
///
/// Since 6.16 the kernel refuses what it doesn't understand after an `@`, but an older one takes `@/run/x` for the name
/// of a file, and without an error. So the release is asked first, and then [`Takeover::begin`] tries.
pub fn supports_socket(release: &str) -> bool {
    let mut numbers = release.split(|letter: char| !letter.is_ascii_digit()).map(str::parse);
    let (Some(Ok(major)), Some(Ok(minor))) = (numbers.next(), numbers.next()) else { return false };
    (major, minor) >= SOCKET_RELEASE
}

impl Pattern {
    /// What is written to `core_pattern`.
    fn text(&self) -> Result<String> {
        let (path, text, bytes_max) = match self {
            Self::Socket(path) => (path, format!("@{}", path.display()), SOCKET_BYTES_MAX + 1),
            Self::Pipe(path, configuration) => {
                let call = format!("core-handler --config {} %P %p %s %t", configuration.display());
                (path, format!("|{} {call}", path.display()), PATTERN_BYTES_MAX)
            }
        };
        let shown =
            path.to_str().with_context(|| format!("{} is not UTF-8; choose another path", path.display()))?;
        // The kernel splits at white space, expands `%` and refuses `..`.
        let is_plain = !shown
            .contains(|letter: char| letter.is_whitespace() || letter.is_control() || letter == '%')
            && path.is_absolute()
            && !shown.contains("..");
        if !is_plain {
            bail!("the kernel can't use {shown:?}: it needs an absolute path without spaces, % and ..");
        }
        if text.len() > bytes_max {
            bail!(
                "{shown} is too long for core_pattern by {} bytes; choose a shorter path",
                text.len() - bytes_max
            );
        }
        Ok(text)
    }
}

impl Takeover {
    /// Writes the first pattern of `candidates` that this kernel takes. `remembered_path` keeps the previous value.
    pub fn begin(pattern_path: &Path, remembered_path: &Path, candidates: &[Pattern]) -> Result<Self> {
        let release = rustix::system::uname().release().to_string_lossy().into_owned();
        let mut refused = None;
        for pattern in candidates {
            if matches!(pattern, Pattern::Socket(_)) && !supports_socket(&release) {
                refused = Some(anyhow::anyhow!(
                    "Linux {release} can't dump into a socket, only 6.16 and later can"
                ));
                continue;
            }
            match Self::write(pattern_path, remembered_path, pattern) {
                Ok(takeover) => return Ok(takeover),
                Err(error) => refused = Some(error),
            }
        }
        Err(refused.context("no way to take cores is configured")?)
    }

    /// Which of the candidates it is.
    pub fn pattern(&self) -> &Pattern {
        &self.pattern
    }

    /// What is given back at the end.
    pub fn previous(&self) -> &str {
        &self.previous
    }

    /// Gives it back.
    pub fn end(mut self) -> Result<Restored> {
        self.is_over = true;
        restore(&self.pattern_path, &self.remembered_path)
    }

    fn write(pattern_path: &Path, remembered_path: &Path, pattern: &Pattern) -> Result<Self> {
        let ours = pattern.text()?;
        if let Pattern::Pipe(executable, _) = pattern {
            check_host_has(Path::new(HOST_ROOT), executable)?;
        }
        let current = read(pattern_path)?;
        let remembered = Remembered::read(remembered_path)?;
        let previous = match &remembered {
            // A killed agent left its own pattern: what it had found is what has to come back.
            Some(remembered) if remembered.ours == current => remembered.previous.clone(),
            _ if current == ours => {
                tracing::warn!(
                    "core_pattern is ours already and nobody knows what it was; it will be {KERNEL_DEFAULT:?}"
                );
                KERNEL_DEFAULT.to_owned()
            }
            _ => current.clone(),
        };
        Remembered { previous: previous.clone(), ours: ours.clone() }.write(remembered_path)?;
        let written = fs::write(pattern_path, format!("{ours}\n")).and_then(|()| {
            // What is cut or kept as before without an error isn't ours either.
            match fs::read_to_string(pattern_path)?.trim_end_matches('\n') == ours {
                true => Ok(()),
                false => Err(io::Error::other("the kernel keeps another value")),
            }
        });
        if let Err(error) = written {
            // The kernel left the pattern as it was, so the file has to be as it was, too.
            match &remembered {
                Some(remembered) => remembered.write(remembered_path)?,
                None => remove(remembered_path)?,
            }
            let advice = advice(&error, pattern);
            let message =
                format!("{} can't be set to {ours:?} and is unchanged; {advice}", pattern_path.display());
            return Err(anyhow::Error::new(error).context(message));
        }
        Ok(Self {
            pattern_path: pattern_path.to_owned(),
            remembered_path: remembered_path.to_owned(),
            previous,
            ours,
            pattern: pattern.clone(),
            is_over: false,
        })
    }
}

impl Drop for Takeover {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        if let Err(error) = restore(&self.pattern_path, &self.remembered_path) {
            let (ours, previous) = (&self.ours, &self.previous);
            tracing::error!("core_pattern is still {ours:?}, write {previous:?} there yourself: {error:#}");
        }
    }
}

/// Gives the pattern back, after a killed agent too: `kansoku core-handler --restore`.
pub fn restore(pattern_path: &Path, remembered_path: &Path) -> Result<Restored> {
    let Some(remembered) = Remembered::read(remembered_path)? else { return Ok(Restored::Nothing) };
    let current = read(pattern_path)?;
    let restored = if current == remembered.ours {
        fs::write(pattern_path, format!("{}\n", remembered.previous)).with_context(|| {
            format!(
                "{} can't be written; do it as root: it was {:?}",
                pattern_path.display(),
                remembered.previous
            )
        })?;
        Restored::Previous(remembered.previous)
    } else {
        Restored::Foreign(current)
    };
    remove(remembered_path)?;
    Ok(restored)
}

/// The file that outlives the agent: the previous pattern and ours, a line each.
#[derive(Debug, PartialEq, Eq)]
struct Remembered {
    previous: String,
    ours: String,
}

impl Remembered {
    fn read(path: &Path) -> Result<Option<Self>> {
        let read = || match fs::metadata(path) {
            Ok(metadata) if metadata.len() > REMEMBERED_BYTES_MAX => Err(ErrorKind::InvalidData.into()),
            Ok(_) => fs::read_to_string(path).map(Some),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        };
        let broken = || {
            let path = path.display();
            format!(
                "{path} should say what core_pattern was before; set core_pattern yourself and remove that file"
            )
        };
        let Some(text) = read().with_context(broken)? else { return Ok(None) };
        let mut lines = text.split('\n');
        match (lines.next(), lines.next(), lines.next()) {
            (Some(previous), Some(ours), Some("")) if !ours.is_empty() => {
                Ok(Some(Self { previous: previous.to_owned(), ours: ours.to_owned() }))
            }
            _ => bail!(broken()),
        }
    }

    /// Under another name first, so that it is never half there.
    fn write(&self, path: &Path) -> Result<()> {
        let temporary = path.with_added_extension("temporary");
        let write = || {
            let mut options = fs::OpenOptions::new();
            let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
            write!(file, "{}\n{}\n", self.previous, self.ours)?;
            file.sync_all()?;
            fs::rename(&temporary, path)
        };
        write().with_context(|| {
            let path = path.display();
            format!("core_pattern is unchanged, for what it was can't be kept in {path}; let the agent write there")
        })
    }
}

/// The kernel starts the executable from the host's files. If it isn't there, every core of the machine is lost.
fn check_host_has(host_root: &Path, executable: &Path) -> Result<()> {
    let identity = |path: &Path| fs::metadata(path).map(|metadata| (metadata.dev(), metadata.ino()));
    let path = executable.strip_prefix("/").unwrap_or(executable);
    match (identity(&host_root.join(path)), identity(executable)) {
        (Ok(host), Ok(ours)) if host == ours => Ok(()),
        // We may not look there: then the owner has to know.
        (Err(error), _) if error.kind() != ErrorKind::NotFound => Ok(()),
        _ => bail!(
            "the kernel starts {shown} from the host's files, which have no such executable or another one; install \
             kansoku at {shown} on the host and mount it from there",
            shown = executable.display()
        ),
    }
}

fn read(path: &Path) -> Result<String> {
    let text = fs::read_to_string(path)
        .with_context(|| format!("can't read {}; mount the host's /proc there", path.display()))?;
    Ok(text.trim_end_matches('\n').to_owned())
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error)
            .with_context(|| format!("{} is not needed any more, but can't be removed", path.display())),
        _ => Ok(()),
    }
}

fn advice(error: &io::Error, pattern: &Pattern) -> &'static str {
    match (error.kind(), pattern) {
        (ErrorKind::InvalidInput, Pattern::Socket(_)) => {
            "the kernel takes a socket only from a process in the host's mount namespace: run the agent as a service of \
             the host, or use the pipe"
        }
        (ErrorKind::PermissionDenied, _) => "run the agent as root",
        (ErrorKind::ReadOnlyFilesystem, _) => {
            "mount the host's /proc/sys/kernel writable into the agent's container"
        }
        _ => "turn dumps off, or take the pattern away from who holds it",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Machine {
        _directory: tempfile::TempDir,
        pattern: PathBuf,
        remembered: PathBuf,
    }

    impl Machine {
        fn new(pattern: &str) -> Self {
            let directory = tempfile::tempdir().expect("a directory");
            let (path, remembered) =
                (directory.path().join("core_pattern"), directory.path().join("previous"));
            fs::write(&path, format!("{pattern}\n")).expect("written");
            Self { _directory: directory, pattern: path, remembered }
        }

        fn begin(&self, pattern: &Pattern) -> Result<Takeover> {
            Takeover::begin(&self.pattern, &self.remembered, std::slice::from_ref(pattern))
        }

        fn check(&self, pattern: &str, is_remembered: bool) {
            assert_eq!(read(&self.pattern).expect("read"), pattern);
            assert_eq!(self.remembered.exists(), is_remembered);
        }
    }

    fn pipe(path: &str) -> Pattern {
        Pattern::Pipe(PathBuf::from(path), PathBuf::from("/c.yaml"))
    }

    const OURS: &str = "|/bin/sh core-handler --config /c.yaml %P %p %s %t";

    #[test]
    fn given_back_at_the_end() {
        for previous in ["core", "|/usr/lib/systemd/systemd-coredump %P %u", ""] {
            let machine = Machine::new(previous);
            let takeover = machine.begin(&pipe("/bin/sh")).expect("taken");
            machine.check(OURS, true);
            assert_eq!(takeover.end().expect("given back"), Restored::Previous(previous.to_owned()));
            machine.check(previous, false);
            drop(machine.begin(&pipe("/bin/sh")).expect("taken"));
            machine.check(previous, false);
        }
    }

    #[test]
    fn after_a_kill() {
        let machine = Machine::new("core.%p");
        std::mem::forget(machine.begin(&pipe("/bin/sh")).expect("taken"));
        machine.check(OURS, true);
        // The next agent has another path.
        let takeover = machine.begin(&pipe("/bin/cat")).expect("taken");
        assert_eq!(takeover.previous(), "core.%p");
        std::mem::forget(takeover);
        let restored = restore(&machine.pattern, &machine.remembered).expect("given back");
        assert_eq!(restored, Restored::Previous("core.%p".to_owned()));
        machine.check("core.%p", false);
        assert_eq!(restore(&machine.pattern, &machine.remembered).expect("nothing"), Restored::Nothing);
    }

    #[test]
    fn ours_without_a_memory() {
        let machine = Machine::new(OURS);
        drop(machine.begin(&pipe("/bin/sh")).expect("taken"));
        machine.check(KERNEL_DEFAULT, false);
    }

    #[test]
    fn somebody_elses_stays() {
        let machine = Machine::new("core");
        let takeover = machine.begin(&pipe("/bin/sh")).expect("taken");
        fs::write(&machine.pattern, "/var/cores/%p\n").expect("written");
        assert_eq!(takeover.end().expect("left"), Restored::Foreign("/var/cores/%p".to_owned()));
        machine.check("/var/cores/%p", false);
        // After a kill, what somebody else has set since is the previous one.
        std::mem::forget(machine.begin(&pipe("/bin/sh")).expect("taken"));
        fs::write(&machine.pattern, "theirs\n").expect("written");
        assert_eq!(machine.begin(&pipe("/bin/sh")).expect("taken").previous(), "theirs");
    }

    #[test]
    fn a_refusal_changes_nothing() {
        let machine = Machine::new("core");
        let long = format!("/{}", "x".repeat(120));
        for path in ["k", "/a b", "/a/../b", "/%h", long.as_str()] {
            machine.begin(&pipe(path)).expect_err(path);
            machine.check("core", false);
        }
        let error = Takeover::begin(Path::new("/proc/version"), &machine.remembered, &[pipe("/bin/sh")])
            .expect_err("");
        assert!(format!("{error:#}").contains("is unchanged"), "{error:#}");
        assert!(!machine.remembered.exists());
        assert!(Takeover::begin(&machine.pattern, &machine.remembered, &[]).is_err());
        assert!(machine.begin(&Pattern::Socket(PathBuf::from(format!("/{}", "x".repeat(107))))).is_err());
        let nowhere = Path::new("/proc/nowhere");
        assert!(Takeover::begin(&machine.pattern, nowhere, &[pipe("/bin/sh")]).is_err());
        machine.check("core", false);
    }

    #[test]
    fn a_broken_memory_is_not_guessed() {
        let machine = Machine::new("core");
        for text in ["", "core", "core\n", "a\nb\nc\n", &"x".repeat(1000)] {
            fs::write(&machine.remembered, text).expect("written");
            assert!(machine.begin(&pipe("/bin/sh")).is_err(), "{text:?}");
            machine.check("core", true);
        }
    }

    #[test]
    fn the_hosts_executable() {
        let directory = tempfile::tempdir().expect("a directory");
        let ours = directory.path().join("ours");
        fs::write(&ours, "x").expect("written");
        let host = directory.path().join("host");
        let theirs = host.join(ours.strip_prefix("/").expect("absolute"));
        assert!(check_host_has(&host, &ours).is_err());
        fs::create_dir_all(theirs.parent().expect("a parent")).expect("made");
        fs::write(&theirs, "another").expect("written");
        assert!(check_host_has(&host, &ours).is_err());
        fs::remove_file(&theirs).expect("removed");
        fs::hard_link(&ours, &theirs).expect("linked");
        check_host_has(&host, &ours).expect("the same");
        check_host_has(Path::new("/"), &ours).expect("the same");
    }

    #[test]
    fn releases() {
        for (release, expected) in [
            ("6.16.0", true),
            ("6.16-rc1", true),
            ("6.18.44-fc-v657", true),
            ("7.0.1", true),
            ("6.15.9", false),
            ("5.18.0-16", false),
            ("x", false),
            ("", false),
        ] {
            assert_eq!(supports_socket(release), expected, "{release}");
        }
    }
}
