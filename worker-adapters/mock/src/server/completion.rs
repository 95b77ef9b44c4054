//! The events of `POST /completion`.

use std::fmt::Write as _;

use bytes::{BufMut, BytesMut};
use serde::Serialize;
use serde_json::Value;

use super::request::Echo;
use crate::generation::{Finished, Generation, Prefill, StopType, Text, Token};

/// Writes one stream's events.
pub(super) struct Events {
    model: String,
    echo: Echo,
    /// How every token event ends.
    tail: Box<[u8]>,
}

impl Events {
    pub(super) fn new(model: &str, echo: Echo, generation: &Generation) -> Self {
        let tail = format!(",\"tokens_evaluated\":{}}}\n\n", generation.tokens_in());
        Self { model: model.to_owned(), echo, tail: tail.into_bytes().into() }
    }

    pub(super) fn token(&mut self, token: &Token, out: &mut BytesMut) {
        match &token.text {
            Text::Piece(piece) => out.extend_from_slice(&piece.event_head),
            Text::Loose(text) => write_event_head(text, token.id, out),
        }
        put_number(token.tokens_out, out);
        out.extend_from_slice(&self.tail);
    }

    pub(super) fn prefill(&mut self, prefill: &Prefill, out: &mut BytesMut) {
        // llama.cpp puts token id 0 into these events; it is not a token.
        write_event_head("", 0, out);
        let Prefill { total, cached, processed, elapsed_ms } = prefill;
        let elapsed_ms = elapsed_ms.round();
        put(
            out,
            format_args!(
                "0,\"tokens_evaluated\":{total},\"prompt_progress\":\
                 {{\"total\":{total},\"cache\":{cached},\"processed\":{processed},\"time_ms\":{elapsed_ms}}}}}\n\n"
            ),
        );
    }

    pub(super) fn finished(&mut self, finished: &Finished, out: &mut BytesMut) {
        put(out, format_args!("data: "));
        write_answer(&self.model, &self.echo, &finished.rest, finished, out);
        put(out, format_args!("\n\n"));
    }
}

fn write_event_head(text: &str, id: u32, out: &mut BytesMut) {
    let text = Value::from(text);
    put(
        out,
        format_args!(
            "data: {{\"index\":0,\"content\":{text},\"tokens\":[{id}],\"stop\":false,\"id_slot\":-1,\"tokens_predicted\":"
        ),
    );
}

/// The last event, which is also the whole answer of a request that does not stream.
pub(super) fn write_answer(model: &str, echo: &Echo, content: &str, finished: &Finished, out: &mut BytesMut) {
    let (stop_type, truncated, word) = match &finished.stop {
        StopType::Eos => ("eos", false, ""),
        StopType::Limit { truncated } => ("limit", *truncated, ""),
        StopType::Word(word) => ("word", false, word.as_str()),
    };
    let last_position = (finished.tokens_in + finished.tokens_out).saturating_sub(1);
    let (content, model, word) = (Value::from(content), Value::from(model), Value::from(word));
    let Finished { slot, tokens_in, tokens_out, .. } = finished;
    put(
        out,
        format_args!(
            "{{\"index\":0,\"content\":{content},\"tokens\":[],\"id_slot\":{slot},\"stop\":true,\"model\":{model},\
             \"tokens_predicted\":{tokens_out},\"tokens_evaluated\":{tokens_in},\"generation_settings\":"
        ),
    );
    write_settings(echo, out);
    let prompt = Value::from(format!("<bos>{}", echo.prompt));
    put(
        out,
        format_args!(
            ",\"prompt\":{prompt},\"has_new_line\":false,\"truncated\":{truncated},\"stop_type\":\"{stop_type}\",\
             \"stopping_word\":{word},\"tokens_cached\":{last_position},\"timings\":"
        ),
    );
    write_json(&Timings::from(finished), out);
    put(out, format_args!("}}"));
}

/// Samplers are not simulated, so most settings are llama.cpp's defaults, word for word.
fn write_settings(echo: &Echo, out: &mut BytesMut) {
    let Echo { stream, seed, n_predict, temperature, .. } = echo;
    let stop = Value::from(echo.stop.clone());
    put(out, format_args!("{{\"seed\":{seed},\"temperature\":{temperature:?},"));
    out.extend_from_slice(SAMPLER_SETTINGS.as_bytes());
    put(
        out,
        format_args!(
            ",\"stop\":{stop},\"max_tokens\":{n_predict},\"n_predict\":{n_predict},\"n_keep\":0,\"n_discard\":0,\
             \"ignore_eos\":false,\"stream\":{stream},"
        ),
    );
    out.extend_from_slice(OTHER_SETTINGS.as_bytes());
    put(out, format_args!("}}"));
}

const SAMPLER_SETTINGS: &str = concat!(
    r#""dynatemp_range":0.0,"dynatemp_exponent":1.0,"top_k":40,"top_p":0.949999988079071,"#,
    r#""min_p":0.05000000074505806,"top_n_sigma":-1.0,"xtc_probability":0.0,"xtc_threshold":0.10000000149011612,"#,
    r#""typical_p":1.0,"repeat_last_n":64,"repeat_penalty":1.0,"presence_penalty":0.0,"frequency_penalty":0.0,"#,
    r#""dry_multiplier":0.0,"dry_base":1.75,"dry_allowed_length":2,"dry_penalty_last_n":64,"#,
    r#""dry_sequence_breakers":["\n",":","\"","*"],"mirostat":0,"mirostat_tau":5.0,"#,
    r#""mirostat_eta":0.10000000149011612,"adaptive_target":-1.0,"adaptive_decay":0.8999999761581421"#,
);

const OTHER_SETTINGS: &str = concat!(
    r#""logit_bias":[],"n_probs":0,"min_keep":0,"grammar":"","grammar_lazy":false,"grammar_triggers":[],"#,
    r#""preserved_tokens":[],"chat_format":"Content-only","reasoning_format":"deepseek","#,
    r#""reasoning_in_content":false,"generation_prompt":"","samplers":["penalties","dry","top_n_sigma","top_k","#,
    r#""typ_p","top_p","min_p","xtc","temperature"],"speculative.types":"none","timings_per_token":false,"#,
    r#""post_sampling_probs":false,"backend_sampling":false,"lora":[]"#,
);

/// `timings`, in milliseconds, tokens and tokens per second.
#[derive(Debug, Serialize)]
pub(super) struct Timings {
    cache_n: u32,
    prompt_n: u32,
    prompt_ms: f64,
    prompt_per_token_ms: f64,
    prompt_per_second: f64,
    predicted_n: u32,
    predicted_ms: f64,
    predicted_per_token_ms: f64,
    predicted_per_second: f64,
}

impl From<&Finished> for Timings {
    fn from(finished: &Finished) -> Self {
        let prompt_n = finished.tokens_in - finished.cached;
        Self {
            cache_n: finished.cached,
            prompt_n,
            prompt_ms: finished.prompt_ms,
            prompt_per_token_ms: ratio(finished.prompt_ms, prompt_n.into()),
            prompt_per_second: ratio(f64::from(prompt_n) * 1000.0, finished.prompt_ms),
            predicted_n: finished.tokens_out,
            predicted_ms: finished.predicted_ms,
            predicted_per_token_ms: ratio(finished.predicted_ms, finished.tokens_out.into()),
            predicted_per_second: ratio(f64::from(finished.tokens_out) * 1000.0, finished.predicted_ms),
        }
    }
}

fn ratio(a: f64, b: f64) -> f64 {
    if b == 0.0 { 0.0 } else { a / b }
}

pub(super) fn put(out: &mut BytesMut, text: std::fmt::Arguments<'_>) {
    // Writing to memory fails only for want of memory, which aborts.
    let _infallible = out.write_fmt(text);
}

pub(super) fn write_json(value: &impl Serialize, out: &mut BytesMut) {
    // Only plain structs come here; their serialization cannot fail.
    let _infallible = serde_json::to_writer(out.writer(), value);
}

/// Decimal digits, without the formatting machinery: this runs once per token.
fn put_number(mut number: u32, out: &mut BytesMut) {
    let mut digits = [0_u8; 10];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}
