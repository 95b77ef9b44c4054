//! What the host says (ORCH-3604).

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex};

use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

use crate::support::{Seen, Spy, host, job, pool, slow, submit};

type Fields = BTreeMap<&'static str, String>;

#[derive(Clone, Default)]
struct Capture(Arc<Mutex<Vec<Fields>>>);

impl<S: tracing::Subscriber> Layer<S> for Capture {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        let mut fields = Fields::new();
        event.record(&mut |field: &tracing::field::Field, value: &dyn fmt::Debug| {
            fields.insert(field.name(), format!("{value:?}").trim_matches('"').to_owned());
        });
        if fields.contains_key("actor") {
            self.0.lock().expect("no panic").push(fields);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn submit_and_cancel_are_narrated() {
    let capture = Capture::default();
    let _guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(capture.clone()));
    let host = host(&Spy::new(slow()));
    let task = job(9);
    let mut stream = submit(&host, &task).await.expect("taken");
    Seen::default().tokens(&mut stream, 2).await;
    host.cancel(&pool(), task.request.task_id).await;
    drop(stream);
    let said = capture.0.lock().expect("no panic").clone();
    let actions: Vec<&str> = said.iter().map(|fields| fields["action"].as_str()).collect();
    assert_eq!(actions, ["submit", "cancel"]);
    for fields in &said {
        assert_eq!((fields["actor"].as_str(), fields["target"].as_str()), ("adapter-host", "mock"));
        assert_eq!((fields["pool_id"].as_str(), fields["replica_id"].as_str()), ("gpu0", "r0"));
        assert_eq!(fields["task_id"], task.request.task_id.to_string());
        assert!(fields["human"].contains(&fields["task_id"]), "{fields:?}");
    }
}
