//! A request, whichever face it came through.

use api_types::ChatMessage;
use serde_json::Value;

/// What is asked of the model.
#[derive(Clone, Debug)]
pub struct Ask {
    /// The text to continue, with the chat template applied.
    pub prompt: String,
    /// The seed; without it one is drawn.
    pub seed: Option<u32>,
    /// Most tokens to generate; without it until the model is done.
    pub max_tokens: Option<u32>,
    /// Texts that end the output.
    pub stop: Vec<String>,
    /// Whether the slot's earlier prompt may be used.
    pub cache_prompt: bool,
    /// Whether to tell how far the prompt is read.
    pub progress: bool,
    /// Whether the model may not be done of its own accord.
    pub ignore_eos: bool,
    /// How the caller gets the answer, which decides when the engine notices that it has gone.
    pub delivery: Delivery,
}

/// How a caller gets the answer. Measured with llama.cpp: a closed connection is noticed when something is written to it, so a
/// stream without progress events keeps its slot through the prefill, and a plain request keeps it to the very end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// Token by token.
    Stream,
    /// The whole answer at once.
    Whole,
}

impl Default for Ask {
    fn default() -> Self {
        Self {
            prompt: String::new(),
            seed: None,
            max_tokens: None,
            stop: Vec::new(),
            cache_prompt: true,
            progress: false,
            ignore_eos: false,
            delivery: Delivery::Stream,
        }
    }
}

/// A chat as the model reads it: ChatML.
#[must_use]
pub fn render_chat(messages: &[ChatMessage]) -> String {
    let mut prompt = String::new();
    for message in messages {
        prompt.push_str("<|im_start|>");
        prompt.push_str(&message.role);
        prompt.push('\n');
        push_content(&mut prompt, message.content.as_ref());
        prompt.push_str("<|im_end|>\n");
    }
    prompt.push_str("<|im_start|>assistant\n");
    prompt
}

/// Content is a text or a list of parts of which some are texts.
fn push_content(prompt: &mut String, content: Option<&Value>) {
    match content {
        Some(Value::String(text)) => prompt.push_str(text),
        Some(Value::Array(parts)) => {
            for part in parts {
                prompt.push_str(part.get("text").and_then(Value::as_str).unwrap_or_default());
            }
        }
        _ => {}
    }
}
