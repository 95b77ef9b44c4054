use crate::harness::{Daemon, config, eventually, refused};

/// AUTH-1002, OC-CONFIG-6032, LO-TST-01: beyond loopback only with a token.
#[tokio::test]
async fn a_wide_bind_needs_a_token() {
    let wide = config("http://127.0.0.1:9", "").replace("127.0.0.1:0", "0.0.0.0:0");
    let (code, said) = refused(&wide, &[]).await;
    assert!(matches!(code, Some(1 | 2)), "{code:?}");
    assert!(said.contains("NON_LOOPBACK_WITHOUT_TOKEN") && said.contains("AUTH_TOKEN"), "{said}");
    Daemon::start_with(&wide, &[("AUTH_TOKEN", "correct-horse-battery-staple")]).await;
}

/// OC-CONFIG-6001: an unknown key is refused with the nearest one that would have been right; so is an unreadable file.
#[tokio::test]
async fn a_wrong_configuration_is_refused() {
    let cases = [
        (config("http://127.0.0.1:9", "contxt = 4096"), "ctx"),
        (config("http://127.0.0.1:9", "[servr]"), "server"),
        (config("ftp://127.0.0.1:9", ""), "unix:"),
        (config("http://127.0.0.1:9", "slots = 0"), "slots"),
        (config("http://127.0.0.1:9", "[[catalog.models]]\nref = \"ftp:x\""), "catalog.models[0].ref"),
        ("this is not toml".to_owned(), "llama-orch.toml"),
    ];
    for (config, hint) in cases {
        let (code, said) = refused(&config, &[]).await;
        assert_eq!(code, Some(2), "{said}");
        assert!(said.contains(hint), "{said:?} should contain {hint:?}");
    }
}

/// A setting that this version does not carry out is not passed over in silence.
#[tokio::test]
async fn what_has_no_effect_is_said() {
    let cors =
        config("http://127.0.0.1:9", "").replace("[server]", "[server]\ncors_origins = [\"https://ui.example.org\"]");
    let daemon = Daemon::start(&cors).await;
    eventually("the log warns", || daemon.log().contains("server.cors_origins has no effect").then_some(())).await;
}

/// A port in use is said so, with what to do.
#[tokio::test]
async fn a_port_in_use_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = taken.local_addr().expect("an address").to_string();
    let (code, said) = refused(&config("http://127.0.0.1:9", "").replace("127.0.0.1:0", &addr), &[]).await;
    assert_eq!(code, Some(1));
    assert!(said.contains(&addr) && said.contains("ORCHD_ADDR"), "{said}");
}

/// `--version` names the interface's version too.
#[test]
fn the_version_names_the_interface() {
    let said =
        std::process::Command::new(env!("CARGO_BIN_EXE_orchestratord")).arg("--version").output().expect("it runs");
    let expected = format!("orchestratord {} (API {})\n", env!("CARGO_PKG_VERSION"), api_types::API_VERSION);
    assert_eq!(String::from_utf8_lossy(&said.stdout), expected);
}

/// LO-POOL-05: the daemon's program is the guard of its engines too, without its configuration and before anything else of it.
#[test]
fn the_program_guards_engines() {
    use std::io::Read as _;
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;
    let (mut ours, theirs) = UnixStream::pair().expect("a socket");
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_orchestratord"));
    command.args(["guard", "--grace-ms", "1", "--", "sh", "-c", "exit 3"]).env("LLAMA_ORCH_CONFIG", "/nonexistent");
    let mut guard = command.stdin(OwnedFd::from(theirs)).spawn().expect("it runs");
    drop(command);
    let mut said = String::new();
    ours.read_to_string(&mut said).expect("the guard's words");
    assert!(said.starts_with("{\"pid\":") && said.ends_with("}\n{\"exited\":3}\n"), "{said}");
    assert!(guard.wait().expect("it has ended").success());
}
