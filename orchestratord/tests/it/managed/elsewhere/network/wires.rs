//! Network namespaces as hosts, with links that can be cut.

use std::process::Command;

/// Hosts on one switch, in namespaces of their own, as long as this lives. The test itself is on the switch, too.
pub(super) struct Wires {
    /// Begins the names of all of it.
    tag: String,
    /// The first three numbers of all addresses.
    net: String,
    hosts: Vec<String>,
}

impl Wires {
    /// A switch with hosts of these names.
    ///
    /// # Errors
    /// What this machine does not allow.
    pub(super) fn new(hosts: &[&str]) -> Result<Self, String> {
        let pid = std::process::id();
        let tag = format!("lo{pid}");
        // One of 65,536 networks of a range for such tests (RFC 2544 has 198.18.0.0/15 for benchmarks of networks).
        let net = format!("198.{}.{}", 18 + (pid >> 8 & 1), pid & 255);
        let wires = Self { tag, net, hosts: hosts.iter().map(|host| (*host).to_owned()).collect() };
        wires.build()?;
        Ok(wires)
    }

    fn build(&self) -> Result<(), String> {
        // The switch has a namespace of its own: no firewall of this machine looks at what passes it.
        let switch = self.namespace("sw");
        ip(&["netns", "add", &switch])?;
        ip(&["-n", &switch, "link", "add", "name", "bridge0", "type", "bridge"])?;
        ip(&["-n", &switch, "link", "set", "bridge0", "up"])?;
        let own = format!("{}t", self.tag);
        ip(&["link", "add", "name", &own, "type", "veth", "peer", "name", "test", "netns", &switch])?;
        ip(&["addr", "add", &format!("{}.254/24", self.net), "dev", &own])?;
        ip(&["link", "set", &own, "up"])?;
        self.plug("test")?;
        for host in &self.hosts {
            let namespace = self.namespace(host);
            ip(&["netns", "add", &namespace])?;
            ip(&[
                "-n", &switch, "link", "add", "name", host, "type", "veth", "peer", "name", "eth0", "netns", &namespace,
            ])?;
            ip(&["-n", &namespace, "addr", "add", &format!("{}/24", self.address(host)), "dev", "eth0"])?;
            for device in ["lo", "eth0"] {
                ip(&["-n", &namespace, "link", "set", device, "up"])?;
            }
            self.plug(host)?;
        }
        Ok(())
    }

    fn plug(&self, port: &str) -> Result<(), String> {
        let switch = self.namespace("sw");
        ip(&["-n", &switch, "link", "set", port, "master", "bridge0"])?;
        ip(&["-n", &switch, "link", "set", port, "up"])
    }

    fn namespace(&self, host: &str) -> String {
        format!("{}-{host}", self.tag)
    }

    /// A host's address.
    pub(super) fn address(&self, host: &str) -> String {
        let number = self.hosts.iter().position(|other| other == host).expect("it is one of them");
        format!("{}.{}", self.net, number + 1)
    }

    /// What starts a program on a host.
    pub(super) fn on(&self, host: &str) -> Vec<String> {
        ["ip", "netns", "exec", &self.namespace(host)].map(str::to_owned).to_vec()
    }

    /// Pulls a host's plug, or puts it back. What was under way is lost, and nobody is told.
    pub(super) fn link(&self, host: &str, up: bool) {
        let state = if up { "up" } else { "down" };
        ip(&["-n", &self.namespace("sw"), "link", "set", host, state]).expect("the link is there");
    }
}

impl Drop for Wires {
    fn drop(&mut self) {
        let mut all: Vec<_> = self.hosts.iter().map(|host| self.namespace(host)).collect();
        all.push(self.namespace("sw"));
        for namespace in all {
            // What could not be made cannot be removed.
            let _ = ip(&["netns", "del", &namespace]);
        }
    }
}

fn ip(arguments: &[&str]) -> Result<(), String> {
    let ran = Command::new("ip").args(arguments).output().map_err(|error| format!("ip (iproute2): {error}"))?;
    if ran.status.success() {
        return Ok(());
    }
    Err(format!("ip {}: {}", arguments.join(" "), String::from_utf8_lossy(&ran.stderr).trim()))
}
