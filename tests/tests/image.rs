//! The agent's image, built by buildah from the Dockerfile's last stage and run by containerd.
//!
//! Refuses: registries. The agent in it is the one that the other tests use.

use std::path::Path;
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;
use tests::agent;
use tests::cri::Containerd;
use tests::tools;
use tests::workload::utf8;

/// `NAME` of `xtask/src/image.rs`.
const NAME: &str = concat!("docker.io/library/kansoku:", env!("CARGO_PKG_VERSION"));

#[test]
fn the_image_runs_and_says_what_it_is_made_of() {
    tools::require("buildah", "buildah");
    let directory = TempDir::new().expect("a temporary directory");
    let archive = directory.path().join("kansoku.tar");
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let binary = std::fs::canonicalize(agent::binary()).expect("the agent");
    let build = ["xtask", "image", "--agent", utf8(&binary), "--output", utf8(&archive)];
    let said = tools::succeed(Command::new("cargo").args(build).current_dir(workspace));
    println!("{}", String::from_utf8_lossy(&said.stdout).trim());
    let containerd = Containerd::start(directory.path());
    containerd.import(&archive);
    // Its entry point and its command, as the chart uses them.
    let version = containerd.run(NAME, &["/usr/local/bin/kansoku", "--version"]);
    assert_eq!(version.trim(), format!("kansoku {}", env!("CARGO_PKG_VERSION")));
    let config = containerd.run(NAME, &["/usr/local/bin/kansoku", "config", "print"]);
    assert!(config.contains("kubernetes"), "{config}");
    let sbom = containerd.run(NAME, &["/usr/local/bin/cat", "/usr/share/sbom/kansoku.cdx.json"]);
    let sbom: Value = serde_json::from_str(&sbom).expect("the SBOM is JSON");
    assert_eq!(
        (&sbom["bomFormat"], &sbom["metadata"]["component"]["name"]),
        (&"CycloneDX".into(), &"collector".into())
    );
    let components = sbom["components"].as_array().expect("components");
    let lock = include_str!("../../Cargo.lock");
    for name in ["aya", "kube", "tokio", "blazesym"] {
        let component = components.iter().find(|component| component["name"] == name).expect("a dependency");
        let version = component["version"].as_str().expect("a version");
        assert!(lock.contains(&format!("name = \"{name}\"\nversion = \"{version}\"")), "{name} {version}");
    }
    println!("{} components in the SBOM", components.len());
}
