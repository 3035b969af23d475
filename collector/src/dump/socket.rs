//! The socket that the kernel connects to for every core (Linux 6.16), and the threads that take them.
//!
//! One thread accepts, decides and lets go at once whom nobody wants a dump of; [`CONCURRENT_MAX`] others take cores.
//! Refuses: connections of programs, which could fill the disk, and more than [`WAITING_MAX`] processes that wait.

use std::fs::{self, DirBuilder, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{DumpableBehavior, dumpable_behavior, set_dumpable_behavior};

use crate::dump::{DumpKind, DumpOptions, Dying, Store, take};
use crate::kernel::{Peer, peer_of};

/// Cores that are taken at once.
pub const CONCURRENT_MAX: usize = 2;

/// Processes that wait for their core to be taken. More are let go without a dump.
pub const WAITING_MAX: usize = 8;

/// After an error of accept(2), such as too many open files.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// What to keep of a process (tgid) in this cgroup. Called on the thread that accepts: it has to be quick.
pub type Decide = Box<dyn Fn(u32, Option<u64>) -> DumpKind + Send>;

/// What became of the connections, each of which counts once.
#[derive(Debug, Default)]
pub struct Outcomes {
    /// Dumps that are whole.
    pub written: AtomicU64,
    /// Dumps that are kept without their end.
    pub truncated: AtomicU64,
    /// Processes that shall have none.
    pub refused_by_policy: AtomicU64,
    /// Processes that were let go because too many waited.
    pub busy: AtomicU64,
    /// Dumps that could not be taken.
    pub failed: AtomicU64,
    /// Connections that were not the kernel's.
    pub foreign: AtomicU64,
}

/// The running server.
pub struct Server {
    path: PathBuf,
    listener: UnixListener,
    stopping: Arc<AtomicBool>,
    outcomes: Arc<Outcomes>,
    threads: Vec<JoinHandle<()>>,
    dumpable: DumpableBehavior,
}

/// A core that waits to be taken.
struct Job {
    connection: UnixStream,
    process: Dying,
    kind: DumpKind,
}

impl Server {
    /// Binds the socket and starts the threads. `core_pattern` is set after this, and given back before [`Self::stop`].
    pub fn start(path: &Path, decide: Decide, options: DumpOptions, store: &Store) -> Result<Self> {
        let path = prepare(path)?;
        let shown = path.display();
        let listener = UnixListener::bind(&path).with_context(|| format!("can't listen on {shown}"))?;
        fs::set_permissions(&path, Permissions::from_mode(0o600))
            .with_context(|| format!("can't protect {shown} from other users"))?;
        // The kernel would write our own core into our own socket, which nobody would read any more: we would hang
        // instead of dying. It leaves this to us: fs/coredump.c.
        let dumpable = dumpable_behavior().context("can't ask whether the agent may be dumped")?;
        set_dumpable_behavior(DumpableBehavior::NotDumpable)
            .context("can't exempt the agent from core dumps")?;

        let stopping = Arc::clone(&options.stopping);
        let mut server =
            Self { path, listener, stopping, outcomes: Arc::default(), threads: Vec::new(), dumpable };
        let (sender, receiver) = sync_channel(WAITING_MAX);
        let receiver = Arc::new(Mutex::new(receiver));
        for _ in 0..CONCURRENT_MAX {
            let (receiver, outcomes) = (Arc::clone(&receiver), Arc::clone(&server.outcomes));
            let (options, store) = (options.clone(), store.clone());
            server.spawn("core-take", move || take_cores(&receiver, &options, store, &outcomes))?;
        }
        let listener = server.listener.try_clone().context("can't share the socket with its thread")?;
        let (stopping, outcomes) = (Arc::clone(&server.stopping), Arc::clone(&server.outcomes));
        server.spawn("core-accept", move || accept(&listener, &sender, &decide, &stopping, &outcomes))?;
        Ok(server)
    }

    /// The path that the kernel has to be told: without symbolic links, which it refuses.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The counters.
    pub fn outcomes(&self) -> Arc<Outcomes> {
        Arc::clone(&self.outcomes)
    }

    /// Ends dumps where they are, joins the threads and removes the socket.
    pub fn stop(self) {}

    fn spawn(&mut self, name: &str, body: impl FnOnce() + Send + 'static) -> Result<()> {
        let builder = std::thread::Builder::new().name(name.to_owned());
        self.threads.push(builder.spawn(body).with_context(|| format!("can't start the thread {name}"))?);
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Relaxed);
        // Wakes accept(2), which then fails.
        if let Err(error) = rustix::net::shutdown(&self.listener, rustix::net::Shutdown::Both) {
            tracing::warn!("the socket for cores can't be shut down: {error}");
        }
        for thread in self.threads.drain(..) {
            let name = thread.thread().name().unwrap_or_default().to_owned();
            if thread.join().is_err() {
                tracing::error!("the thread {name} has panicked");
            }
        }
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!("can't remove {}: {error}", self.path.display());
        }
        if let Err(error) = set_dumpable_behavior(self.dumpable) {
            tracing::warn!("the agent stays exempt from core dumps: {error}");
        }
    }
}

/// Makes the directory private, removes a dead agent's socket, and resolves symbolic links.
fn prepare(path: &Path) -> Result<PathBuf> {
    let shown = path.display();
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
        bail!("{shown} is no path of a socket; choose one like /run/kansoku/core.sock");
    };
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .and_then(|()| fs::set_permissions(directory, Permissions::from_mode(0o700)))
        .with_context(|| {
            format!("can't make the private directory of {shown}; choose one that is only the agent's")
        })?;
    let path = fs::canonicalize(directory).with_context(|| format!("can't resolve {shown}"))?.join(name);
    let shown = path.display();
    match fs::symlink_metadata(&path) {
        Ok(metadata) if !metadata.file_type().is_socket() => {
            bail!("{shown} is not a socket; remove it or choose another path")
        }
        Ok(_) if UnixStream::connect(&path).is_ok() => {
            bail!("another agent listens on {shown}; stop it or choose another path")
        }
        Ok(_) => fs::remove_file(&path).with_context(|| format!("can't remove the dead socket {shown}"))?,
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(|| format!("can't look at {shown}")),
    }
    Ok(path)
}

fn accept(
    listener: &UnixListener,
    sender: &SyncSender<Job>,
    decide: &Decide,
    stopping: &AtomicBool,
    outcomes: &Outcomes,
) {
    while !stopping.load(Ordering::Relaxed) {
        let connection = match listener.accept() {
            Ok((connection, _)) => connection,
            Err(_) if stopping.load(Ordering::Relaxed) => return,
            Err(error) => {
                tracing::warn!("can't accept a core: {error}");
                std::thread::sleep(ACCEPT_RETRY);
                continue;
            }
        };
        // A bug of whoever decides must not end all dumps.
        let counter = match catch_unwind(AssertUnwindSafe(|| sort(connection, sender, decide, outcomes))) {
            Ok(Ok(counter)) => counter,
            Ok(Err(error)) => {
                tracing::warn!("a core is not taken: {error:#}");
                Some(&outcomes.failed)
            }
            Err(_) => Some(&outcomes.failed),
        };
        if let Some(counter) = counter {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Hands a connection on, or drops it, which lets the process go; then with the counter that says why.
fn sort<'a>(
    connection: UnixStream,
    sender: &SyncSender<Job>,
    decide: &Decide,
    outcomes: &'a Outcomes,
) -> Result<Option<&'a AtomicU64>> {
    let Peer { pid, cgroup_id, signal, is_dumping, is_gone } = peer_of(&connection)?;
    if !is_dumping {
        tracing::warn!("process {pid} connected to the socket for cores, which is for the kernel only");
        return Ok(Some(&outcomes.foreign));
    }
    let process = if is_gone { Dying::gone(pid) } else { Dying::now(pid) };
    let kind = decide(pid, cgroup_id);
    tracing::debug!(
        pid,
        cgroup_id,
        signal,
        ?kind,
        start_ticks = process.start_ticks,
        "a process dumps its core"
    );
    if !kind.needs_core() {
        return Ok(Some(&outcomes.refused_by_policy));
    }
    match sender.try_send(Job { connection, process, kind }) {
        Ok(()) => Ok(None),
        Err(TrySendError::Full(_)) => {
            tracing::warn!("no dump of process {pid}: {WAITING_MAX} others wait already");
            Ok(Some(&outcomes.busy))
        }
        Err(TrySendError::Disconnected(_)) => bail!("the threads that take cores have ended"),
    }
}

fn take_cores(receiver: &Mutex<Receiver<Job>>, options: &DumpOptions, mut store: Store, outcomes: &Outcomes) {
    loop {
        let job = receiver.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(Job { connection, process, kind }) = job else { return };
        let taken = catch_unwind(AssertUnwindSafe(|| take(connection, process, kind, options, &mut store)));
        let counter = match taken {
            Ok(Ok(Some(file))) => {
                tracing::info!(pid = process.pid, path = file.path, bytes = file.bytes, "core dump kept");
                if file.is_truncated { &outcomes.truncated } else { &outcomes.written }
            }
            Ok(Ok(None)) => &outcomes.refused_by_policy,
            Ok(Err(error)) => {
                tracing::warn!("{error:#}");
                &outcomes.failed
            }
            Err(_) => &outcomes.failed,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;
    use crate::dump::StoreLimits;

    fn start(directory: &Path) -> Result<Server> {
        let store = Store::open(StoreLimits {
            directory: directory.join("dumps"),
            bytes_max: 8 << 20,
            files_max: 4,
            file_bytes_max: 4 << 20,
        })?;
        let decide: Decide = Box::new(|_, _| DumpKind::Core);
        Server::start(&directory.join("run/core.sock"), decide, DumpOptions::default(), &store)
    }

    #[test]
    fn programs_are_refused_and_stop_ends_it() {
        let directory = tempfile::tempdir().expect("a directory");
        let server = start(directory.path()).expect("started");
        let outcomes = server.outcomes();
        let mode = fs::metadata(directory.path().join("run")).expect("made").permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        let mut client = UnixStream::connect(server.path()).expect("connected");
        assert_eq!(client.read(&mut [0]).expect("closed"), 0);
        assert!(start(directory.path()).is_err_and(|error| error.to_string().contains("another agent")));
        let path = server.path().to_owned();
        server.stop();
        assert!(!path.exists());
        assert!(outcomes.foreign.load(Ordering::Relaxed) >= 1);
        // What a killed agent leaves.
        drop(UnixListener::bind(&path).expect("bound"));
        start(directory.path()).expect("started").stop();
        fs::write(&path, "").expect("written");
        assert!(start(directory.path()).is_err_and(|error| error.to_string().contains("not a socket")));
    }
}
