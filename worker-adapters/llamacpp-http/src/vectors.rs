//! Embedding and rerank tasks: one answer with everything in it, handed on as events.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use adapter_api::{Finish, StreamState, TokenEvent, TokenStream, Usage, WorkerError};
use api_types::sse::FinishReason;
use http_util::{StreamClient, StreamRequest};
use serde::Deserialize;

use crate::wire::refusal;

/// Largest answer: some thousand vectors.
const MAX_ANSWER: usize = 256 * 1024 * 1024;

/// Which answer is expected, and with how many entries.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Expect {
    Embeddings(usize),
    Scores(usize),
}

impl Expect {
    const fn path(self) -> &'static str {
        match self {
            Self::Embeddings(_) => "/v1/embeddings",
            Self::Scores(_) => "/v1/rerank",
        }
    }
}

/// The call in flight. Dropping it closes the connection.
pub(crate) struct VectorStream {
    call: Pin<Box<dyn Future<Output = Result<Vec<u8>, WorkerError>> + Send>>,
    expect: Expect,
}

impl VectorStream {
    pub(crate) fn new(client: StreamClient, body: Vec<u8>, expect: Expect, timeout: Duration) -> Self {
        Self { call: Box::pin(call(client, body, expect.path(), timeout)), expect }
    }
}

async fn call(
    client: StreamClient,
    body: Vec<u8>,
    path: &'static str,
    timeout: Duration,
) -> Result<Vec<u8>, WorkerError> {
    let request = StreamRequest { establish_timeout: Some(timeout), ..StreamRequest::post(path, &body) };
    let response = client.send(&request).await?;
    let status = response.head.status;
    let answer = response.body.collect(MAX_ANSWER, timeout).await?;
    if status == 200 { Ok(answer) } else { Err(refusal(status, &answer, &body)) }
}

impl TokenStream for VectorStream {
    fn poll_events(
        &mut self,
        cx: &mut Context<'_>,
        sink: &mut dyn FnMut(TokenEvent<'_>),
    ) -> Poll<Result<StreamState, WorkerError>> {
        let answer = ready!(self.call.as_mut().poll(cx))?;
        let outcome = match self.expect {
            Expect::Embeddings(count) => embeddings(&answer, count, sink),
            Expect::Scores(count) => scores(&answer, count, sink),
        };
        Poll::Ready(outcome.map(|()| StreamState::Ended))
    }
}

#[derive(Deserialize)]
struct EmbeddingAnswer {
    data: Vec<EmbeddingEntry>,
    usage: Option<AnswerUsage>,
}

#[derive(Deserialize)]
struct EmbeddingEntry {
    index: u32,
    embedding: Vec<f32>,
}

#[derive(Deserialize)]
struct RerankAnswer {
    results: Vec<RerankEntry>,
    usage: Option<AnswerUsage>,
}

#[derive(Deserialize)]
struct RerankEntry {
    index: u32,
    relevance_score: f32,
}

#[derive(Deserialize)]
struct AnswerUsage {
    prompt_tokens: Option<u32>,
}

fn embeddings(answer: &[u8], count: usize, sink: &mut dyn FnMut(TokenEvent<'_>)) -> Result<(), WorkerError> {
    let mut answer: EmbeddingAnswer = serde_json::from_slice(answer).map_err(|_| unusable())?;
    in_order(&mut answer.data, count, |entry| entry.index)?;
    sink(TokenEvent::Started);
    for entry in &answer.data {
        sink(TokenEvent::Embedding { index: entry.index, vector: &entry.embedding });
    }
    sink(end(answer.usage));
    Ok(())
}

fn scores(answer: &[u8], count: usize, sink: &mut dyn FnMut(TokenEvent<'_>)) -> Result<(), WorkerError> {
    let mut answer: RerankAnswer = serde_json::from_slice(answer).map_err(|_| unusable())?;
    in_order(&mut answer.results, count, |entry| entry.index)?;
    sink(TokenEvent::Started);
    for entry in &answer.results {
        sink(TokenEvent::Score { index: entry.index, score: entry.relevance_score });
    }
    sink(end(answer.usage));
    Ok(())
}

/// Sorts the entries, and makes sure that there is exactly one for each input.
fn in_order<T>(entries: &mut [T], count: usize, index: impl Fn(&T) -> u32) -> Result<(), WorkerError> {
    entries.sort_by_key(&index);
    let complete = entries.len() == count && entries.iter().zip(0..).all(|(entry, place)| index(entry) == place);
    if complete { Ok(()) } else { Err(unusable()) }
}

fn end(usage: Option<AnswerUsage>) -> TokenEvent<'static> {
    let tokens_in = usage.and_then(|usage| usage.prompt_tokens);
    TokenEvent::End(Finish { reason: FinishReason::Stop, usage: Usage { tokens_in, ..Usage::default() } })
}

fn unusable() -> WorkerError {
    WorkerError::Adapter("llama.cpp's answer does not hold one entry for each input".to_owned())
}
