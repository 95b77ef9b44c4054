//! Mode `package`, and tools that are installed for a build: pacman, as far as a script can play it.

use api_types::PoolFault;
use config_schema::{Outbound, Pool};
use engine_provisioner::{Distro, StepKind};

use crate::support::{Place, pool, source_pool};

const ARCH: &str = "ID=cachyos\nID_LIKE=arch\nPRETTY_NAME=\"CachyOS\"";
const UBUNTU: &str = "ID=ubuntu\nPRETTY_NAME=\"Ubuntu 24.04\"";

fn package_pool(more: &str) -> Pool {
    pool("llamacpp", &format!("mode = \"package\"\n[provisioning.package]\nname = \"llama.cpp\"\n{more}"))
}

/// A host where pacman knows `llama.cpp` and notes down what it is asked for.
fn place(os_release: &str, is_root: bool, allowed: bool) -> Place {
    let mut place = Place::with_outbound(&Outbound { allow_package_installs: allowed, ..Outbound::default() });
    place.setup.host.distro = Distro::from_os_release(os_release);
    place.setup.host.is_root = is_root;
    // Nothing of this machine is found there.
    place.setup.host.path = vec![place.at("bin"), place.at("base")];
    for program in ["cat", "chmod", "sh"] {
        let target = ["/usr/bin", "/bin"]
            .iter()
            .map(|folder| std::path::Path::new(folder).join(program))
            .find(|path| path.exists());
        std::fs::create_dir_all(place.at("base")).expect("created");
        std::os::unix::fs::symlink(target.expect("a usual program"), place.at("base").join(program)).expect("linked");
    }
    let bin = place.at("bin");
    let (bin, log) = (bin.display(), place.at("asked"));
    let script = format!(
        "echo \"$*\" >> {log}\n\
         case \"$1 $*\" in\n\
         -Si*missing*) echo 'error: package was not found' >&2; exit 1;;\n\
         -Q*) echo 'llama.cpp 6891-1';;\n\
         '-S '*llama.cpp*) printf '#!/bin/sh\\necho \"version: 6891 (1a2b3c4d)\"\\n' > {bin}/llama-server; chmod +x {bin}/llama-server;;\n\
         esac",
        log = log.display()
    );
    place.program("bin/pacman", &script);
    place
}

fn asked(place: &Place) -> Vec<String> {
    let text = std::fs::read_to_string(place.at("asked")).unwrap_or_default();
    text.lines().map(ToOwned::to_owned).collect()
}

/// ORCH-3092, ORCH-3204, ORCH-3272, OC-CONFIG-6027: packages are installed by pacman, without a question, where that is allowed, and
/// only once.
#[tokio::test]
async fn a_package_is_installed_once() {
    let place = place(ARCH, true, true);
    let (engine, kept) = place.ensure(&package_pool("")).await;
    let engine = engine.expect("it is installed");
    assert_eq!(engine.engine_version, "6891");
    assert_eq!(engine.engine_catalog_id.as_ref(), place.entries().first().map(|entry| &entry.id));
    assert_eq!(kept.steps(), [StepKind::Check, StepKind::Install, StepKind::Version, StepKind::Register]);
    assert!(asked(&place).contains(&"-S --noconfirm --needed -- llama.cpp".to_owned()), "{:?}", asked(&place));
    let (_, kept) = place.ensure(&package_pool("")).await;
    assert_eq!(kept.steps(), [StepKind::Check, StepKind::Version]);
    let (error, _) = place.ensure(&package_pool("version = \"7000-1\"")).await;
    assert_eq!(error.expect_err("it is 6891-1").fault(), PoolFault::Unsupported);
}

/// ORCH-3204, ORCH-3272, ORCH-3434: on any other host, without permission, without the rights, or from the AUR nothing is run, and the
/// command for a person is returned.
#[tokio::test]
async fn others_get_instructions() {
    for (os_release, is_root, allowed, fault, fix) in [
        (ARCH, true, false, PoolFault::NotAllowed, "sudo pacman -S --needed llama.cpp"),
        (ARCH, false, true, PoolFault::NotAllowed, "sudo pacman -S --needed llama.cpp"),
        (UBUNTU, true, true, PoolFault::Unsupported, "sudo apt install llama.cpp"),
        ("ID=fedora", true, true, PoolFault::Unsupported, "sudo dnf install llama.cpp"),
        ("ID=nixos", true, true, PoolFault::Unsupported, "install llama.cpp"),
    ] {
        let place = place(os_release, is_root, allowed);
        let pool = package_pool("");
        let (error, _) = place.ensure(&pool).await;
        let error = error.expect_err("it is not installed");
        assert_eq!(error.fault(), fault, "{os_release}: {error}");
        assert!(error.fix().is_some_and(|text| text.contains(fix)), "{os_release}: {:?}", error.fix());
        assert_eq!(asked(&place), [""; 0]);
        let checks = place.provisioner(&pool).preflight(None).await;
        assert_eq!(checks[0].fix, error.fix());
    }
    let place = place(ARCH, true, true);
    for pool in [
        package_pool("repo = \"aur\""),
        pool("llamacpp", "mode = \"package\"\n[provisioning.package]\nname = \"missing\""),
    ] {
        let (error, _) = place.ensure(&pool).await;
        assert!(error.expect_err("it is in the AUR").fix().is_some_and(|fix| fix.contains("paru -S")));
    }
    assert!(!asked(&place).iter().any(|line| line.starts_with("-S ")));
}

/// ORCH-3202, LO-ENG-14: tools that a build lacks are installed where that is allowed, the Hub's client among them when the model is from
/// there; elsewhere the doctor says how to get it, and that it is not needed.
#[tokio::test]
async fn missing_tools_are_supplied_under_policy() {
    let place = place(ARCH, true, true);
    let mut pool = source_pool("https://example.org/llama.cpp", "b6891", "");
    pool.model = "hf:org/repo/model.gguf".to_owned();
    let (error, kept) = place.ensure(&pool).await;
    // This pacman installs none of them.
    assert_eq!(error.expect_err("they are not there").fault(), PoolFault::NoCuda);
    assert_eq!(kept.steps(), [StepKind::Check, StepKind::Install]);
    assert_eq!(asked(&place), ["-S --noconfirm --needed -- cuda git cmake make gcc python-huggingface-hub"]);
    let checks = place.provisioner(&pool).preflight(None).await;
    let hub = checks.iter().find(|check| check.name == "huggingface-cli").expect("a check");
    assert!(hub.detail.contains("not needed") && hub.detail.contains("python-huggingface-hub"), "{}", hub.detail);
}
