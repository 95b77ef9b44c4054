//! Which request gets which answer.

use bytes::{Bytes, BytesMut};
use http::header::AUTHORIZATION;
use http::request::Parts;
use http::{Method, Request, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::body::{Dialect, TokenBody, collect};
use super::connection::Fate;
use super::request::{
    ChatRequest, CompletionRequest, Echo, EmbeddingsRequest, SlotFileRequest, TemplateRequest, TokenizeRequest,
};
use super::response::{BrokenOff, Reply, error, events, full, json as json_reply, long, refusal};
use super::{chat, completion, facts};
use crate::ask::{Ask, render_chat};
use crate::faults::{FaultKind, Faults, Inside, MidStream, Route};
use crate::simulation::{Condition, Opening, Refusal, Simulation, Stats};
use crate::slot_file::SlotFileError;
use crate::text::{self, BOS};

/// What the parts of a request have in common.
struct Call {
    sim: Simulation,
    fate: Fate,
    body: Bytes,
    fault: Option<Inside>,
    /// What a stream says of its length.
    length: Option<u64>,
}

type Answer = Result<Reply, BrokenOff>;

/// So many bytes of a head are its middle.
const HALF_HEAD: usize = 40;

/// Answers one request. Dropping the future is what happens when the client goes away.
pub(super) async fn route(request: Request<Incoming>, sim: Simulation, fate: Fate) -> Answer {
    fate.write_plainly();
    let (parts, body) = request.into_parts();
    let path = parts.uri.path();
    let query = parts.uri.query().unwrap_or_default();
    if let Some(ours) = path.strip_prefix("/mock/") {
        let body = read(body).await?;
        return Ok(mock(&parts.method, ours, query, &body, &sim).await);
    }
    let Some(route) = route_of(&parts.method, path, query) else {
        read(body).await?;
        return Ok(error(StatusCode::NOT_FOUND, "File Not Found"));
    };
    if !may_ask(&parts, sim.config().api_key.as_deref()) {
        read(body).await?;
        return Ok(error(StatusCode::UNAUTHORIZED, "Invalid API Key"));
    }
    let fault = sim.take_fault(route);
    if fault == Some(FaultKind::NoRead) {
        sim.faults_replaced().await;
        return Err(BrokenOff);
    }
    let body = read(body).await?;
    if route == Route::Generate {
        sim.count_request();
    }
    let opening = sim.open(fault).await;
    let mut call = Call { sim, fate, body, fault: None, length: None };
    match opening {
        Opening::Go(fault) => call.fault = fault,
        Opening::Refuse(status, text) => return Ok(refuse(status, text)),
        Opening::WebPage => return Ok(full(StatusCode::OK, "text/html", "<html><body>Welcome</body></html>\n")),
        Opening::TrickleHead(every) => call.fate.trickle_head(every),
        Opening::HalfHead => {
            call.fate.reset_after(HALF_HEAD);
            return Ok(full(StatusCode::OK, "text/event-stream", ""));
        }
        Opening::WrongLength(bytes) => call.length = Some(bytes),
        Opening::Healthy if route == Route::Health => return Ok(healthy()),
        Opening::Healthy => {}
    }
    if call.sim.condition() == Condition::Loading {
        if route == Route::Generate {
            // For tests that nothing is sent too early.
            eprintln!("mock-engine: request before ready");
        }
        return refusal(&Refusal::Loading);
    }
    if let (true, Some(fault)) = (route != Route::Generate, call.fault.and_then(Inside::at_once)) {
        match fault {
            MidStream::Trickle(every) => call.fate.trickle(every),
            fault => return call.plain_fault(fault).await,
        }
    }
    match (route, path) {
        (Route::Generate, "/completion" | "/completions") => call.completion().await,
        (Route::Generate, "/v1/embeddings" | "/embeddings") => call.embeddings().await,
        (Route::Generate, _) => call.chat().await,
        (Route::Health, _) => Ok(healthy()),
        (Route::Props, "/props") => Ok(json_reply(StatusCode::OK, &facts::props(&call.sim))),
        (Route::Props, _) => Ok(json_reply(StatusCode::OK, &facts::models(&call.sim))),
        (Route::Slots, _) => Ok(call.slots(query)),
        (Route::SaveSlot | Route::RestoreSlot, path) => Ok(call.slot_file(path, query).await),
        (Route::Metrics, _) => Ok(full(StatusCode::OK, "text/plain; version=0.0.4", facts::metrics(&call.sim))),
        (Route::Tokenize, "/apply-template") => Ok(call.apply_template()),
        (Route::Tokenize, _) => Ok(call.tokenize()),
    }
}

async fn read(body: Incoming) -> Result<Bytes, BrokenOff> {
    Ok(body.collect().await.map_err(|_| BrokenOff)?.to_bytes())
}

fn route_of(method: &Method, path: &str, query: &str) -> Option<Route> {
    Some(match (method.as_str(), path) {
        ("POST", "/completion" | "/completions" | "/v1/chat/completions" | "/chat/completions") => Route::Generate,
        ("POST", "/v1/embeddings" | "/embeddings") => Route::Generate,
        ("GET", "/health" | "/v1/health") => Route::Health,
        ("GET", "/props" | "/v1/models" | "/models") => Route::Props,
        ("GET", "/slots") => Route::Slots,
        ("POST", path) if path.starts_with("/slots/") => match action_of(query) {
            Some("save") => Route::SaveSlot,
            _ => Route::RestoreSlot,
        },
        ("GET", "/metrics") => Route::Metrics,
        ("POST", "/tokenize" | "/apply-template") => Route::Tokenize,
        _ => return None,
    })
}

/// What is to be done with a slot.
fn action_of(query: &str) -> Option<&str> {
    query.split('&').find_map(|pair| pair.strip_prefix("action="))
}

/// Source: `middleware_validate_api_key` of llama.cpp.
fn may_ask(parts: &Parts, key: Option<&str>) -> bool {
    let Some(key) = key else { return true };
    let public = matches!(parts.uri.path(), "/health" | "/v1/health" | "/models" | "/v1/models");
    let given = parts.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
    public || given == Some(key)
}

fn healthy() -> Reply {
    json_reply(StatusCode::OK, &json!({"status": "ok"}))
}

fn bad_request(problem: &serde_json::Error) -> Reply {
    error(StatusCode::BAD_REQUEST, problem.to_string())
}

fn refuse(status: u16, body: Option<String>) -> Reply {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    match body {
        None => error(status, "refused on purpose"),
        Some(body) => full(status, "text/plain", body),
    }
}

impl Call {
    async fn completion(self) -> Answer {
        let request: CompletionRequest = match self.parse() {
            Ok(request) => request,
            Err(problem) => return Ok(bad_request(&problem)),
        };
        let (ask, echo) = request.into_ask();
        self.generate(ask, echo, Flavour::Completion).await
    }

    async fn chat(self) -> Answer {
        let request: ChatRequest = match self.parse() {
            Ok(request) => request,
            Err(problem) => return Ok(bad_request(&problem)),
        };
        let (ask, echo) = request.into_ask();
        self.generate(ask, echo, Flavour::Chat).await
    }

    async fn generate(self, ask: Ask, echo: Echo, flavour: Flavour) -> Answer {
        let generation = match self.sim.start_with(ask, self.fault).await {
            Ok(generation) => generation,
            Err(refused) => return refusal(&refused),
        };
        let config = self.sim.config();
        if echo.stream {
            let dialect = match flavour {
                Flavour::Completion => Dialect::Completion(completion::Events::new(&config.model, echo, &generation)),
                Flavour::Chat => Dialect::Chat(chat::Events::new(config, &echo)),
            };
            return Ok(events(TokenBody::new(generation, dialect, self.fate, config.burst.get()), self.length));
        }
        if let Some(Inside::After(_, MidStream::Trickle(every))) = self.fault {
            self.fate.trickle(every);
        }
        let (text, finished) = match collect(generation).await {
            Ok(done) => done,
            Err(fault) => return self.plain_fault(fault).await,
        };
        Ok(match flavour {
            Flavour::Completion => {
                let mut out = BytesMut::new();
                completion::write_answer(&config.model, &echo, &text, &finished, &mut out);
                full(StatusCode::OK, "application/json; charset=utf-8", out.freeze())
            }
            Flavour::Chat => json_reply(StatusCode::OK, &chat::answer(config, &text, &finished)),
        })
    }

    async fn embeddings(self) -> Answer {
        let request: EmbeddingsRequest = match self.parse() {
            Ok(request) => request,
            Err(problem) => return Ok(bad_request(&problem)),
        };
        if let Some(fault) = self.fault.and_then(Inside::at_once) {
            return self.plain_fault(fault).await;
        }
        let (vectors, tokens) = match self.sim.embed(&request.input.into_vec()).await {
            Ok(embedded) => embedded,
            Err(refused) => return refusal(&refused),
        };
        let entry =
            |(index, vector): (usize, Vec<f32>)| json!({"embedding": vector, "index": index, "object": "embedding"});
        let data: Vec<Value> = vectors.into_iter().enumerate().map(entry).collect();
        let usage = json!({"prompt_tokens": tokens, "total_tokens": tokens});
        let model = &self.sim.config().model;
        Ok(json_reply(StatusCode::OK, &json!({"model": model, "object": "list", "usage": usage, "data": data})))
    }

    /// `?fail_on_no_slot=1` makes the status say whether a slot is free.
    fn slots(&self, query: &str) -> Reply {
        let none_free = self.sim.slots().iter().all(|slot| slot.task.is_some());
        if none_free && query.split('&').any(|pair| pair == "fail_on_no_slot=1") {
            return error(StatusCode::SERVICE_UNAVAILABLE, "no slot available");
        }
        json_reply(StatusCode::OK, &facts::slots(&self.sim))
    }

    /// Source: `post_slots` of llama.cpp.
    async fn slot_file(&self, path: &str, query: &str) -> Reply {
        let number = path.strip_prefix("/slots/").and_then(|number| number.parse::<usize>().ok());
        let action = action_of(query);
        let request: SlotFileRequest = match self.parse() {
            Ok(request) => request,
            Err(problem) => return bad_request(&problem),
        };
        let (Some(slot), Some(action @ ("save" | "restore"))) = (number, action) else {
            return error(StatusCode::BAD_REQUEST, if number.is_none() { "Invalid slot ID" } else { "Invalid action" });
        };
        let name = request.filename.as_str();
        let moved = match action {
            "save" => self.sim.save_slot(slot, name).await,
            _ => self.sim.restore_slot(slot, name).await,
        };
        let answer = match (action, moved) {
            ("save", Ok(moved)) => json!({
                "id_slot": slot, "filename": name, "n_saved": moved.tokens, "n_written": moved.bytes, "timings": {"save_ms": 0.1},
            }),
            (_, Ok(moved)) => json!({
                "id_slot": slot, "filename": name, "n_restored": moved.tokens, "n_read": moved.bytes,
                "timings": {"restore_ms": 0.1},
            }),
            (_, Err(problem)) => {
                let status = match problem {
                    SlotFileError::NoFolder => StatusCode::NOT_IMPLEMENTED,
                    SlotFileError::Save => StatusCode::INTERNAL_SERVER_ERROR,
                    SlotFileError::Name | SlotFileError::Restore => StatusCode::BAD_REQUEST,
                };
                return error(status, problem.to_string());
            }
        };
        json_reply(StatusCode::OK, &answer)
    }

    fn tokenize(&self) -> Reply {
        let request: TokenizeRequest = match self.parse() {
            Ok(request) => request,
            Err(problem) => return bad_request(&problem),
        };
        let special = request.add_special.then_some((BOS, "<bos>"));
        let words = special.into_iter().chain(text::words(&request.content));
        let token = |(id, piece): (u32, &str)| match request.with_pieces {
            true => json!({"id": id, "piece": piece}),
            false => json!(id),
        };
        json_reply(StatusCode::OK, &json!({"tokens": words.map(token).collect::<Vec<_>>()}))
    }

    fn apply_template(&self) -> Reply {
        match self.parse::<TemplateRequest>() {
            Ok(request) => json_reply(StatusCode::OK, &json!({"prompt": render_chat(&request.messages)})),
            Err(problem) => bad_request(&problem),
        }
    }

    fn parse<T: DeserializeOwned>(&self) -> serde_json::Result<T> {
        serde_json::from_slice(&self.body)
    }

    /// Outside a stream, a fault that waits for tokens strikes at once.
    async fn plain_fault(&self, fault: MidStream) -> Answer {
        match fault {
            MidStream::Stall => std::future::pending().await,
            MidStream::Crash(death) => self.sim.crash(death),
            MidStream::ErrorEvent => return Ok(error(StatusCode::INTERNAL_SERVER_ERROR, "the engine failed")),
            MidStream::MalformedEvent => {
                return Ok(full(StatusCode::OK, "application/json; charset=utf-8", "{\"content\":"));
            }
            MidStream::OversizedLine(bytes) => return Ok(long(bytes)),
            MidStream::Trickle(every) => self.fate.trickle(every),
            MidStream::Reset | MidStream::HalfEvent | MidStream::HalfCharacter | MidStream::CleanEnd => {}
        }
        self.fate.reset();
        Err(BrokenOff)
    }
}

/// Whose shapes an answer has.
#[derive(Clone, Copy, Debug)]
enum Flavour {
    Completion,
    Chat,
}

/// The routes that are ours.
async fn mock(method: &Method, path: &str, query: &str, body: &[u8], sim: &Simulation) -> Reply {
    match (method.as_str(), path) {
        ("GET", "faults") => json_reply(StatusCode::OK, &sim.faults()),
        ("POST", "faults") => match serde_json::from_slice::<Faults>(body) {
            Ok(faults) => {
                sim.set_faults(faults);
                json_reply(StatusCode::OK, &sim.faults())
            }
            Err(problem) => bad_request(&problem),
        },
        ("GET", "stats") => match wanted(query) {
            Some(wanted) => json_reply(StatusCode::OK, &sim.wait_until(|stats| has(stats, &wanted)).await),
            None => error(StatusCode::BAD_REQUEST, "wait for counts, as in `running=0&cancelled=1`"),
        },
        _ => error(StatusCode::NOT_FOUND, "File Not Found"),
    }
}

/// Counts to wait for; `None` when the query does not say such a thing.
fn wanted(query: &str) -> Option<Vec<(&str, u64)>> {
    let known = |name: &str| count(&Stats::default(), name).is_some();
    query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=')?;
            known(name).then_some((name, value.parse().ok()?))
        })
        .collect()
}

fn has(stats: &Stats, wanted: &[(&str, u64)]) -> bool {
    wanted.iter().all(|(name, value)| count(stats, name) == Some(*value))
}

fn count(stats: &Stats, name: &str) -> Option<u64> {
    Some(match name {
        "requests" => stats.requests,
        "running" => stats.running,
        "deferred" => stats.deferred,
        "completed" => stats.completed,
        "cancelled" => stats.cancelled,
        "failed" => stats.failed,
        "connections" => stats.connections,
        _ => return None,
    })
}
