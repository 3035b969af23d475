//! `kansoku doctor`: every precondition and every hook, tried for real, with what is missing and what to do.
//!
//! Refuses: opinions by kernel version. What counts is what was tried.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use comfy_table::{ContentArrangement, Table, presets};
use rustix::fs::Access;
use serde_json::json;

use super::{ConfigArguments, exit, ledger, output};
use crate::cluster::try_lease;
use crate::config::Config;
use crate::dump::pattern::{CORE_PATTERN, supports_socket};
use crate::dump::service::Way;
use crate::identity::{CriSocket, NameOptions, cri, kubernetes, try_list_peers};
use crate::kernel::{
    Conntrack, Hook, Inbox, Kernel, ProgramTime, SystemCalls, Watched, online_cpus, sample_ring_bytes,
    sideband_ring_bytes,
};
use crate::loss::{Account, Ledger};

/// How long the hooks are tried.
const TRIAL: Duration = Duration::from_secs(1);

/// `PROC_PID_INIT_INO` of `include/linux/proc_ns.h`: the initial PID namespace.
const INITIAL_PID_NAMESPACE: &str = "pid:[4026531836]";

/// Capabilities, their numbers (`include/uapi/linux/capability.h`), and what is missing without them.
const CAPABILITIES: [(&str, u32, &str); 6] = [
    ("CAP_BPF", 39, "no eBPF at all"),
    ("CAP_PERFMON", 38, "no CPU samples, no process events"),
    ("CAP_SYS_PTRACE", 19, "no names for code in other users' processes"),
    ("CAP_DAC_READ_SEARCH", 2, "cgroups are named by /proc only; files of other users cannot be read"),
    ("CAP_CHECKPOINT_RESTORE", 40, "no names for code in deleted files"),
    ("CAP_SYSLOG", 34, "no names for kernel functions"),
];

/// Nodes whose rings are shown beside this machine's.
const CPUS_SHOWN: [usize; 2] = [64, 256];

#[derive(Args)]
pub(super) struct DoctorArguments {
    #[command(flatten)]
    config: ConfigArguments,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// One precondition.
struct Check {
    name: String,
    is_good: bool,
    found: String,
    advice: String,
}

/// What the trial showed.
#[derive(Default)]
struct Trial {
    error: Option<String>,
    hooks: Vec<Hook>,
    accounts: Vec<Account>,
    programs: Vec<ProgramTime>,
    checks: Vec<Check>,
}

pub(super) fn doctor(arguments: &DoctorArguments) -> Result<ExitCode> {
    let config = arguments.config.load(Vec::new())?;
    let frequency_hz = config.kernel.frequency_hz;
    let mut checks = checks(&config);
    let mut trial = trial(&config);
    checks.append(&mut trial.checks);
    let is_complete = trial.error.is_none()
        && trial.hooks.iter().all(|hook| hook.taken().is_some())
        && checks.iter().all(|check| check.is_good);
    let text = if arguments.json {
        serde_json::to_string_pretty(&as_json(&checks, &trial, frequency_hz, is_complete))?
    } else {
        as_text(&checks, &trial, frequency_hz, is_complete)
    };
    output::print(format!("{text}\n").as_bytes())?;
    Ok(if is_complete { ExitCode::SUCCESS } else { ExitCode::from(exit::INCOMPLETE) })
}

fn trial(config: &Config) -> Trial {
    let ledger = Arc::new(Ledger::default());
    let mut kernel = match Kernel::start(&config.kernel, Arc::clone(&ledger)) {
        Ok(kernel) => kernel,
        Err(error) => return Trial { error: Some(format!("{error:#}")), ..Trial::default() },
    };
    kernel.set_statistics(true);
    std::thread::sleep(TRIAL);
    let programs = kernel.program_times();
    let checks = kernel.system_calls().map(|calls| system_calls(config, calls)).into_iter().collect();
    kernel.detach();
    let mut inbox = Inbox::default();
    kernel.drain(&mut inbox);
    kernel.drain_flows(|_| {});
    kernel.update_ledger();
    // The trial shows its records here and keeps nothing.
    for account in ledger.accounts() {
        ledger.represented(account.signal, account.decoded);
        ledger.exported(account.signal, account.decoded);
    }
    Trial { error: None, hooks: kernel.hooks().to_vec(), accounts: ledger.accounts(), programs, checks }
}

/// What a call costs here, and up to which load all are counted.
fn system_calls(config: &Config, SystemCalls { costs, .. }: SystemCalls) -> Check {
    let share = config.kernel.syscalls_share_max;
    let planned_ns = costs.planned_ns(Watched::Everything);
    let limit = match share > 0.0 {
        true => format!("all are up to {:.0} a second and CPU, a part above", share * 1e9 / planned_ns),
        false => "all are".to_owned(),
    };
    let found = format!("one costs {:.0} ns more while it is counted; {limit}", costs.everything_ns);
    check("system calls", true, &found, "")
}

fn checks(config: &Config) -> Vec<Check> {
    let mut checks = vec![kernel_release()];
    checks.extend(capabilities());
    checks.extend([kernel_symbols(), pid_namespace(), cgroups(), spool(config), cores(config)]);
    checks.extend(names(&config.names));
    checks.extend(backends(config));
    checks.extend(cluster(config));
    checks
}

fn kernel_release() -> Check {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut numbers =
        release.split(|character: char| !character.is_ascii_digit()).map(|part| part.parse().unwrap_or(0));
    let version: (u32, u32) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    let advice = "Kansoku is made for kernel 5.10 and newer";
    check("kernel", version >= (5, 10), &format!("{release} {}", std::env::consts::ARCH), advice)
}

/// CAP_SYS_ADMIN stands in for the newer, smaller ones.
fn capabilities() -> Vec<Check> {
    const SYS_ADMIN: u32 = 21;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective.and_then(|digits| u64::from_str_radix(digits.trim(), 16).ok()).unwrap_or(0);
    let has = |bit: u32| effective >> bit & 1 == 1;
    let covered_by_admin = [39, 38, 40, 34];
    let check_one = |(name, bit, missing): (&str, u32, &str)| {
        let is_good = has(bit) || (has(SYS_ADMIN) && covered_by_admin.contains(&bit));
        let found = if is_good { "granted" } else { "missing" };
        check(name, is_good, found, &format!("{missing}; run as root or grant {name}"))
    };
    CAPABILITIES.into_iter().map(check_one).collect()
}

/// The kernel shows zeros as addresses to those who may not see them.
fn kernel_symbols() -> Check {
    let text = std::fs::File::open("/proc/kallsyms").and_then(|file| {
        let mut text = String::new();
        std::io::Read::read_to_string(&mut std::io::Read::take(file, 4_096), &mut text).map(|_| text)
    });
    let text = text.unwrap_or_default();
    let are_shown = text.lines().any(|line| !line.starts_with("0000000000000000") && !line.is_empty());
    let found = if are_shown { "readable" } else { "hidden" };
    check(
        "kernel symbols",
        are_shown,
        found,
        "kernel functions stay numbers; set kernel.kptr_restrict to 0 or 1 and grant CAP_SYSLOG",
    )
}

fn pid_namespace() -> Check {
    let found = std::fs::read_link("/proc/self/ns/pid").map(|path| path.to_string_lossy().into_owned());
    let found = found.unwrap_or_default();
    let advice = "/proc shows other ids than the kernel; run the container with hostPID: true";
    check("PID namespace", found == INITIAL_PID_NAMESPACE, &found, advice)
}

fn cgroups() -> Check {
    let mount = crate::kernel::CgroupMount::find();
    let found =
        mount.as_ref().map_or("v1 only".to_owned(), |mount| format!("v2 at {}", mount.path().display()));
    check(
        "cgroups",
        mount.is_some(),
        &found,
        "containers are named by /proc/PID/cgroup only: short-lived ones may stay unnamed",
    )
}

/// Nothing is made here: the nearest directory that is there must be writable.
fn spool(config: &Config) -> Check {
    let existing = config.crash_spool.ancestors().find(|path| path.exists());
    let is_writable = existing.is_some_and(|path| rustix::fs::access(path, Access::WRITE_OK).is_ok());
    check(
        "crash spool",
        is_writable,
        &config.crash_spool.display().to_string(),
        "crash records are not kept over a restart; set crash.spool to a directory that can be written",
    )
}

/// Who names the pods of containers. What is neither there nor named is no fault: a node may be without Kubernetes.
fn names(options: &NameOptions) -> Vec<Check> {
    let socket = options.cri.find(&crate::identity::roots());
    if socket.is_none() && !options.api.is_there() && !matches!(options.cri, CriSocket::At(_)) {
        return vec![check("Kubernetes", true, "neither a runtime's socket nor an API server here", "")];
    }
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
        return vec![check("Kubernetes", false, "no runtime to ask with", "please report this")];
    };
    let answer = |name: &str, answer: Result<String>, advice: &str| match answer {
        Ok(found) => check(name, true, &found, advice),
        Err(error) => check(name, false, &format!("{error:#}"), advice),
    };
    let by_runtime = runtime.block_on(async {
        let socket = socket.context("there is no socket")?;
        let version = cri::version(&socket).await?;
        anyhow::Ok(format!("{version} at {}", socket.display()))
    });
    let by_server = runtime.block_on(async {
        match kubernetes::config(&options.api).await? {
            None => anyhow::Ok(None),
            Some(config) => Ok(Some(kubernetes::try_list(config, &options.node).await?)),
        }
    });
    let by_peers = options.peers.then(|| {
        runtime.block_on(async {
            let config = kubernetes::config(&options.api).await?;
            try_list_peers(config.context("there is no API server to ask")?).await?;
            anyhow::Ok("pods and services are told".to_owned())
        })
    });
    let pods = |count: Option<usize>| match count {
        None => "not asked: the agent is no pod, and no kubeconfig is named".to_owned(),
        Some(count) => format!("{count} pods on node {}", options.node),
    };
    let mut checks = vec![
        answer(
            "container runtime",
            by_runtime,
            "pods have no restart counts and images; mount the runtime's socket or set kubernetes.cri_socket",
        ),
        answer(
            "API server",
            by_server.map(pods),
            "pods have no workloads by their owners; allow get, list and watch of pods, or set kubernetes.kubeconfig",
        ),
    ];
    let advice =
        "peers on other nodes have no names; allow list and watch of pods and services in all namespaces";
    checks.extend(by_peers.map(|peers| answer("peers", peers, advice)));
    checks
}

/// Whether the node says which pods are behind IPs of Services, where that is wanted.
fn backends(config: &Config) -> Option<Check> {
    let network = config.flows.as_ref()?.node_network.as_ref()?;
    let (is_good, found) = match Conntrack::open(network) {
        Ok(_) => (true, format!("the connection tracking of {} answers", network.display())),
        Err(error) => (false, format!("{error:#}")),
    };
    Some(check(
        "Service IPs",
        is_good,
        &found,
        "pods behind IPs of Services on other nodes have no names; grant CAP_NET_ADMIN, and the node's network (hostNetwork) or \
         CAP_SYS_ADMIN, or set kubernetes.node_network to none",
    ))
}

/// Whether the election works, where there is one.
fn cluster(config: &Config) -> Option<Check> {
    let options = config.cluster.as_ref()?;
    let asked = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let config = kubernetes::config_blocking(&config.names.api)?;
        let config = config.context("the agent is no pod, and no kubeconfig is named")?;
        runtime.block_on(try_lease(config, &options.lease))
    };
    let (is_good, found) = match asked() {
        Ok(holder) if holder.is_empty() => (true, format!("the lease {} is free", options.lease)),
        Ok(holder) => (true, format!("the lease {} is held by {holder}", options.lease)),
        Err(error) => (false, format!("{error:#}")),
    };
    Some(check(
        "election",
        is_good,
        &found,
        "nothing is told of the cluster; allow get, list, watch, create and update of leases in the agent's namespace",
    ))
}

fn cores(config: &Config) -> Check {
    let pattern = std::fs::read_to_string(CORE_PATTERN).unwrap_or_default();
    let way =
        if supports_socket(&rustix::system::uname().release().to_string_lossy()) { "socket" } else { "pipe" };
    let is_wanted = config.dump.way != Way::Off && config.dump.policies.needs_cores();
    let is_good = !is_wanted || rustix::fs::access(CORE_PATTERN, Access::WRITE_OK).is_ok();
    let state = if is_wanted { "dumps wanted" } else { "no dumps wanted" };
    check(
        "core_pattern",
        is_good,
        &format!("{:?}, {way} possible, {state}", pattern.trim()),
        "no minidumps and cores; run privileged, with /proc/sys writable",
    )
}

fn check(name: &str, is_good: bool, found: &str, advice: &str) -> Check {
    Check { name: name.to_owned(), is_good, found: found.to_owned(), advice: advice.to_owned() }
}

/// A table in the style of all tables of this program.
pub(super) fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_HORIZONTAL_ONLY).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(header.to_vec());
    table
}

fn as_text(checks: &[Check], trial: &Trial, frequency_hz: u32, is_complete: bool) -> String {
    let mut preconditions = table(&["precondition", "", "found", "what to do"]);
    for check in checks {
        let (mark, advice) = if check.is_good { ("ok", "") } else { ("MISSING", check.advice.as_str()) };
        preconditions.add_row([check.name.as_str(), mark, check.found.as_str(), advice]);
    }
    let mut text = format!("{preconditions}\n\n");
    if let Some(error) = &trial.error {
        return text + &format!("Nothing can be hooked: {error}");
    }
    let mut hooks = table(&["hook", "", "taken", "tried and refused", "missing without"]);
    for hook in &trial.hooks {
        let mark = match (hook.taken(), hook.is_fallback()) {
            (None, _) => "MISSING",
            (Some(_), true) => "fallback",
            (Some(_), false) => "ok",
        };
        let missing = if hook.taken().is_none() { hook.missing_without } else { "" };
        hooks.add_row([hook.purpose, mark, hook.taken().unwrap_or(""), &refused(hook), missing]);
    }
    text += &format!("{hooks}\n\nTrial of {} s:\n{}\n\n", TRIAL.as_secs(), ledger::text(&trial.accounts));
    let mut programs = table(&["program", "runs", "ns per run"]);
    for program in trial.programs.iter().filter(|program| program.runs > 0) {
        let mean_ns = program.run_time_ns / program.runs;
        programs.add_row([program.name.clone(), program.runs.to_string(), mean_ns.to_string()]);
    }
    text += &format!("Kernel time of the programs in the trial:\n{programs}\n\n");
    let mut ring_table = table(&["CPUs", "sample ring KiB", "process ring KiB", "side-band rings KiB"]);
    for ring in rings(frequency_hz) {
        let kib = |bytes: u64| (bytes / 1024).to_string();
        let bytes = [ring.sample_bytes, ring.process_bytes, ring.sideband_bytes].map(kib);
        ring_table.add_row(std::iter::once(ring.cpus.to_string()).chain(bytes).collect::<Vec<_>>());
    }
    text += &format!(
        "Kernel memory of the rings at {frequency_hz} Hz, here and on larger nodes:\n{ring_table}\n\n"
    );
    text + if is_complete { "Everything works here." } else { "Something is missing: see above." }
}

/// Bytes of the rings on a node with so many CPUs.
struct Rings {
    cpus: usize,
    sample_bytes: u64,
    process_bytes: u64,
    sideband_bytes: u64,
}

/// Rings of this machine, and of larger ones for comparison.
fn rings(frequency_hz: u32) -> Vec<Rings> {
    let own = online_cpus().map_or(1, |cpus| cpus.len());
    let of = |cpus: usize| Rings {
        cpus,
        sample_bytes: u64::from(sample_ring_bytes(cpus, frequency_hz)),
        process_bytes: u64::from(collector_common::limits::PROCESS_RING_BYTES),
        sideband_bytes: (sideband_ring_bytes(cpus) * cpus) as u64,
    };
    std::iter::once(own).chain(CPUS_SHOWN).map(of).collect()
}

fn refused(hook: &Hook) -> String {
    let refused = hook
        .attempts
        .iter()
        .filter_map(|attempt| Some(format!("{}: {}", attempt.way, attempt.error.as_ref()?)));
    refused.collect::<Vec<_>>().join("\n")
}

fn as_json(checks: &[Check], trial: &Trial, frequency_hz: u32, is_complete: bool) -> serde_json::Value {
    let checks = checks.iter().map(|check| {
        let advice = (!check.is_good).then_some(&check.advice);
        json!({"name": check.name, "ok": check.is_good, "found": check.found, "advice": advice})
    });
    let hooks = trial.hooks.iter().map(|hook| {
        let attempts =
            hook.attempts.iter().map(|attempt| json!({"way": attempt.way, "error": attempt.error}));
        json!({
            "purpose": hook.purpose,
            "taken": hook.taken(),
            "fallback": hook.is_fallback(),
            "missing_without": hook.missing_without,
            "attempts": attempts.collect::<Vec<_>>(),
        })
    });
    let accounts = trial.accounts.iter().map(|account| {
        let lost = account.lost.iter().map(|(reason, count)| (reason.name().to_owned(), json!(count)));
        json!({
            "signal": account.signal.name(),
            "seen": account.seen,
            "decoded": account.decoded,
            "lost": lost.collect::<serde_json::Map<_, _>>(),
            "unexplained": account.unexplained(),
        })
    });
    let programs = trial.programs.iter().map(
        |program| json!({"name": program.name, "runs": program.runs, "run_time_ns": program.run_time_ns}),
    );
    let rings = rings(frequency_hz).into_iter().map(|ring| {
        json!({
            "cpus": ring.cpus,
            "sample_bytes": ring.sample_bytes,
            "process_bytes": ring.process_bytes,
            "sideband_bytes": ring.sideband_bytes,
        })
    });
    json!({
        "complete": is_complete,
        "version": crate::export::VERSION,
        "error": trial.error,
        "checks": checks.collect::<Vec<_>>(),
        "hooks": hooks.collect::<Vec<_>>(),
        "ledger": accounts.collect::<Vec<_>>(),
        "rings": rings.collect::<Vec<_>>(),
        "programs": programs.collect::<Vec<_>>(),
    })
}
