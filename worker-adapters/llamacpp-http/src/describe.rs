//! What the engine tells about itself.

use adapter_api::{SlotView, WorkerProps};
use serde::Deserialize;

/// Answer to `GET /props`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Props {
    total_slots: Option<u32>,
    default_generation_settings: GenerationSettings,
    model_alias: Option<String>,
    model_path: Option<String>,
    build_info: Option<String>,
    chat_template: Option<String>,
    chat_template_caps: TemplateCaps,
    modalities: Modalities,
    /// Absent in older builds, which answer 501 instead.
    endpoint_slots: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct GenerationSettings {
    /// Per slot, unlike the server's own `--ctx-size`.
    n_ctx: Option<u32>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct TemplateCaps {
    supports_tools: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Modalities {
    vision: bool,
    audio: bool,
}

/// One entry of the answer to `GET /slots`.
#[derive(Debug, Deserialize)]
pub(crate) struct Slot {
    id: Option<u32>,
    is_processing: bool,
    /// Tokens in its cache. Only of a slot that has had a task, and not in older builds.
    n_prompt_tokens: Option<u64>,
}

/// Answer to `POST /tokenize`.
#[derive(Debug, Deserialize)]
pub(crate) struct Tokens {
    pub(crate) tokens: Vec<u32>,
}

/// Answer to `POST /apply-template`.
#[derive(Debug, Deserialize)]
pub(crate) struct Rendered {
    pub(crate) prompt: String,
}

impl Props {
    pub(crate) fn may_have_slots(&self) -> bool {
        self.endpoint_slots != Some(false)
    }

    /// Name and build. A server that was built without knowing its own commit says so in as many words.
    pub(crate) fn version(&self) -> String {
        match self.build_info.as_deref() {
            None | Some("") => "llama.cpp (unknown build)".to_owned(),
            Some(build) if build.contains("unknown") => format!("llama.cpp {build} (unknown build)"),
            Some(build) => format!("llama.cpp {build}"),
        }
    }

    /// Everything but the workloads and the free slots, which it does not tell.
    pub(crate) fn worker(self) -> WorkerProps {
        let features = [
            ("chat", self.chat_template.is_some_and(|template| !template.is_empty())),
            ("tools", self.chat_template_caps.supports_tools),
            ("vision", self.modalities.vision),
            ("audio", self.modalities.audio),
        ];
        // The path names folders of the engine's machine, which are nobody's business.
        let file = self.model_path.as_deref().and_then(|path| path.rsplit(['/', '\\']).next()).map(str::to_owned);
        WorkerProps {
            slots_total: self.total_slots,
            ctx_max: self.default_generation_settings.n_ctx,
            model: self.model_alias.filter(|alias| !alias.is_empty()).or(file),
            features: features.iter().filter(|(_, has)| *has).map(|(name, _)| (*name).to_owned()).collect(),
            ..WorkerProps::default()
        }
    }
}

/// Slots that run nothing.
pub(crate) fn free_slots(slots: &[Slot]) -> u32 {
    count(slots.iter().filter(|slot| !slot.is_processing))
}

/// Slots that run something.
pub(crate) fn busy_slots(slots: &[Slot]) -> u32 {
    count(slots.iter().filter(|slot| slot.is_processing))
}

/// As the trait has them. A slot that does not say its number is none that could be asked for.
pub(crate) fn slot_views(slots: &[Slot]) -> Vec<SlotView> {
    let view = |slot: &Slot| Some(SlotView { slot: slot.id?, busy: slot.is_processing, tokens: slot.n_prompt_tokens });
    slots.iter().filter_map(view).collect()
}

fn count<'a>(slots: impl Iterator<Item = &'a Slot>) -> u32 {
    u32::try_from(slots.count()).unwrap_or(u32::MAX)
}
