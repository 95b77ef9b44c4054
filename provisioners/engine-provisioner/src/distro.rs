//! Which distribution this host runs, as far as it decides how packages are installed.

use api_types::words;
use serde::{Deserialize, Serialize};

words! {
    /// Distributions that share a package manager.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
    Family {
        /// Arch Linux, CachyOS, Manjaro, EndeavourOS: pacman.
        Arch = "arch",
        /// Debian, Ubuntu, Mint: apt.
        Debian = "debian",
        /// Fedora, RHEL, Rocky, Alma: dnf.
        Fedora = "fedora",
        /// openSUSE and SLES: zypper.
        Suse = "suse",
        /// Any other.
        Other = "other",
    }
}

/// A distribution.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Distro {
    /// What it calls itself.
    pub name: String,
    /// How its packages are installed.
    pub family: Family,
}

/// Words of `ID` and `ID_LIKE` that tell the family.
const WORDS: &[(&str, Family)] = &[
    ("arch", Family::Arch),
    ("archlinux", Family::Arch),
    ("cachyos", Family::Arch),
    ("manjaro", Family::Arch),
    ("endeavouros", Family::Arch),
    ("debian", Family::Debian),
    ("ubuntu", Family::Debian),
    ("fedora", Family::Fedora),
    ("rhel", Family::Fedora),
    ("centos", Family::Fedora),
    ("suse", Family::Suse),
    ("opensuse", Family::Suse),
    ("sles", Family::Suse),
];

impl Distro {
    /// What `/etc/os-release` says. Source: os-release(5).
    #[must_use]
    pub fn from_os_release(text: &str) -> Self {
        let value = |key: &str| {
            let line = text.lines().find_map(|line| line.trim().strip_prefix(key)?.strip_prefix('='))?;
            Some(line.trim().trim_matches(['"', '\'']).to_owned())
        };
        let ids = format!("{} {}", value("ID").unwrap_or_default(), value("ID_LIKE").unwrap_or_default());
        let known = |id: &str| WORDS.iter().find(|(word, _)| id == *word || id.starts_with(&format!("{word}-")));
        let family = ids.split_whitespace().find_map(known).map_or(Family::Other, |(_, family)| *family);
        let name = value("PRETTY_NAME").or_else(|| value("NAME")).unwrap_or_else(|| "this system".to_owned());
        Self { name, family }
    }

    /// The host's.
    #[must_use]
    pub fn of_host() -> Self {
        let texts = ["/etc/os-release", "/usr/lib/os-release"].iter().map(std::fs::read_to_string);
        Self::from_os_release(&texts.flatten().next().unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// ORCH-3204: Arch and what is like it are told from others; what says nothing of itself is none of them.
    #[test]
    fn families() {
        for (text, family) in [
            ("NAME=\"Arch Linux\"\nID=arch\n", Family::Arch),
            ("ID=cachyos\nID_LIKE=\"arch\"\n", Family::Arch),
            ("ID=garuda\nID_LIKE=arch\n", Family::Arch),
            ("ID=ubuntu\nID_LIKE=debian\n", Family::Debian),
            ("ID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"\n", Family::Fedora),
            ("ID=\"opensuse-tumbleweed\"\nID_LIKE=\"opensuse suse\"\n", Family::Suse),
            ("ID=nixos\n", Family::Other),
            ("ID=archaic\n", Family::Other),
            ("", Family::Other),
        ] {
            assert_eq!(Distro::from_os_release(text).family, family, "{text}");
        }
    }
}
