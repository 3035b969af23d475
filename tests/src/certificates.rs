//! A certificate authority of a test, and certificates for the loopback with the times that the test wants.
//!
//! Refuses: other names than 127.0.0.1.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::tools;
use crate::workload::utf8;

/// What `openssl ca` is to do.
const CONFIG: &str = "[ca]\ndefault_ca = own\n[own]\nnew_certs_dir = .\ndatabase = index\nserial = serial\n\
    default_md = sha256\npolicy = any\nunique_subject = no\ncopy_extensions = copy\n[any]\ncommonName = supplied\n";

const KEY: [&str; 5] = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];

/// An authority in a directory of its own.
pub struct Authority {
    directory: PathBuf,
}

impl Authority {
    /// Makes it.
    pub fn make(directory: &Path) -> Self {
        let authority = Self { directory: directory.join("authority") };
        std::fs::create_dir(&authority.directory).expect("a new directory");
        for (name, text) in [("config", CONFIG), ("index", ""), ("serial", "01\n")] {
            tools::write_file(&authority.directory.join(name), text.as_bytes());
        }
        let request =
            ["req", "-x509", "-keyout", "ca.key", "-out", "ca.crt", "-days", "2", "-subj", "/CN=ca"];
        authority.openssl(&[&request[..], &KEY].concat());
        authority
    }

    /// Its own certificate.
    pub fn certificate(&self) -> PathBuf {
        self.directory.join("ca.crt")
    }

    /// A server's certificate and key.
    pub fn server_files(&self) -> (PathBuf, PathBuf) {
        (self.directory.join("server.crt"), self.directory.join("server.key"))
    }

    /// Issues the server's certificate anew, good between these times: `YYYYMMDDHHMMSSZ`.
    pub fn issue(&self, start: &str, end: &str) {
        let names = ["-subj", "/CN=server", "-addext", "subjectAltName=IP:127.0.0.1"];
        let request = ["req", "-keyout", "server.key", "-out", "server.csr"];
        self.openssl(&[&request[..], &KEY, &names].concat());
        let issue = ["ca", "-batch", "-notext", "-config", "config", "-cert", "ca.crt", "-keyfile", "ca.key"];
        let times = ["-in", "server.csr", "-out", "server.crt", "-startdate", start, "-enddate", end];
        self.openssl(&[&issue[..], &times].concat());
    }

    fn openssl(&self, arguments: &[&str]) {
        let openssl = tools::require("openssl", "openssl");
        tools::succeed(Command::new(utf8(&openssl)).args(arguments).current_dir(&self.directory));
    }
}
