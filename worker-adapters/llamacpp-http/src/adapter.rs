//! The adapter itself.

use std::sync::Mutex;

use adapter_api::{Job, SlotFile, SlotView, TokenStream, WorkerAdapter, WorkerError, WorkerHealth, WorkerProps};
use api_types::{Engine, Workload};
use async_trait::async_trait;
use http_util::control::Answer;
use http_util::retry::{Idempotency, RetryPolicy, with_retries};
use http_util::{Control, ControlError, StreamClient, StreamRequest};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::chat::ChatDecoder;
use crate::completion::CompletionDecoder;
use crate::config::{LlamaCppConfig, SetupError, Timeouts};
use crate::describe::{Props, Rendered, Slot, Tokens, busy_slots, free_slots, slot_views};
use crate::request::{ApplyTemplate, EngineCall, Tokenize};
use crate::slot_file::Action;
use crate::vectors::{Expect, VectorStream};
use crate::wire::refusal;

/// One llama.cpp server.
#[derive(Debug)]
pub struct LlamaCpp {
    control: Control,
    streams: StreamClient,
    timeouts: Timeouts,
    retries: RetryPolicy,
    /// Asking costs the server a line in its log, so it is asked once for as long as it lives.
    workloads: Mutex<Option<Vec<Workload>>>,
}

impl LlamaCpp {
    /// Prepares an adapter; nothing is connected yet.
    ///
    /// # Errors
    /// When a key or a certificate cannot be used.
    pub fn new(config: &LlamaCppConfig) -> Result<Self, SetupError> {
        Ok(Self {
            control: Control::new(&config.control())?,
            streams: StreamClient::new(config.endpoint.clone(), config.stream())?,
            timeouts: config.timeouts,
            retries: RetryPolicy::default(),
            workloads: Mutex::new(None),
        })
    }

    async fn engine_props(&self) -> Result<Props, WorkerError> {
        let answer = self.repeat(|| self.control.get("/props", None)).await?;
        expect_ok(&answer)
    }

    /// `None` when the server does not tell, or not in time: it answers between two batches only.
    async fn slots_free(&self) -> Option<u32> {
        let answer = self.control.get("/slots", Some(self.timeouts.slots)).await.ok()?;
        expect_ok::<Vec<Slot>>(&answer).ok().map(|slots| free_slots(&slots))
    }

    /// What the server can be asked. It does not say so anywhere, but a call that it does not support is 501 whatever its
    /// body, and one that it supports is 400 for an empty one.
    async fn workloads(&self) -> Vec<Workload> {
        if let Some(known) = self.known_workloads() {
            return known;
        }
        let mut workloads = vec![Workload::Completion];
        for (workload, path) in [(Workload::Embedding, "/v1/embeddings"), (Workload::Rerank, "/v1/rerank")] {
            match self.control.post(path, &json!({}), None).await {
                Ok(Answer { status: 400, .. }) => workloads.push(workload),
                Ok(Answer { status: 404 | 501, .. }) => {}
                // Not known this time.
                _ => return Vec::new(),
            }
        }
        self.remember_workloads(Some(workloads.clone()));
        workloads
    }

    fn known_workloads(&self) -> Option<Vec<Workload>> {
        self.workloads.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    fn remember_workloads(&self, workloads: Option<Vec<Workload>>) {
        *self.workloads.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = workloads;
    }

    /// A call that changes nothing, tried again when the engine could not be reached.
    async fn repeat<F: Future<Output = Result<Answer, ControlError>> + Send>(
        &self,
        call: impl Fn() -> F + Send + Sync,
    ) -> Result<Answer, WorkerError> {
        let attempt = || {
            let answer = call();
            async { answer.await.map_err(WorkerError::from) }
        };
        with_retries(&self.retries, Idempotency::Idempotent, WorkerError::is_worker_lost, attempt).await
    }

    /// A POST that changes nothing; `None` when this build does not have it.
    async fn ask<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &(impl Serialize + Sync),
    ) -> Result<Option<T>, WorkerError> {
        let answer = self.repeat(|| self.control.post(path, body, None)).await?;
        match answer.status {
            404 | 501 => Ok(None),
            _ => expect_ok_to(&answer, body).map(Some),
        }
    }

    async fn count(&self, text: &str) -> Result<Option<usize>, WorkerError> {
        let answer: Option<Tokens> = self.ask("/tokenize", &Tokenize::new(text)).await?;
        Ok(answer.map(|answer| answer.tokens.len()))
    }

    async fn count_all(&self, job: &Job) -> Result<Option<usize>, WorkerError> {
        let request = &*job.request;
        if let Some(prompt) = &request.prompt {
            return self.count(prompt).await;
        }
        if let Some(messages) = &request.messages {
            let body = ApplyTemplate { messages, tools: request.tools.as_deref() };
            let rendered: Option<Rendered> = self.ask("/apply-template", &body).await?;
            return match rendered {
                Some(rendered) => self.count(&rendered.prompt).await,
                None => Ok(None),
            };
        }
        // Rerank joins query and document by a template that cannot be asked for.
        let Some(inputs) = request.inputs.as_ref().filter(|_| request.workload == Workload::Embedding) else {
            return Ok(None);
        };
        let mut sum = 0;
        for input in inputs {
            let Some(count) = self.count(input).await? else { return Ok(None) };
            sum += count;
        }
        Ok(Some(sum))
    }
}

#[async_trait]
impl WorkerAdapter for LlamaCpp {
    fn engine(&self) -> Engine {
        Engine::Llamacpp
    }

    async fn health(&self) -> Result<WorkerHealth, WorkerError> {
        let health = match self.control.get("/health", Some(self.timeouts.health)).await {
            Ok(Answer { status: 200, .. }) => WorkerHealth { live: true, ready: true },
            // The model is being loaded.
            Ok(Answer { status: 503, .. }) => WorkerHealth { live: true, ready: false },
            Ok(answer) => return Err(refusal(answer.status, &answer.body, b"")),
            Err(ControlError::Connect(_) | ControlError::Timeout(_) | ControlError::Lost(_)) => {
                WorkerHealth { live: false, ready: false }
            }
            Err(error) => return Err(error.into()),
        };
        if !health.ready {
            // Whoever answers next may be another server.
            self.remember_workloads(None);
        }
        Ok(health)
    }

    async fn props(&self) -> Result<WorkerProps, WorkerError> {
        let props = self.engine_props().await?;
        let slots_free = if props.may_have_slots() { self.slots_free().await } else { None };
        Ok(WorkerProps { slots_free, workloads: self.workloads().await, ..props.worker() })
    }

    async fn engine_version(&self) -> Result<String, WorkerError> {
        self.engine_props().await.map(|props| props.version())
    }

    async fn submit(&self, job: &Job) -> Result<Box<dyn TokenStream>, WorkerError> {
        match EngineCall::of(job)? {
            EngineCall::Completion(body) => {
                let request = StreamRequest::post("/completion", &body);
                Ok(Box::new(self.streams.open_events(&request, CompletionDecoder::default()).await?))
            }
            EngineCall::Chat(body) => {
                let request = StreamRequest::post("/v1/chat/completions", &body);
                Ok(Box::new(self.streams.open_events(&request, ChatDecoder::default()).await?))
            }
            EngineCall::Embedding { body, inputs } => Ok(self.vectors(body, Expect::Embeddings(inputs))),
            EngineCall::Rerank { body, documents } => Ok(self.vectors(body, Expect::Scores(documents))),
        }
    }

    async fn count_tokens(&self, job: &Job) -> Result<Option<u32>, WorkerError> {
        let count = self.count_all(job).await?;
        Ok(count.map(|count| u32::try_from(count).unwrap_or(u32::MAX)))
    }

    async fn busy_slots(&self) -> Result<Option<u32>, WorkerError> {
        let answer = self.control.get("/slots", Some(self.timeouts.slots)).await?;
        match answer.status {
            // Switched off, or a router that has no slots of its own.
            404 | 501 => Ok(None),
            _ => expect_ok::<Vec<Slot>>(&answer).map(|slots| Some(busy_slots(&slots))),
        }
    }

    async fn slots(&self) -> Result<Option<Vec<SlotView>>, WorkerError> {
        let answer = self.control.get("/slots", None).await?;
        match answer.status {
            404 | 501 => Ok(None),
            _ => expect_ok::<Vec<Slot>>(&answer).map(|slots| Some(slot_views(&slots))),
        }
    }

    async fn save_slot(&self, slot: u32, file: &str) -> Result<Option<SlotFile>, WorkerError> {
        self.slot_file(Action::Save, slot, file).await
    }

    async fn restore_slot(&self, slot: u32, file: &str) -> Result<Option<SlotFile>, WorkerError> {
        self.slot_file(Action::Restore, slot, file).await
    }
}

impl LlamaCpp {
    /// Once: to read a file a second time into a slot that has just got it would only take time.
    async fn slot_file(&self, action: Action, slot: u32, file: &str) -> Result<Option<SlotFile>, WorkerError> {
        let body = json!({ "filename": file });
        let answer = self.control.post(&action.path(slot), &body, Some(self.timeouts.slot_file)).await?;
        match answer.status {
            // The server was started without a folder for it, or is too old to have it.
            404 | 501 => Ok(None),
            _ => action.outcome(&expect_ok_to(&answer, &body)?).map(Some),
        }
    }

    fn vectors(&self, body: Vec<u8>, expect: Expect) -> Box<dyn TokenStream> {
        Box::new(VectorStream::new(self.streams.clone(), body, expect, self.timeouts.compute))
    }
}

fn expect_ok<T: DeserializeOwned>(answer: &Answer) -> Result<T, WorkerError> {
    expect_ok_to(answer, &Value::Null)
}

/// The answer as JSON, or the refusal in it, without anything of the request.
fn expect_ok_to<T: DeserializeOwned>(answer: &Answer, request: &impl Serialize) -> Result<T, WorkerError> {
    if answer.status == 200 {
        return Ok(answer.json()?);
    }
    let request = serde_json::to_vec(request).unwrap_or_default();
    Err(refusal(answer.status, &answer.body, &request))
}
