//! Either side starts anew.

use serde_json::json;

use super::super::bench::{ManagedPool, ask, health, until, until_ready};
use super::house::{Host, House, pool_on};
use crate::harness::{eventually_async, with};

fn slow(worker: &str, id: &str) -> ManagedPool {
    pool_on(worker, id).env("MOCK_ENGINE_TOKEN_INTERVAL_MS", 20)
}

/// LO-HST-09: an orchestrator that is killed leaves the engines of other hosts up; when it is back they are too, and what it had
/// accepted is done.
#[tokio::test]
async fn engines_outlive_the_orchestrator() {
    let mut house = House::up(vec![Host::new("box2", vec![slow("box2", "far")])]).await;
    // It must come back where its workers look for it.
    let port = house.daemon.addr().port();
    let pid = health(&house.daemon, "far").await["pid"].clone();
    let batch = with(house.hosts[0].bench.task("far", 30), "priority", json!("batch"));
    house.daemon.accepted(&batch).await;
    house.daemon.until(&batch, "streaming").await;
    house.daemon.kill();
    house.daemon.start_again_at(port).await;
    let ready = until_ready(&house.daemon, "far").await;
    assert_eq!(ready["pid"], pid, "the engine was up all the time");
    house.daemon.until(&batch, "completed").await;
    // What is wanted reaches it as before, and an orchestrator that stops in peace does not take it along either.
    ask(&house.daemon, "far", "drain", json!({"deadline_ms": 1000})).await;
    until(&house.daemon, "far", "draining", |health| health["state"] == "draining").await;
    house.daemon.signal("-TERM");
    house.daemon.ended().await;
    house.daemon.start_again_at(port).await;
    let drained = until(&house.daemon, "far", "heard from", |health| health["state"] == "draining").await;
    assert_eq!(drained["pid"], pid, "it is still drained, and up");
    ask(&house.daemon, "far", "start", json!({})).await;
    assert_eq!(until_ready(&house.daemon, "far").await["pid"], pid);
}

/// LO-HST-02, LO-HST-09: a worker that is killed takes its engines along; its stream ends typed, what waits goes to another host or
/// waits, and its pools come back with it.
#[tokio::test]
async fn a_worker_is_killed_and_comes_back() {
    let hosts = vec![Host::new("box2", vec![slow("box2", "far")]), Host::new("box3", vec![slow("box3", "farther")])];
    let mut house = House::up(hosts).await;
    let pinned = |house: &House, tokens| house.hosts[0].bench.task("far", tokens);
    let mut stream = house.daemon.occupy(&pinned(&house, 400)).await;
    let waiting = with(pinned(&house, 3), "priority", json!("batch"));
    house.daemon.accepted(&waiting).await;
    let pid = health(&house.daemon, "far").await["pid"].clone();
    house.hosts[0].kill();
    let last = stream.rest().await.pop().expect("a last frame");
    assert_eq!((last.name.as_str(), &last.data["code"]), ("error", &json!("WORKER_RESET")), "{}", last.data);
    house.hosts[0].bench.nothing_left_of("far").await;
    house.until_worker("box2", "away").await;
    let away = health(&house.daemon, "far").await;
    assert_eq!((&away["state"], &away["ready"]), (&json!("away"), &json!(false)), "{away:#}");
    assert_eq!(house.daemon.metric("worker_up{worker_id=\"box2\"}").await, 0.0);
    assert_eq!(house.daemon.metric("worker_up{worker_id=\"box3\"}").await, 1.0);
    // Nobody is there to be told anything.
    let answer = house.daemon.post("/v1/pools/far/start", &json!({})).await;
    assert_eq!(answer.status(), 503);
    assert_eq!(house.daemon.get("/v1/pools/far/logs").await.status(), 503);
    assert_eq!(health(&house.daemon, "farther").await["ready"], true, "the other one goes on");
    let url = house.daemon.url("");
    house.hosts[0].start(&url).await;
    let back = until_ready(&house.daemon, "far").await;
    assert_ne!(back["pid"], pid);
    house.daemon.until(&waiting, "completed").await;
    assert!(house.daemon.metric("worker_heartbeats_total{worker_id=\"box2\"}").await > 0.0);
}

/// LO-HST-09: a worker that is asked to stop lets its tasks come to their end, says that it leaves, and leaves nothing behind.
#[tokio::test]
async fn a_worker_stops_in_peace() {
    let mut house = House::up(vec![Host::new("box2", vec![slow("box2", "far")])]).await;
    let mut stream = house.daemon.occupy(&house.hosts[0].bench.task("far", 40)).await;
    house.hosts[0].stop().await;
    assert_eq!(stream.rest().await.last().expect("a last frame").name, "end");
    house.hosts[0].bench.nothing_left_of("far").await;
    let away = async || (house.worker("box2").await["state"] == "away").then_some(());
    eventually_async("it has left", away).await;
    // It was told, and did not have to find out.
    let told = async || house.daemon.log().contains("worker box2 stops").then_some(());
    eventually_async("the log tells of it", told).await;
}

/// LO-HST-09: a host runs the pools that its orchestrator's configuration gives it now, and no others.
#[tokio::test]
async fn a_host_is_given_other_pools() {
    let mut house = House::up(vec![Host::new("box2", vec![slow("box2", "far")])]).await;
    let port = house.daemon.addr().port();
    let pid = health(&house.daemon, "far").await["pid"].clone();
    house.daemon.kill();
    house.daemon.reconfigure(|config| config.replace("\"far\"", "\"near\"").replace("ctx = 1024", "ctx = 512"));
    house.daemon.start_again_at(port).await;
    let ready = until_ready(&house.daemon, "near").await;
    assert_ne!(ready["pid"], pid);
    let pools = house.daemon.json("/v1/pools").await;
    assert_eq!(pools["pools"][0]["ctx"], 512, "{pools:#}");
    // What the host does not allow is said where the operator looks.
    house.daemon.kill();
    house.daemon.reconfigure(|config| {
        config.replace("mode = \"binary\"", "mode = \"package\"") + "[pools.provisioning.package]\nname = \"x\"\n"
    });
    house.daemon.start_again_at(port).await;
    let failed = until(&house.daemon, "near", "refused", |health| health["state"] == "failed").await;
    let error = failed["last_error"].as_str().expect("an error");
    assert!(error.contains("allow_package_installs") && error.contains("worker box2"), "{failed:#}");
    house.hosts[0].bench.nothing_left_of("far").await;
}
