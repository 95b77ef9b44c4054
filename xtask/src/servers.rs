//! Real servers that tests start: moto as S3, Docker's registry, and container runtimes.

use std::ffi::OsString;
use std::path::PathBuf;

use crate::repo;
use crate::venv::Venv;

/// What tests of the servers find in the environment.
const S3_PYTHON: &str = "LLAMA_ORCH_S3_PYTHON";
const OCI_REGISTRY: &str = "LLAMA_ORCH_OCI_REGISTRY";

/// moto with what its S3 and its server need, which is less than its extra `server` brings.
const PACKAGES: [&str; 3] = ["moto[s3]==5.2.5", "flask==3.1.3", "flask-cors==6.0.5"];

/// Where the servers are; variables of the environment and their values. Installs moto if needed. The others
/// are installed by the system's package manager, or not there.
pub(crate) fn find() -> anyhow::Result<Vec<(&'static str, OsString)>> {
    let folder = repo::path("target/servers/s3");
    let python =
        Venv { folder, name: "moto", packages: &PACKAGES, shown: "moto, an S3 server (about 140 MB)" }.install()?;
    let mut found = vec![(S3_PYTHON, python.into())];
    match on_path("docker-registry") {
        Some(registry) => found.push((OCI_REGISTRY, registry.into())),
        None => eprintln!(
            "no docker-registry on the PATH: the tests that need one will skip; on Debian and Ubuntu: apt-get install \
             docker-registry"
        ),
    }
    for (program, packages) in [("podman", "podman runc catatonit"), ("dockerd", "docker.io")] {
        if on_path(program).is_none() {
            eprintln!(
                "no {program} on the PATH: the tests that run containers with it will skip; on Debian and Ubuntu: apt-get \
                 install {packages}"
            );
        }
    }
    Ok(found)
}

fn on_path(program: &str) -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?).map(|folder| folder.join(program)).find(|path| path.is_file())
}
