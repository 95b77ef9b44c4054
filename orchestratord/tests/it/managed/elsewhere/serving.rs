//! A task's way through the relay, and what operators see and want.

use serde_json::json;

use super::house::{Host, House, pool_on};
use crate::harness::eventually_async;

/// LO-HST-01, LO-HST-02: a pool of another host comes up, serves tasks through the relay, and says where it is.
#[tokio::test]
async fn a_pool_of_another_host_serves() {
    let house = House::up(vec![Host::new("box2", vec![pool_on("box2", "far")])]).await;
    let task = house.hosts[0].bench.task("far", 5);
    let mut stream = house.daemon.run(&task).await;
    stream.until("end").await;
    house.daemon.until(&task, "completed").await;
    let pools = house.daemon.json("/v1/pools").await;
    let pool = &pools["pools"][0];
    assert_eq!((&pool["worker"], &pool["compute"]), (&json!("box2"), &json!("box2:0")), "{pool:#}");
    assert_eq!(pool["health"]["state"], "ready", "{pool:#}");
    assert!(pool["vram_total_bytes"].as_i64().is_some_and(|bytes| bytes > 20 << 30), "{pool:#}");
    let worker = house.worker("box2").await;
    assert_eq!((&worker["state"], &worker["pools"]), (&json!("up"), &json!(["far"])), "{worker:#}");
    assert_eq!(worker["devices"].as_array().map(Vec::len), Some(2), "{worker:#}");
    assert!(worker["heard_ms_ago"].as_i64().is_some_and(|ms| ms < 5000), "{worker:#}");
    eventually_async("the engine's memory is told", async || {
        let worker = house.worker("box2").await;
        (worker["devices"][0]["processes"][0]["pool_id"] == "far").then_some(())
    })
    .await;
}
