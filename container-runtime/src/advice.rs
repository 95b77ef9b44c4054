//! What a person has to type, by distribution. Nothing here is ever run by us.

use crate::backend::Backend;

/// A family of distributions, by the package manager that its users know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Distribution {
    /// Arch, CachyOS, Manjaro, EndeavourOS.
    Arch,
    /// Debian, Ubuntu, Mint, Pop!_OS.
    Debian,
    /// Fedora, RHEL, Rocky, Alma.
    Fedora,
    /// openSUSE, SLES.
    Suse,
    /// Any other.
    #[default]
    Other,
}

impl Distribution {
    /// From the text of `/etc/os-release`. Source: os-release(5), `ID` and `ID_LIKE`.
    #[must_use]
    pub fn of_os_release(text: &str) -> Self {
        let values = |key: &str| {
            let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
            value.unwrap_or_default().trim_matches(['"', '\'']).to_ascii_lowercase()
        };
        let ids = format!("{} {}", values("ID"), values("ID_LIKE"));
        ids.split_whitespace().find_map(Self::of_id).unwrap_or_default()
    }

    fn of_id(id: &str) -> Option<Self> {
        match id {
            "arch" | "cachyos" | "manjaro" | "endeavouros" => Some(Self::Arch),
            "debian" | "ubuntu" | "linuxmint" | "pop" => Some(Self::Debian),
            "fedora" | "rhel" | "centos" | "rocky" | "almalinux" => Some(Self::Fedora),
            "suse" | "opensuse" | "opensuse-tumbleweed" | "opensuse-leap" | "sles" => Some(Self::Suse),
            _ => None,
        }
    }

    /// The command that installs packages, or a sentence where the manager is not known.
    #[must_use]
    pub fn install(self, packages: &str) -> String {
        match self {
            Self::Arch => format!("sudo pacman -S {packages}"),
            Self::Debian => format!("sudo apt-get install {packages}"),
            Self::Fedora => format!("sudo dnf install {packages}"),
            Self::Suse => format!("sudo zypper install {packages}"),
            Self::Other => format!("install {packages} with the system's package manager"),
        }
    }

    /// How to get a client.
    pub(crate) fn install_backend(self, backend: Backend) -> String {
        match (backend, self) {
            (Backend::Podman, _) => self.install("podman"),
            (Backend::Docker, Self::Debian) => self.install("docker.io"),
            (Backend::Docker, Self::Fedora) => self.install("moby-engine"),
            (Backend::Docker, _) => self.install("docker"),
        }
    }

    /// How to get NVIDIA's container toolkit. Arch has it in its own repositories; elsewhere it comes from NVIDIA's.
    pub(crate) fn install_toolkit(self) -> String {
        let install = self.install("nvidia-container-toolkit");
        match self {
            Self::Arch => install,
            _ => format!(
                "{install} (its repository: https://docs.nvidia.com/datacenter/cloud-native/container-toolkit/latest/install-guide.html)"
            ),
        }
    }
}

/// Writes the CDI specification; to be repeated after each update of the driver.
pub(crate) const GENERATE_CDI: &str = "sudo nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml";

/// Registers NVIDIA's runtime with docker.
pub(crate) const CONFIGURE_DOCKER: &str =
    "sudo nvidia-ctk runtime configure --runtime=docker && sudo systemctl restart docker";

#[cfg(test)]
mod tests {
    use super::Distribution;

    /// ORCH-3804: advice is for the distribution that is there, also for one that only says whom it is like.
    #[test]
    fn distributions() {
        for (text, expected) in [
            ("NAME=\"Debian\"\nID=debian\n", Distribution::Debian),
            ("ID=cachyos\nID_LIKE=arch\n", Distribution::Arch),
            ("ID=zorin\nID_LIKE=\"ubuntu debian\"\n", Distribution::Debian),
            ("ID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"\n", Distribution::Fedora),
            ("ID=\"opensuse-tumbleweed\"\n", Distribution::Suse),
            ("ID=nixos\n", Distribution::Other),
            ("", Distribution::Other),
        ] {
            assert_eq!(Distribution::of_os_release(text), expected, "{text}");
        }
    }
}
