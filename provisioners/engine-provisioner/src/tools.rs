//! The tools that engines need, and how each distribution installs them: one table.

use api_types::words;
use serde::{Deserialize, Serialize};

use crate::distro::{Distro, Family};

words! {
    /// A tool that is looked for.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
    Tool {
        /// Fetches repositories.
        Git = "git",
        /// Configures builds.
        Cmake = "cmake",
        /// Runs builds; either does.
        Ninja = "ninja",
        /// Runs builds.
        Make = "make",
        /// Compiles for the host.
        Compiler = "c++",
        /// Compiles for the GPU.
        Nvcc = "nvcc",
        /// Makes builds that were done before quick.
        Ccache = "ccache",
        /// The driver of the GPUs.
        Driver = "nvidia-smi",
        /// Runs containers.
        Podman = "podman",
        /// Gives GPUs to containers.
        ContainerToolkit = "nvidia-ctk",
        /// The Hub's own client.
        HuggingFaceCli = "huggingface-cli",
    }
}

/// Packages of a tool: pacman, apt, dnf, zypper; and a hint where a package alone does not do.
struct Packages {
    tool: Tool,
    arch: &'static str,
    debian: &'static str,
    fedora: &'static str,
    suse: &'static str,
    hint: Option<&'static str>,
}

const CUDA_REPO: &str =
    "add NVIDIA's repository first where this package is unknown: https://developer.nvidia.com/cuda-downloads";
const TOOLKIT_REPO: &str =
    "add NVIDIA's repository first: https://docs.nvidia.com/datacenter/cloud-native/container-toolkit";

#[rustfmt::skip]
const PACKAGES: &[Packages] = &[
    Packages { tool: Tool::Git, arch: "git", debian: "git", fedora: "git", suse: "git", hint: None },
    Packages { tool: Tool::Cmake, arch: "cmake", debian: "cmake", fedora: "cmake", suse: "cmake", hint: None },
    Packages { tool: Tool::Ninja, arch: "ninja", debian: "ninja-build", fedora: "ninja-build", suse: "ninja", hint: None },
    Packages { tool: Tool::Make, arch: "make", debian: "make", fedora: "make", suse: "make", hint: None },
    Packages { tool: Tool::Compiler, arch: "gcc", debian: "g++", fedora: "gcc-c++", suse: "gcc-c++", hint: None },
    Packages { tool: Tool::Nvcc, arch: "cuda", debian: "nvidia-cuda-toolkit", fedora: "cuda-toolkit", suse: "cuda-toolkit", hint: Some(CUDA_REPO) },
    Packages { tool: Tool::Ccache, arch: "ccache", debian: "ccache", fedora: "ccache", suse: "ccache", hint: None },
    Packages { tool: Tool::Driver, arch: "nvidia-open", debian: "nvidia-driver", fedora: "akmod-nvidia", suse: "nvidia-open-driver-G06-signed-kmp-default", hint: Some("then restart the host") },
    Packages { tool: Tool::Podman, arch: "podman", debian: "podman", fedora: "podman", suse: "podman", hint: None },
    Packages { tool: Tool::ContainerToolkit, arch: "nvidia-container-toolkit", debian: "nvidia-container-toolkit", fedora: "nvidia-container-toolkit", suse: "nvidia-container-toolkit", hint: Some(TOOLKIT_REPO) },
    Packages { tool: Tool::HuggingFaceCli, arch: "python-huggingface-hub", debian: "python3-huggingface-hub", fedora: "python3-huggingface-hub", suse: "python3-huggingface-hub", hint: None },
];

impl Tool {
    fn packages(self) -> &'static Packages {
        PACKAGES.iter().find(|row| row.tool == self).expect("the table has every tool, which a test checks")
    }

    /// The package that holds it.
    #[must_use]
    pub fn package(self, family: Family) -> Option<&'static str> {
        let row = self.packages();
        match family {
            Family::Arch => Some(row.arch),
            Family::Debian => Some(row.debian),
            Family::Fedora => Some(row.fedora),
            Family::Suse => Some(row.suse),
            Family::Other => None,
        }
    }

    /// What has to be known beside the package.
    pub(crate) fn hint(self) -> Option<&'static str> {
        self.packages().hint
    }

    /// How to install it: a command where there is one.
    #[must_use]
    pub fn fix(self, distro: &Distro) -> String {
        let command = match self.package(distro.family) {
            Some(package) => install_command(distro.family, &[package]),
            None => format!("install {self} with the package manager of {}", distro.name),
        };
        match self.hint() {
            Some(hint) => format!("{command} ({hint})"),
            None => command,
        }
    }
}

/// The command that installs packages.
pub(crate) fn install_command(family: Family, packages: &[&str]) -> String {
    let packages = packages.join(" ");
    match family {
        Family::Arch => format!("sudo pacman -S --needed {packages}"),
        Family::Debian => format!("sudo apt install {packages}"),
        Family::Fedora => format!("sudo dnf install {packages}"),
        Family::Suse => format!("sudo zypper install {packages}"),
        Family::Other => format!("install {packages} with the system's package manager"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// ORCH-3203, LO-ENG-15: for every tool and distribution there is something to do.
    #[test]
    fn every_tool_has_a_fix_everywhere() {
        for tool in Tool::ALL {
            for family in Family::ALL {
                let fix = tool.fix(&Distro { name: "Some Linux".to_owned(), family: *family });
                let command = match family {
                    Family::Arch => "sudo pacman -S --needed ",
                    Family::Debian => "sudo apt install ",
                    Family::Fedora => "sudo dnf install ",
                    Family::Suse => "sudo zypper install ",
                    Family::Other => "install ",
                };
                assert!(fix.starts_with(command), "{tool} on {family}: {fix}");
            }
        }
    }
}
