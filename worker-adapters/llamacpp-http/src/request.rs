//! What is sent for a job.

use adapter_api::{Job, WorkerError};
use api_types::{ChatMessage, KvHint, Sampling, Workload};
use serde::Serialize;
use serde_json::{Value, json};

/// A job in the engine's terms.
#[derive(Debug)]
pub(crate) enum EngineCall {
    Completion(Vec<u8>),
    Chat(Vec<u8>),
    Embedding { body: Vec<u8>, inputs: usize },
    Rerank { body: Vec<u8>, documents: usize },
}

/// Members that `/completion` and `/v1/chat/completions` share.
#[derive(Serialize)]
struct Common<'a> {
    /// Always: a request that does not stream never notices that its client has gone.
    stream: bool,
    seed: u32,
    /// A warm cache changes the batches, and with them the sums and the tokens.
    cache_prompt: bool,
    /// Makes the server answer, and notice a closed connection, before the prompt is done.
    return_progress: bool,
    #[serde(flatten)]
    sampling: Option<&'a Sampling>,
}

#[derive(Serialize)]
struct Completion<'a> {
    prompt: &'a str,
    n_predict: i32,
    #[serde(skip_serializing_if = "Option::is_none")]
    json_schema: Option<Value>,
    #[serde(flatten)]
    common: Common<'a>,
}

#[derive(Serialize)]
struct Chat<'a> {
    messages: &'a [ChatMessage],
    max_tokens: i32,
    stream_options: StreamOptions,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_format: Option<&'a Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tools: Option<&'a [Value]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_choice: Option<&'a Value>,
    #[serde(flatten)]
    common: Common<'a>,
}

#[derive(Serialize)]
struct StreamOptions {
    include_usage: bool,
}

#[derive(Serialize)]
struct Embedding<'a> {
    input: &'a [String],
    encoding_format: &'static str,
}

#[derive(Serialize)]
struct Rerank<'a> {
    query: &'a str,
    documents: &'a [String],
}

/// Body of `POST /apply-template`.
#[derive(Serialize)]
pub(crate) struct ApplyTemplate<'a> {
    pub(crate) messages: &'a [ChatMessage],
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tools: Option<&'a [Value]>,
}

/// Body of `POST /tokenize`, with the flags that a completion's prompt is tokenized with.
#[derive(Serialize)]
pub(crate) struct Tokenize<'a> {
    content: &'a str,
    add_special: bool,
    parse_special: bool,
}

impl<'a> Tokenize<'a> {
    pub(crate) const fn new(content: &'a str) -> Self {
        Self { content, add_special: true, parse_special: true }
    }
}

impl EngineCall {
    /// # Errors
    /// When the job asks for what this engine has no words for.
    pub(crate) fn of(job: &Job) -> Result<Self, WorkerError> {
        let request = &*job.request;
        match (request.workload, &request.prompt, &request.messages, &request.inputs) {
            (Workload::Completion, Some(prompt), None, None) => completion(job, prompt),
            (Workload::Completion, None, Some(messages), None) => chat(job, messages),
            (Workload::Embedding, None, None, Some(inputs)) => embedding(inputs),
            (Workload::Rerank, None, None, Some(inputs)) => rerank(inputs),
            _ => Err(WorkerError::Rejected("the task's input does not fit its workload".to_owned())),
        }
    }
}

fn completion(job: &Job, prompt: &str) -> Result<EngineCall, WorkerError> {
    let json_schema = job.request.response_format.as_ref().map(json_schema).transpose()?.flatten();
    let n_predict = job.request.max_tokens;
    encode(&Completion { prompt, n_predict, json_schema, common: common(job) }).map(EngineCall::Completion)
}

fn chat(job: &Job, messages: &[ChatMessage]) -> Result<EngineCall, WorkerError> {
    let request = &*job.request;
    let chat = Chat {
        messages,
        max_tokens: request.max_tokens,
        stream_options: StreamOptions { include_usage: true },
        response_format: request.response_format.as_ref(),
        tools: request.tools.as_deref(),
        tool_choice: request.tool_choice.as_ref(),
        common: common(job),
    };
    encode(&chat).map(EngineCall::Chat)
}

fn embedding(inputs: &[String]) -> Result<EngineCall, WorkerError> {
    let body = encode(&Embedding { input: inputs, encoding_format: "float" })?;
    Ok(EngineCall::Embedding { body, inputs: inputs.len() })
}

fn rerank(inputs: &[String]) -> Result<EngineCall, WorkerError> {
    let Some((query, documents)) = inputs.split_first() else {
        return Err(WorkerError::Rejected("a rerank task needs a query and documents".to_owned()));
    };
    let body = encode(&Rerank { query, documents })?;
    Ok(EngineCall::Rerank { body, documents: documents.len() })
}

fn common(job: &Job) -> Common<'_> {
    Common {
        stream: true,
        seed: job.seed,
        cache_prompt: !(job.repeatable || job.request.kv_hint == Some(KvHint::Cold)),
        return_progress: true,
        sampling: job.request.sampling.as_ref(),
    }
}

/// OpenAI's `response_format` as the `json_schema` of `/completion`.
fn json_schema(format: &Value) -> Result<Option<Value>, WorkerError> {
    let unknown = || WorkerError::Rejected("this response_format is not known to llama.cpp".to_owned());
    match format.get("type").and_then(Value::as_str).ok_or_else(unknown)? {
        "text" => Ok(None),
        // The engine reads an empty schema as "any object".
        "json_object" => Ok(Some(format.get("schema").cloned().unwrap_or_else(|| json!({})))),
        "json_schema" => format.pointer("/json_schema/schema").cloned().map(Some).ok_or_else(unknown),
        _ => Err(unknown()),
    }
}

fn encode(body: &impl Serialize) -> Result<Vec<u8>, WorkerError> {
    serde_json::to_vec(body).map_err(|_| WorkerError::Internal("a job cannot be written as json".to_owned()))
}
