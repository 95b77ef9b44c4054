//! The three kinds of input, and which workload takes which.

use api_types::{ChatMessage, TaskRequest, Workload};

use crate::Refusal;

const ROLES: [&str; 4] = ["system", "user", "assistant", "tool"];

pub(super) fn check(request: &TaskRequest) -> Result<(), Refusal> {
    let given = usize::from(request.prompt.is_some())
        + usize::from(request.messages.is_some())
        + usize::from(request.inputs.is_some());
    if given != 1 {
        return Err(Refusal::invalid(format!("exactly one of prompt, messages and inputs must be given, not {given}")));
    }
    match (request.workload, &request.inputs) {
        (Workload::Completion, None) => {}
        (Workload::Completion, Some(_)) => {
            return Err(Refusal::invalid("a completion takes prompt or messages; inputs are for embedding and rerank"));
        }
        (workload, None) => {
            return Err(Refusal::invalid(format!(
                "workload {workload} takes inputs; prompt and messages are for completion"
            )));
        }
        (workload, Some(inputs)) => check_inputs(workload, inputs.len())?,
    }
    match &request.messages {
        Some(messages) => check_messages(messages),
        None => Ok(()),
    }
}

fn check_inputs(workload: Workload, count: usize) -> Result<(), Refusal> {
    match (workload, count) {
        (_, 0) => Err(Refusal::invalid("inputs is empty; give at least one")),
        (Workload::Rerank, 1) => {
            Err(Refusal::invalid("rerank needs at least 2 inputs: the query first, then what to score against it"))
        }
        _ => Ok(()),
    }
}

fn check_messages(messages: &[ChatMessage]) -> Result<(), Refusal> {
    if messages.is_empty() {
        return Err(Refusal::invalid("messages is empty; give at least one"));
    }
    messages.iter().enumerate().try_for_each(|(index, message)| check_message(index, message))
}

fn check_message(index: usize, message: &ChatMessage) -> Result<(), Refusal> {
    if !ROLES.contains(&message.role.as_str()) {
        // The role itself is not repeated: a client that mixes fields up may have put text there.
        return Err(Refusal::invalid(format!("messages[{index}].role must be one of {}", ROLES.join(", "))));
    }
    let calls_tools = message.role == "assistant" && message.other.contains_key("tool_calls");
    match &message.content {
        None if !calls_tools => Err(Refusal::invalid(format!("messages[{index}].content is missing"))),
        Some(content) if !(content.is_string() || content.is_array()) => {
            Err(Refusal::invalid(format!("messages[{index}].content must be text or a list of parts")))
        }
        _ => Ok(()),
    }
}
