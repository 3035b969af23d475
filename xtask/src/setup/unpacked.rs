//! Servers that the tests start by themselves: Debian packages, unpacked below `target/tools/debian` and not installed.
//!
//! Refuses: installing them. A package of a server starts its service, now and at every boot, and this machine's suite
//! may have no version that speaks what we send. Nothing of the machine is changed: no user, no unit, no library.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::command::{exists, run as run_command};
use crate::vm::apt::{Archive, PrivateApt, Suite};

/// Packages of this machine's own suite, because they need its libraries, and a file that each brings or the machine
/// has. `{}` stands for any version.
const OWN: [(&str, &str); 4] = [
    ("nginx", "usr/sbin/nginx"),
    ("postgresql", "usr/lib/postgresql/{}/bin/postgres"),
    ("redis-server", "usr/bin/redis-server"),
    ("dnsmasq-base", "usr/sbin/dnsmasq"),
];

/// The suite of [`PINNED`]. Its glibc is asked for as 2.34 by these packages, so they run on bookworm too. OTLP came to
/// VictoriaMetrics with 1.92, which bookworm's 1.79 is not.
const SUITE: Suite = Suite { archive: Archive::Main, name: "trixie" };

/// Packages of [`SUITE`].
const PINNED: [&str; 3] = ["prometheus", "promtool", "victoria-metrics"];

/// Programs that get a wrapper in `target/tools/bin`, by what their path ends with.
const PROGRAMS: [&str; 13] = [
    "usr/bin/prometheus",
    "usr/bin/promtool",
    "usr/bin/victoria-metrics",
    "usr/sbin/nginx",
    "usr/bin/redis-server",
    "usr/bin/redis-cli",
    "usr/bin/redis-benchmark",
    "usr/sbin/dnsmasq",
    "bin/initdb",
    "bin/postgres",
    "bin/pgbench",
    "bin/pg_isready",
    "bin/psql",
];

/// Unpacks what is missing into `tools/debian`, with a wrapper for each program in `tools/bin`.
pub fn run(tools: &Path) -> Result<()> {
    let missing: Vec<&str> =
        OWN.iter().filter(|(_, file)| !is_installed(file)).map(|(package, _)| *package).collect();
    let stamp = tools.join("unpacked");
    let wanted =
        format!("{}\n{} of {}\n{}", missing.join(" "), PINNED.join(" "), SUITE.name, PROGRAMS.join(" "));
    if fs::read_to_string(&stamp).is_ok_and(|unpacked| unpacked == wanted) {
        return Ok(());
    }
    let root = tools.join("debian");
    eprintln!("unpacking into {}: {}", root.display(), wanted.replace('\n', " "));
    let archives = tools.join("archives");
    fs::create_dir_all(archives.join("partial"))
        .with_context(|| format!("cannot make {}", archives.display()))?;
    if !missing.is_empty() {
        download_with_libraries(&missing, &archives)?;
    }
    let apt = PrivateApt::open(&tools.join("apt"), &[SUITE])
        .with_context(|| format!("cannot read Debian {}", SUITE.name))?;
    for package in PINNED {
        apt.download(package, &archives)?;
    }
    unpack_all(&archives, &root)?;
    wrap_all(&root, &tools.join("bin"))?;
    // 175 MB that are not needed again.
    fs::remove_dir_all(&archives).with_context(|| format!("cannot remove {}", archives.display()))?;
    fs::write(&stamp, wanted).with_context(|| format!("cannot write {}", stamp.display()))
}

/// Whether the machine itself has a file.
fn is_installed(file: &str) -> bool {
    let Some((before, after)) = file.split_once("{}") else { return Path::new("/").join(file).exists() };
    let versions = fs::read_dir(Path::new("/").join(before));
    versions.is_ok_and(|versions| {
        versions.flatten().any(|version| version.path().join(after.trim_start_matches('/')).exists())
    })
}

/// apt resolves against what is installed, so what comes is exactly what this machine lacks.
fn download_with_libraries(packages: &[&str], archives: &Path) -> Result<()> {
    let mut update = Command::new("apt-get");
    run_command(update.args(["update", "-qq"]))?;
    let mut download = Command::new("apt-get");
    download.args(["install", "-y", "-qq", "--no-install-recommends", "--download-only"]);
    download.arg("-o").arg(format!("Dir::Cache::archives={}", archives.display()));
    run_command(download.args(["-o", "APT::Sandbox::User=root"]).args(packages))
}

fn unpack_all(archives: &Path, root: &Path) -> Result<()> {
    fs::create_dir_all(root).with_context(|| format!("cannot make {}", root.display()))?;
    for entry in fs::read_dir(archives).with_context(|| format!("cannot read {}", archives.display()))? {
        let package = entry?.path();
        if package.extension().is_some_and(|extension| extension == "deb") {
            run_command(Command::new("dpkg-deb").arg("--extract").arg(&package).arg(root))?;
        }
    }
    Ok(())
}

/// A wrapper keeps the process id, and lets libraries that only the tree has be found.
fn wrap_all(root: &Path, bin: &Path) -> Result<()> {
    fs::create_dir_all(bin).with_context(|| format!("cannot make {}", bin.display()))?;
    let libraries = root.join("usr/lib").join(format!("{}-linux-gnu", std::env::consts::ARCH));
    for program in programs(root)? {
        let name = program.file_name().context("a program has a name")?;
        let text = format!(
            "#!/bin/sh\nLD_LIBRARY_PATH='{}' exec '{}' \"$@\"\n",
            libraries.display(),
            program.display()
        );
        let wrapper = bin.join(name);
        fs::write(&wrapper, text).with_context(|| format!("cannot write {}", wrapper.display()))?;
        fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755))?;
    }
    for name in PINNED {
        if !exists(name) && !bin.join(name).exists() {
            bail!("{name} is not in Debian {}'s package of that name any more", SUITE.name);
        }
    }
    Ok(())
}

/// The programs of the tree that the tests start.
fn programs(root: &Path) -> Result<Vec<PathBuf>> {
    let mut directories = vec![root.join("usr/bin"), root.join("usr/sbin")];
    if let Ok(versions) = fs::read_dir(root.join("usr/lib/postgresql")) {
        directories.extend(versions.flatten().map(|version| version.path().join("bin")));
    }
    let mut found = Vec::new();
    for directory in directories.iter().filter(|directory| directory.is_dir()) {
        for entry in
            fs::read_dir(directory).with_context(|| format!("cannot read {}", directory.display()))?
        {
            let path = entry?.path();
            // Debian's `psql` and `pgbench` in `usr/bin` are links to a Perl script that looks for installed clusters;
            // `redis-server` is one to its neighbour, which does what its name says.
            let leads_away = fs::read_link(&path).is_ok_and(|target| target.components().count() > 1);
            if !leads_away && PROGRAMS.iter().any(|program| path.ends_with(program)) {
                found.push(path);
            }
        }
    }
    Ok(found)
}
