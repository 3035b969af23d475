//! What runs: processes by id and start, their names, their code mappings, and whose they are.
//!
//! Events are applied in the order of time; what happened before the agent came is read from `/proc`. A process is
//! kept 5 s past its end, for records that arrive late. Refuses: symbol work, and `/proc` reads without a limit.

mod invoked;
mod maps;
mod module;
mod placements;
mod rootfs;
mod scan;

use std::collections::{HashMap, HashSet, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;

use collector_common::event::Task;
use collector_common::process::ExecRecord;
pub use maps::{CodeMap, Place};
pub use module::{Module, ModuleId, Modules, Witness};
use placements::Placements;
use quick_cache::unsync::Cache;
pub use scan::is_main;

use crate::identity::{Identity, Names, Placement, Subject};
use crate::kernel::{MappingEvent, SidebandEvent};
use crate::loss::{Ledger, LossReason, Signal};
use crate::telemetry::ProcessName;

/// How long the state of an ended process is kept.
const KEEP_ENDED_NS: u64 = 5_000_000_000;

/// Processes in the table. `kernel.pid_max` of a large node is higher, but not what runs on it.
const PROCESSES_MAX: usize = 65_536;

/// Containers whose place of files is remembered.
const CONTAINERS_MAX: usize = 1_024;

/// A process's maps are read again from `/proc` at most this often. The interval doubles with each reading, up to the
/// maximum: code of a runtime has no file, however often the maps are read.
const REFRESH_INTERVAL_NS: u64 = 1_000_000_000;
const REFRESH_INTERVAL_NS_MAX: u64 = 64_000_000_000;

/// Names of ended processes that wait to be taken. More are left out: who wants them finds the process without a name.
const ENDED_NAMES_MAX: usize = 8_192;

/// `/proc` reads for refreshing maps in one turn.
const REFRESHES_PER_TURN_MAX: u32 = 64;

/// Kernel threads have no executable: they share this name.
const KERNEL: &str = "kernel";

/// Nanoseconds of a tick of `starttime` in `/proc/PID/stat` (USER_HZ is 100 on every architecture we run on).
pub const TICK_NS: u64 = 10_000_000;

/// A process.
pub struct Process {
    /// Its id in the initial PID namespace.
    pub tgid: u32,
    /// Its start since boot, in ticks of 10 ms; 0 where the kernel's layout is unknown.
    pub start_ticks: u64,
    /// Its names in telemetry.
    pub name: Arc<ProcessName>,
    /// Its code.
    pub maps: CodeMap,
    /// Whose it is.
    pub subject: Arc<Subject>,
    /// Its arguments, each ended by a zero, as far as they are known.
    pub arguments: Arc<[u8]>,
    /// The name of its main thread at its exec, or when it was met.
    comm: Box<str>,
    /// Where the files of its container lie on the host.
    pub root: Arc<[PathBuf]>,
    cgroup_id: u64,
    /// Whether it is the first process of a PID namespace other than the initial one: a container's main process.
    is_main: bool,
    ended: bool,
    refresh_due_ns: u64,
    refresh_interval_ns: u64,
}

/// All processes.
pub struct ProcessTable {
    processes: HashMap<u32, Process>,
    ended: VecDeque<(u64, u32, u64)>,
    modules: Modules,
    identity: Identity,
    roots: Cache<String, Arc<[PathBuf]>>,
    placements: Placements,
    ended_names: Option<Vec<EndedName>>,
    refreshes_left: u32,
    has_sideband: bool,
    ledger: Arc<Ledger>,
}

/// The id and the name of a process that ended.
pub type EndedName = (u32, Arc<str>);

impl ProcessTable {
    /// An empty table. `has_sideband` says whether mappings are told as they are made; `names` finds the pods of containers.
    pub fn new(has_sideband: bool, names: Names, ledger: Arc<Ledger>) -> Self {
        Self {
            processes: HashMap::new(),
            ended: VecDeque::new(),
            modules: Modules::default(),
            identity: Identity::new(names),
            roots: Cache::new(CONTAINERS_MAX),
            placements: Placements::default(),
            ended_names: None,
            refreshes_left: REFRESHES_PER_TURN_MAX,
            has_sideband,
            ledger,
        }
    }

    /// Starts a turn: forgets processes that ended long ago, and allows new `/proc` reads.
    pub fn start_turn(&mut self, now_ns: u64) {
        self.refreshes_left = REFRESHES_PER_TURN_MAX;
        while let Some(&(ended_ns, tgid, start_ticks)) = self.ended.front()
            && ended_ns + KEEP_ENDED_NS <= now_ns
        {
            self.ended.pop_front();
            if self
                .processes
                .get(&tgid)
                .is_some_and(|process| process.ended && process.start_ticks == start_ticks)
            {
                self.processes.remove(&tgid);
            }
        }
        self.modules.sweep();
    }

    /// Marks processes as ended that run no more: their exit was lost, or cannot be seen here.
    pub fn reap(&mut self, now_ns: u64) {
        let running: HashSet<u32> = scan::running().into_iter().collect();
        for process in
            self.processes.values_mut().filter(|process| !process.ended && !running.contains(&process.tgid))
        {
            process.ended = true;
            self.ended.push_back((now_ns, process.tgid, process.start_ticks));
        }
    }

    /// Processes in the table, those that ended a moment ago included.
    pub fn len(&self) -> usize {
        self.processes.len()
    }

    /// Whether the table is empty.
    pub fn is_empty(&self) -> bool {
        self.processes.is_empty()
    }

    /// The process of a task, made from `/proc` and the record itself if it is not known; `None` if the table is full.
    pub fn of_task(&mut self, task: &Task) -> Option<&mut Process> {
        let start_ticks = task.start_ns / TICK_NS;
        let is_known = self.processes.get(&task.tgid).is_some_and(|known| known.is_same(start_ticks));
        if !is_known && !self.insert_from_proc(task, start_ticks) {
            return None;
        }
        let process = self.processes.get_mut(&task.tgid)?;
        if process.cgroup_id != task.cgroup_id {
            process.cgroup_id = task.cgroup_id;
            self.set_subject(task.tgid);
        }
        self.processes.get_mut(&task.tgid)
    }

    /// Which subjects were met in which cgroups since the last call.
    pub fn take_placements(&mut self) -> Vec<Placement> {
        self.placements.take()
    }

    /// Gives placements back that could not be delivered.
    pub fn give_back_placements(&mut self, placements: Vec<Placement>) {
        self.placements.give_back(placements);
    }

    /// Keeps the names of processes that end from now on, for [`ProcessTable::take_ended_names`].
    pub fn keep_ended_names(&mut self) {
        self.ended_names = Some(Vec::new());
    }

    /// The names of the processes that ended since the last call.
    pub fn take_ended_names(&mut self) -> Vec<EndedName> {
        self.ended_names.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// A process by its id, if it is known.
    pub fn get(&self, tgid: u32) -> Option<&Process> {
        self.processes.get(&tgid)
    }

    /// Whose a cgroup is, where that is a container's or a service's.
    pub fn subject_of_cgroup(&self, cgroup_id: u64) -> Option<Arc<Subject>> {
        self.placements.subject(cgroup_id).map(Arc::clone)
    }

    /// A process runs a new program. Its mappings came before, with the side-band; without one they are read from
    /// `/proc` when a sample needs them.
    pub fn on_exec(&mut self, record: &ExecRecord) {
        let task = &record.task;
        if !self.has_sideband {
            self.forget_image(task.tgid);
        }
        let Some(process) = self.of_task(task) else { return self.count(false) };
        if process.name.executable_path.is_none() {
            process.name = process_name(task.tgid, comm(task), None);
        }
        process.arguments = arguments(record);
        process.comm = comm(task).into();
        process.is_main = record.namespace_pid == 1 && record.namespace_level > 0;
        // A runtime joins the container's cgroup before it executes the container's program.
        self.set_subject(task.tgid);
        self.set_root(task.tgid);
        self.count(true);
    }

    /// What the side-band tells: a process dropped its image, or mapped code.
    pub fn on_sideband(&mut self, event: &SidebandEvent) {
        self.ledger.represented(Signal::Mapping, 1);
        match event {
            SidebandEvent::NewImage { tgid, .. } => self.forget_image(*tgid),
            SidebandEvent::Mapping(mapping) => self.on_mapping(mapping),
        }
    }

    /// A process made a child: it starts with its parent's code and name.
    pub fn on_fork(&mut self, parent: &Task, child_tgid: u32, child_start_ns: u64) {
        let Some(parent_process) = self.of_task(parent) else { return self.count(false) };
        let child = Process {
            tgid: child_tgid,
            start_ticks: child_start_ns / TICK_NS,
            name: Arc::new(ProcessName { pid: child_tgid, ..(*parent_process.name).clone() }),
            maps: parent_process.maps.clone(),
            subject: Arc::clone(&parent_process.subject),
            arguments: Arc::clone(&parent_process.arguments),
            comm: parent_process.comm.clone(),
            root: Arc::clone(&parent_process.root),
            cgroup_id: parent_process.cgroup_id,
            is_main: false,
            ended: false,
            refresh_due_ns: 0,
            refresh_interval_ns: REFRESH_INTERVAL_NS,
        };
        let has_room = self.processes.len() < PROCESSES_MAX || self.processes.contains_key(&child_tgid);
        if has_room {
            self.processes.insert(child_tgid, child);
        }
        self.count(has_room);
    }

    /// The last thread of a process ended.
    pub fn on_exit(&mut self, task: &Task, time_ns: u64) {
        let start_ticks = task.start_ns / TICK_NS;
        if let Some(process) = self.processes.get_mut(&task.tgid).filter(|known| known.is_same(start_ticks)) {
            process.ended = true;
            self.ended.push_back((time_ns, task.tgid, process.start_ticks));
            if let Some(names) = self.ended_names.as_mut().filter(|names| names.len() < ENDED_NAMES_MAX) {
                names.push((task.tgid, Arc::clone(&process.name.executable_name)));
            }
        }
        self.count(true);
    }

    /// The main thread of a process got a new name. It names the process only where no executable does.
    pub fn on_comm(&mut self, task: &Task) {
        if let Some(process) =
            self.processes.get_mut(&task.tgid).filter(|known| known.name.executable_path.is_none())
        {
            process.name = process_name(task.tgid, comm(task), None);
        }
        self.count(true);
    }

    /// Reads a process's code anew from `/proc`, because an address in it is unknown. Limited per process and turn;
    /// returns whether it was read.
    pub fn refresh(&mut self, tgid: u32, now_ns: u64) -> bool {
        let Some(process) = self.processes.get_mut(&tgid) else { return false };
        if process.ended || process.refresh_due_ns > now_ns || self.refreshes_left == 0 {
            return false;
        }
        self.refreshes_left -= 1;
        process.refresh_due_ns = now_ns + process.refresh_interval_ns;
        process.refresh_interval_ns = (process.refresh_interval_ns * 2).min(REFRESH_INTERVAL_NS_MAX);
        match scan::code_map(tgid, &mut self.modules) {
            Some(maps) => process.maps.replace(maps),
            None => return false,
        }
        if process.name.executable_path.is_none()
            && let Some(path) = scan::executable(tgid)
        {
            self.set_executable(tgid, &path);
        }
        true
    }

    /// Reads the processes that run already, so that their first samples find them even if they end at once.
    pub fn backfill(&mut self) {
        for tgid in scan::running() {
            if self.processes.contains_key(&tgid) {
                continue;
            }
            if let Some((mut task, start_ticks)) = scan::task(tgid) {
                task.cgroup_id = self.identity.cgroup_id_of(tgid);
                self.insert_from_proc(&task, start_ticks);
            }
        }
    }

    /// A process that is not known yet is read from `/proc` at its first sample, with this mapping in it.
    fn on_mapping(&mut self, event: &MappingEvent) {
        let Some(process) = self.processes.get_mut(&event.tgid) else { return };
        let witness =
            Witness { tgid: event.tgid, start: event.start, end: event.start.saturating_add(event.length) };
        let place = self.modules.place(&event.path, event.file, event.file_offset, witness);
        // The kernel maps the executable before its interpreter and libraries: fs/binfmt_elf.c.
        let is_first = process.maps.is_empty() && process.name.executable_path.is_none();
        let is_executable = is_first && matches!(place, Place::File { .. });
        process.maps.insert(event.start, witness.end, place);
        if is_executable {
            self.set_executable(event.tgid, &event.path);
        }
    }

    /// The executable names a process, and the service where nothing else does.
    fn set_executable(&mut self, tgid: u32, path: &str) {
        let Some(process) = self.processes.get_mut(&tgid) else { return };
        process.name = process_name(tgid, &process.name.executable_name, Some(path));
        self.set_subject(tgid);
    }

    fn set_subject(&mut self, tgid: u32) {
        let Some(process) = self.processes.get_mut(&tgid) else { return };
        let cgroup = self.identity.cgroup(process.cgroup_id, tgid);
        let name = invoked::name(&process.name.executable_name, &process.comm, &process.arguments);
        process.subject = self.identity.subject(&cgroup, tgid, name, process.is_main);
        if self.identity.owns(process.cgroup_id) {
            self.placements.met(process.cgroup_id, &process.subject);
        }
    }

    /// Reads where a container's files are, once per container: `/proc` tells only while it runs.
    fn set_root(&mut self, tgid: u32) {
        let Some(process) = self.processes.get_mut(&tgid) else { return };
        let Some(container) = &process.subject.container else { return };
        if let Some(known) = self.roots.get(&container.id) {
            process.root = Arc::clone(known);
            return;
        }
        let directories: Arc<[PathBuf]> = rootfs::host_directories(tgid).into();
        // A process that is gone is not an answer for its container.
        if !directories.is_empty() {
            self.roots.insert(container.id.clone(), Arc::clone(&directories));
        }
        process.root = directories;
    }

    fn forget_image(&mut self, tgid: u32) {
        if let Some(process) = self.processes.get_mut(&tgid) {
            process.maps.replace(CodeMap::default());
            process.name = process_name(tgid, &process.name.executable_name, None);
        }
    }

    fn insert_from_proc(&mut self, task: &Task, start_ticks: u64) -> bool {
        // What `/proc` says belongs to the task only if it is the same process still.
        let found = scan::task(task.tgid)
            .filter(|(_, found_ticks)| start_ticks == 0 || found_ticks.abs_diff(start_ticks) <= 1);
        let is_same = found.is_some();
        let maps =
            is_same.then(|| scan::code_map(task.tgid, &mut self.modules)).flatten().unwrap_or_default();
        let executable = is_same.then(|| scan::executable(task.tgid)).flatten();
        let arguments = is_same.then(|| scan::arguments(task.tgid)).flatten().unwrap_or_default();
        let main = found.map_or(*task, |(main, _)| main);
        self.insert(task, start_ticks, maps, executable.as_deref(), (arguments, comm(&main)))
    }

    fn insert(
        &mut self,
        task: &Task,
        start_ticks: u64,
        maps: CodeMap,
        executable: Option<&str>,
        (arguments, main_comm): (Arc<[u8]>, &str),
    ) -> bool {
        if self.processes.len() >= PROCESSES_MAX && !self.processes.contains_key(&task.tgid) {
            return false;
        }
        let fallback = if scan::is_kernel_thread(task.tgid) { KERNEL } else { comm(task) };
        let name = process_name(task.tgid, fallback, executable);
        let cgroup = self.identity.cgroup(task.cgroup_id, task.tgid);
        let is_main = scan::is_main(task.tgid);
        let service = invoked::name(&name.executable_name, main_comm, &arguments);
        let subject = self.identity.subject(&cgroup, task.tgid, service, is_main);
        if self.identity.owns(task.cgroup_id) {
            self.placements.met(task.cgroup_id, &subject);
        }
        let process = Process {
            tgid: task.tgid,
            start_ticks,
            name,
            maps,
            subject,
            arguments,
            comm: main_comm.into(),
            root: Arc::default(),
            cgroup_id: task.cgroup_id,
            is_main,
            ended: false,
            refresh_due_ns: 0,
            refresh_interval_ns: REFRESH_INTERVAL_NS,
        };
        self.processes.insert(task.tgid, process);
        self.set_root(task.tgid);
        true
    }

    fn count(&self, is_represented: bool) {
        if is_represented {
            self.ledger.represented(Signal::Process, 1);
        } else {
            self.ledger.lost(Signal::Process, LossReason::ProcessTableFull, 1);
        }
    }
}

impl Process {
    /// The id of its cgroup, as its last record said; 0 before the first.
    pub fn cgroup_id(&self) -> u64 {
        self.cgroup_id
    }

    /// Ticks are compared with a tolerance of one: the kernel rounds where `/proc` does.
    fn is_same(&self, start_ticks: u64) -> bool {
        start_ticks == 0 || self.start_ticks == 0 || self.start_ticks.abs_diff(start_ticks) <= 1
    }
}

/// The arguments that came with an exec; those that were too long for the record are read from `/proc`.
fn arguments(record: &ExecRecord) -> Arc<[u8]> {
    let bytes = record.argument_bytes as usize;
    match record.arguments.get(..bytes) {
        Some(whole) => whole.into(),
        // A process that has ended meanwhile has none in `/proc`, and its id may be another's.
        None => scan::arguments(record.task.tgid)
            .filter(|whole| whole.starts_with(&record.arguments))
            .unwrap_or_else(|| record.arguments.as_slice().into()),
    }
}

/// File name of the executable of a process that runs.
pub fn executable_name(tgid: u32) -> Option<String> {
    let path = scan::executable(tgid)?;
    let path = path.strip_suffix(" (deleted)").unwrap_or(&path);
    path.rsplit('/').next().map(str::to_owned)
}

fn process_name(tgid: u32, comm: &str, executable: Option<&str>) -> Arc<ProcessName> {
    let path = executable.map(|path| path.strip_suffix(" (deleted)").unwrap_or(path));
    let file_name = path.and_then(|path| path.rsplit('/').next()).filter(|name| !name.is_empty());
    Arc::new(ProcessName {
        pid: tgid,
        executable_name: file_name.unwrap_or(comm).into(),
        executable_path: path.map(Into::into),
    })
}

/// The name of a task's thread; what is not UTF-8 is cut off.
pub fn comm(task: &Task) -> &str {
    let bytes = task.comm.split(|&byte| byte == 0).next().unwrap_or_default();
    match std::str::from_utf8(bytes) {
        Ok(name) => name,
        Err(error) => std::str::from_utf8(&bytes[..error.valid_up_to()]).unwrap_or_default(),
    }
}
