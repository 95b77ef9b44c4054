//! nginx as the measure of a good proxy: it passes requests through to the engines and does nothing else.
//!
//! Whatever could cost it more than it must is off: buffering, access logs, the renewal of connections.

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::super::meter::Meter;
use super::process::{Process, command};
use super::{Engine, cannot_write};
use crate::exit::Exit;
use crate::failure::Failure;

/// A running nginx. Requests below `/NAME/` go to the engine of that name.
pub(in super::super) struct Nginx {
    /// Its address.
    pub(in super::super) url: String,
    /// Time from the start to its first answer.
    pub(in super::super) start: Duration,
    process: Process,
}

impl Drop for Nginx {
    fn drop(&mut self) {
        self.process.terminate();
    }
}

impl Nginx {
    /// Starts it with as many workers in front of the engines, ready for as many open streams.
    pub(super) async fn start(
        folder: &Path,
        engines: &[Engine],
        workers: usize,
        streams: u32,
    ) -> Result<Self, Failure> {
        let program = find()?;
        let address = free_port().map_err(|error| Failure::local(format!("cannot find a free port: {error}")))?;
        let config_file = folder.join("nginx.conf");
        let targets: Vec<(&str, String)> =
            engines.iter().map(|engine| (engine.process.name.as_str(), upstream(&engine.url))).collect();
        let root = rustix::process::geteuid().is_root();
        let config = config(&Settings { folder, address, targets: &targets, workers, streams, root });
        std::fs::write(&config_file, config).map_err(|error| cannot_write(&error))?;
        let mut command = command(&program, folder);
        command.arg("-e").arg(folder.join("nginx-error.log")).arg("-p").arg(folder).arg("-c").arg(&config_file);
        let mut process = Process::spawn(command, &folder.join("nginx.log"), "nginx")?;
        process.until(|| answers(address, "/healthz").then_some(())).await?;
        Ok(Self { url: format!("http://{address}"), start: process.age(), process })
    }

    /// The account of master and workers.
    pub(in super::super) fn meter(&self) -> Meter {
        self.process.meter()
    }
}

fn find() -> Result<PathBuf, Failure> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Debian keeps it where only root's PATH leads.
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/usr/local/sbin".into()]);
    folders.map(|folder| folder.join("nginx")).find(|program| program.is_file()).ok_or_else(|| {
        let next = "install it, on Debian with `apt-get install nginx-light`; it need not be running";
        Failure::new(Exit::Usage, "nginx is not to be found", next)
    })
}

fn free_port() -> std::io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}

/// An engine's address as nginx writes it.
fn upstream(url: &str) -> String {
    url.strip_prefix("http://").unwrap_or(url).to_owned()
}

/// Whether `GET path` is answered with 200.
pub(super) fn answers(address: SocketAddr, path: &str) -> bool {
    let mut status = [0; 12];
    let mut ask = || -> std::io::Result<()> {
        let mut connection = TcpStream::connect(address)?;
        connection.set_read_timeout(Some(Duration::from_secs(1)))?;
        connection
            .write_all(format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").as_bytes())?;
        connection.read_exact(&mut status)
    };
    ask().is_ok() && status == *b"HTTP/1.1 200"
}

struct Settings<'a> {
    folder: &'a Path,
    address: SocketAddr,
    targets: &'a [(&'a str, String)],
    workers: usize,
    streams: u32,
    root: bool,
}

fn config(settings: &Settings<'_>) -> String {
    let Settings { folder, address, targets, workers, streams, root } = settings;
    let folder = folder.display();
    let mut text = String::from("daemon off;\n");
    if *root {
        // Else the workers become somebody who may not reach the engines' sockets.
        text.push_str("user root;\n");
    }
    // A stream is two connections, and one worker may have them all.
    let connections = 2 * streams + 512;
    let _ = write!(
        text,
        "worker_processes {workers};\npid {folder}/nginx.pid;\nevents {{ worker_connections {connections}; }}\n\
         http {{\naccess_log off;\nkeepalive_requests 1000000000;\nkeepalive_timeout 3600s;\n"
    );
    for temporary in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"] {
        let _ = writeln!(text, "{temporary}_temp_path {folder}/{temporary};");
    }
    for (name, target) in *targets {
        let _ = writeln!(
            text,
            "upstream {name} {{ server {target}; keepalive {streams}; keepalive_requests 1000000000; keepalive_timeout 3600s; }}"
        );
    }
    let _ = write!(text, "server {{\nlisten {address} backlog=4096;\nlocation = /healthz {{ return 200 \"ok\"; }}\n");
    for (name, _) in *targets {
        let _ = writeln!(
            text,
            "location /{name}/ {{ proxy_pass http://{name}/; proxy_http_version 1.1; proxy_set_header Connection \"\"; \
             proxy_buffering off; proxy_read_timeout 3600s; }}"
        );
    }
    text.push_str("}\n}\n");
    text
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};
    use std::path::Path;

    use super::{Settings, config, upstream};

    #[test]
    fn every_engine_has_its_place_below_its_name() {
        let targets = [("a", upstream("http://127.0.0.1:7")), ("b", upstream("unix:/tmp/b.sock"))];
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 9));
        let folder = Path::new("/tmp/x");
        let settings = Settings { folder, address, targets: &targets, workers: 2, streams: 64, root: false };
        let text = config(&settings);
        for line in [
            "worker_processes 2;",
            "upstream a { server 127.0.0.1:7; keepalive 64;",
            "upstream b { server unix:/tmp/b.sock; keepalive 64;",
            "location /b/ { proxy_pass http://b/;",
            "listen 127.0.0.1:9 ",
            "worker_connections 640;",
        ] {
            assert!(text.contains(line), "{line}: {text}");
        }
        assert!(!text.contains("user root"));
        assert!(config(&Settings { root: true, ..settings }).contains("user root;"));
        assert_eq!(text.matches('{').count(), text.matches('}').count());
    }
}
