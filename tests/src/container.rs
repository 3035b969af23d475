//! Real containers, made with runc around one static program.
//!
//! Refuses: images and networks. The container's root holds the program and an empty `/proc`.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use crate::tools;
use crate::workload::{Running, utf8};

/// The cgroup above the container's; runc removes the container's own only.
const PARENT: &str = "kansoku-test-runc";

/// A container; deleted by force when the handle goes.
pub struct Container {
    directory: PathBuf,
    state: String,
    id: String,
    running: Option<Running>,
}

impl Container {
    /// Makes a bundle in a directory. The program is copied to where the first argument says.
    pub fn prepare(directory: &Path, program: &Path, arguments: &[&str], id: &str) -> Self {
        tools::require("runc", "runc");
        let bundle = directory.join("bundle");
        let root = bundle.join("rootfs");
        let inside = root.join(arguments[0].trim_start_matches('/'));
        std::fs::create_dir_all(inside.parent().expect("a program is in a directory")).expect("the root");
        std::fs::create_dir_all(root.join("proc")).expect("the root");
        std::fs::copy(program, inside).expect("the container's program");
        tools::succeed(Command::new("runc").args(["spec", "--bundle", utf8(&bundle)]));
        let path = bundle.join("config.json");
        let text = std::fs::read(&path).expect("runc wrote its config");
        let mut config: serde_json::Value = serde_json::from_slice(&text).expect("runc writes JSON");
        config["process"]["terminal"] = false.into();
        config["process"]["args"] = arguments.into();
        // These machines grant no CAP_SYS_RESOURCE.
        config["process"]["rlimits"] = Vec::<serde_json::Value>::new().into();
        config["linux"]["cgroupsPath"] = format!("/{PARENT}/{id}").into();
        tools::write_file(&path, config.to_string().as_bytes());
        let state = utf8(&directory.join("state")).to_owned();
        Self { directory: directory.to_owned(), state, id: id.to_owned(), running: None }
    }

    /// Starts it and waits until it runs.
    pub fn start(&mut self) {
        self.running = Some(Running::start(&mut self.command()));
        let is_up = || {
            let list = Command::new("runc").args(["--root", &self.state, "state", &self.id]).output();
            list.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains("\"running\""))
        };
        let deadline = Instant::now() + Duration::from_secs(20);
        while !is_up() {
            assert!(Instant::now() < deadline, "the container does not start:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Runs it to its end. Returns how runc ended, which passes on the program's end, and the program's process id.
    pub fn run(&self, time_max: Duration) -> (ExitStatus, u64) {
        let status = Running::start(&mut self.command()).wait(time_max);
        let pid = std::fs::read_to_string(self.pid_file()).ok().and_then(|pid| pid.trim().parse().ok());
        (status, pid.unwrap_or_else(|| panic!("the container did not start ({status}):\n{}", self.log())))
    }

    fn command(&self) -> Command {
        let (bundle, log) = (self.directory.join("bundle"), self.directory.join("runc.log"));
        let mut command = Command::new("runc");
        command.args(["--root", &self.state, "--log", utf8(&log), "run", "--bundle", utf8(&bundle)]);
        command.args(["--pid-file", utf8(&self.pid_file()), &self.id]);
        command
    }

    fn pid_file(&self) -> PathBuf {
        self.directory.join("pid")
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.directory.join("runc.log")).unwrap_or_default()
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        // It is gone already if it ended or failed to start.
        let _gone =
            Command::new("runc").args(["--root", &self.state, "delete", "--force", &self.id]).output();
        let hierarchies = std::fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten();
        for parent in hierarchies.map(|entry| entry.path().join(PARENT)) {
            let _not_there = std::fs::remove_dir(parent);
        }
        let _not_there = std::fs::remove_dir(Path::new("/sys/fs/cgroup").join(PARENT));
    }
}
