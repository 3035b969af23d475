//! The bundle of a container: the files by which an agent names it where no runtime answers.
//!
//! Refuses: running anything.

use std::path::{Path, PathBuf};

use crate::tools;

/// What containerd keeps of a running container; gone with its handle.
pub struct Bundle {
    directory: PathBuf,
}

impl Bundle {
    /// Makes it for the container of a namespace's pod.
    pub fn make(container_id: &str, [namespace, pod, container]: [&str; 3]) -> Self {
        let directory = Path::new("/run/containerd/io.containerd.runtime.v2.task/k8s.io").join(container_id);
        std::fs::create_dir_all(&directory).expect("root may");
        let annotations = serde_json::json!({"annotations": {
            "io.kubernetes.cri.container-type": "container",
            "io.kubernetes.cri.container-name": container,
            "io.kubernetes.cri.sandbox-name": pod,
            "io.kubernetes.cri.sandbox-namespace": namespace,
            "io.kubernetes.cri.sandbox-uid": "6b1c7c3e-0000-4000-8000-0000000000aa",
            "io.kubernetes.cri.image-name": "example.org/web:1",
        }});
        tools::write_file(&directory.join("config.json"), annotations.to_string().as_bytes());
        Self { directory }
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        let _gone = std::fs::remove_dir_all(&self.directory);
        // Where containerd runs, they are not empty.
        for parent in
            self.directory.ancestors().skip(1).take_while(|path| path.starts_with("/run/containerd"))
        {
            let _in_use = std::fs::remove_dir(parent);
        }
    }
}
