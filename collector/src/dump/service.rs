//! Dumps while the agent runs: who gets one, the socket, and `core_pattern` for as long as the agent lives.
//!
//! Nothing is touched unless the user asked for it, and what was there before comes back at the stop. Refuses: deciding
//! without a name; a process that cannot be attributed gets what the default says.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::pattern::{CORE_PATTERN, Pattern, Takeover};
use super::socket::{Outcomes, Server};
use super::{DumpKind, DumpOptions, Policies, Store, StoreLimits};
use crate::clock::monotonic_ns;
use crate::identity::{Identity, Names, Subject};
use crate::process::{executable_name, is_main};

/// How long a dying process is held until its pod is known, and how often that is looked at.
const NAME_MAX: Duration = Duration::from_secs(1);
const NAME_STEP: Duration = Duration::from_millis(5);

/// How `core_pattern` is taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Not at all.
    Off,
    /// The socket where the kernel has one (6.16), else the pipe.
    Auto,
    /// The socket only.
    Socket,
    /// The pipe only.
    Pipe,
}

/// What is configured.
#[derive(Clone, Debug)]
pub struct DumpConfig {
    /// How `core_pattern` is taken over.
    pub way: Way,
    /// Who gets which dump.
    pub policies: Policies,
    /// Where dumps lie.
    pub store: StoreLimits,
    /// The socket.
    pub socket: PathBuf,
    /// How dumps are taken.
    pub options: DumpOptions,
    /// The same as text, for a program that the kernel starts without an environment.
    pub text: String,
}

/// Dumps that are being taken.
pub struct DumpService {
    server: Option<Server>,
    takeover: Takeover,
    store: Store,
}

impl DumpService {
    /// Takes `core_pattern` over, if it is asked for and any process may get a dump.
    ///
    /// # Errors
    ///
    /// If the kernel takes none of the patterns, or the directory cannot be made: the error says what to do.
    pub fn start(config: &DumpConfig, names: Names) -> Result<Option<Self>> {
        if config.way == Way::Off || !config.policies.needs_cores() {
            return Ok(None);
        }
        let store = Store::open(config.store.clone())?;
        let executable = std::env::current_exe().context("cannot tell where this program is")?;
        let server = match config.way {
            Way::Pipe => None,
            _ => {
                let decide = Box::new(decider(config.policies.clone(), names));
                Some(Server::start(&config.socket, decide, config.options.clone(), &store)?)
            }
        };
        let socket = server.as_ref().map(|server| Pattern::Socket(server.path().to_owned()));
        let configuration = config.store.directory.join("handler.yaml");
        std::fs::write(&configuration, &config.text)
            .with_context(|| format!("cannot write {}", configuration.display()))?;
        let pipe = (config.way != Way::Socket).then_some(Pattern::Pipe(executable, configuration));
        let candidates: Vec<Pattern> = socket.into_iter().chain(pipe).collect();
        let takeover = Takeover::begin(Path::new(CORE_PATTERN), &remembered(config), &candidates)?;
        let is_socket = matches!(takeover.pattern(), Pattern::Socket(_));
        let server = server.filter(|_| is_socket);
        Ok(Some(Self { server, takeover, store }))
    }

    /// How the kernel reaches us.
    pub fn pattern(&self) -> &Pattern {
        self.takeover.pattern()
    }

    /// What became of dumps, if they come over the socket.
    pub fn outcomes(&self) -> Option<Arc<Outcomes>> {
        self.server.as_ref().map(Server::outcomes)
    }

    /// Where the dumps lie.
    pub fn store(&self) -> Store {
        self.store.clone()
    }

    /// Gives `core_pattern` back, then ends the socket.
    pub fn stop(self) {
        if let Err(error) = self.takeover.end() {
            tracing::warn!(error = format!("{error:#}"), "core_pattern could not be given back");
        }
        if let Some(server) = self.server {
            server.stop();
        }
    }
}

/// Where the previous `core_pattern` is remembered.
pub fn remembered(config: &DumpConfig) -> PathBuf {
    config.store.directory.join("core_pattern.previous")
}

/// Decides by whose a process is. The kernel holds it meanwhile, so its pod can be waited for a little.
pub fn decider(policies: Policies, names: Names) -> impl Fn(u32, Option<u64>) -> DumpKind + Send {
    let identity = RefCell::new(Identity::new(names));
    move |pid, cgroup_id| {
        let mut identity = identity.borrow_mut();
        let cgroup = identity.cgroup(cgroup_id.unwrap_or(0), pid);
        let executable = executable_name(pid).unwrap_or_default();
        let subject = identity.subject(&cgroup, pid, &executable, is_main(pid));
        let deadline = Instant::now() + NAME_MAX;
        while subject.pod.is_awaited(monotonic_ns()) && Instant::now() < deadline {
            std::thread::sleep(NAME_STEP);
        }
        decide(&policies, &subject)
    }
}

/// What a subject gets.
pub fn decide(policies: &Policies, subject: &Subject) -> DumpKind {
    let attributes = subject.attributes();
    let attribute = |name: &str| {
        let found = attributes.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.clone())
    };
    policies.decide(&attribute, subject.pod().and_then(|pod| pod.dump.as_deref()))
}

/// How long the reporter waits for a dump whose process has ended: its file gets its name just after that.
pub const RENAME_MAX: Duration = Duration::from_millis(500);
