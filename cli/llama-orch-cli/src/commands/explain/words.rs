//! The server's words for filters and tie-breakers, as clauses of a sentence.

use api_types::MoveReason;

/// Why a pool could not take the task.
const FILTERS: &[(&str, &str)] = &[
    ("no_pools", "no pools are configured"),
    ("engine_mismatch", "it runs another kind of engine"),
    ("model_mismatch", "it serves another model"),
    ("avoided", "the client asked to avoid it"),
    ("not_preferred", "the client asked for other pools"),
    ("mask_mismatch", "it uses other devices than the client requires"),
    ("sampler_profile_mismatch", "it has another sampler profile than the client wants"),
    ("determinism_mismatch", "it does not promise equal output for equal requests"),
    ("ctx_too_small", "its context is too small"),
    ("quant_unsupported", "it cannot run the model's quantisation"),
    ("missing_extension", "it lacks an ability that the task needs"),
    ("compute_capability", "its GPU's compute capability is too low"),
    ("vram_insufficient", "it has too little video memory"),
    ("not_ready", "it was not ready"),
    ("draining", "it was draining"),
    ("stale_snapshot", "it had not been heard from lately"),
    ("no_free_slots", "it had no slot at all"),
    ("queue_full", "its queue was full"),
    ("pinned_pool_infeasible", "the pool that the client pinned could not take the task"),
    ("no_preferred_feasible", "none of the pools that the client prefers could take the task"),
];

/// Why the chosen pool won, and why another one lost.
const TIE_BREAKERS: &[(&str, &str, &str)] = &[
    ("predicted_end", "it was predicted to end the task first", "it was predicted to end the task later"),
    ("affinity", "it served the session last", "it did not serve the session last"),
    ("loaded", "its model was loaded", "its model was not loaded"),
    ("least_loaded", "it was the least loaded", "it was more loaded"),
    ("residual_vram", "it had the most free video memory", "it had less free video memory"),
    ("perf_tokens_per_s", "it was measured as the fastest", "it was measured as slower"),
    ("pool_id", "its id comes first, all else being equal", "its id comes later, all else being equal"),
];

/// Why a pool could not take the task; a word that is not known here stands for itself.
pub(super) fn filter(word: &str) -> &str {
    FILTERS.iter().find(|(known, _)| *known == word).map_or(word, |(_, clause)| clause)
}

/// Why the chosen pool won.
pub(super) fn won(word: &str) -> &str {
    TIE_BREAKERS.iter().find(|(known, ..)| *known == word).map_or(word, |(_, clause, _)| clause)
}

/// Why another pool lost.
pub(super) fn lost(word: &str) -> &str {
    TIE_BREAKERS.iter().find(|(known, ..)| *known == word).map_or(word, |(.., clause)| clause)
}

/// Why a task left a pool for another one.
pub(super) fn moved(reason: MoveReason) -> &'static str {
    match reason {
        MoveReason::Idle => "the new pool had a free slot first",
        MoveReason::Closed => "the old pool stopped taking work",
        MoveReason::Misfit => "the old pool could no longer run it",
        MoveReason::WorkerLost => "its worker was lost",
        MoveReason::Recovered => "it was taken up again after a restart of the orchestrator",
    }
}
