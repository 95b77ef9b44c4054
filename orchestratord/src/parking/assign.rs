//! Which slot holds what of which session.
//!
//! llama.cpp names the slot at the end of a completion and not at the end of a chat. It says of each slot how many tokens it
//! remembers, and of each task how many it read and wrote; where only one slot fits one session, that is the one. Slots are not
//! chosen for tasks: the engine chooses by common beginnings of prompts, which is better than what could be done from outside.
//! Whether a slot really held that much is seen again when it was saved.

use adapter_api::SlotView;
use orchestrator_core::session::{Prefix, Tail};

/// Whether a slot that remembers so many tokens may be what a task has left. The last token that it wrote was never read.
pub(super) const fn holds(tokens: u64, tail: Tail) -> bool {
    tokens > 0 && (tokens == tail.tokens || tokens + 1 == tail.tokens)
}

/// The slots of the prefixes of which that can be told, in their order. Each slot has one at most; of two that were said to be in
/// the same, the earlier in the list.
pub(super) fn assign<'a>(held: &'a [Prefix], slots: &[SlotView]) -> Vec<(&'a Prefix, Tail, u32)> {
    let known: Vec<_> = held.iter().filter_map(|prefix| Some((prefix, prefix.tail?))).collect();
    let mut free: Vec<SlotView> = slots.iter().filter(|view| !view.busy).copied().collect();
    let mut found = vec![None; known.len()];
    for ((_, tail), found) in known.iter().zip(&mut found) {
        let is_it =
            |view: &SlotView| Some(view.slot) == tail.slot && view.tokens.is_none_or(|tokens| holds(tokens, *tail));
        if let Some(at) = free.iter().position(is_it) {
            *found = Some(free.remove(at).slot);
        }
    }
    // One slot that does not say what it holds holds the latest.
    let is_only = slots.len() == 1;
    let may_be = |view: &SlotView, tail: Tail| view.tokens.map_or(is_only, |tokens| holds(tokens, tail));
    let unknown = |tail: &Tail| tail.slot.is_none();
    let alike = |view: &SlotView| known.iter().filter(|(_, tail)| unknown(tail) && may_be(view, *tail)).count();
    let mut guesses = Vec::new();
    for (index, (_, tail)) in known.iter().enumerate().filter(|(_, (_, tail))| unknown(tail)) {
        let mut candidates = free.iter().filter(|view| may_be(view, *tail));
        if let (Some(view), None) = (candidates.next(), candidates.next())
            && (is_only || alike(view) == 1)
        {
            guesses.push((index, view.slot));
        }
    }
    for (index, slot) in guesses {
        if !found.contains(&Some(slot)) {
            found[index] = Some(slot);
        }
    }
    known.into_iter().zip(found).filter_map(|((prefix, tail), slot)| Some((prefix, tail, slot?))).collect()
}

#[cfg(test)]
mod tests {
    use adapter_api::SlotView;
    use orchestrator_core::session::{Ask, Home, Prefix, SessionLimits, Sessions, Tail};

    use super::assign;

    /// Prefixes of sessions with these tails, the first the latest.
    fn held(tails: &[(Option<u32>, u64)]) -> Vec<Prefix> {
        let mut sessions = Sessions::new(SessionLimits::default());
        for (now_ms, (slot, tokens)) in (1..).zip(tails.iter().rev()) {
            let id = |kind: u8| format!("00000000-0000-4000-{kind}000-{now_ms:012}");
            let task = id(9).parse().expect("a UUID");
            let ask = Ask { max_tokens: 1, decode_ms: None };
            sessions.admit(id(8).parse().expect("a UUID"), task, ask, now_ms).expect("it is admitted");
            sessions.mark_warm(task, Home { pool_id: "a".into(), replica_id: "r0".into() }, now_ms);
            sessions.hold(task, Tail { slot: *slot, tokens: *tokens });
        }
        sessions.warm_on(&"a".into(), 100)
    }

    fn slots(tokens: &[Option<u64>]) -> Vec<SlotView> {
        let view = |(slot, tokens): (u32, &Option<u64>)| SlotView { slot, busy: false, tokens: *tokens };
        (0..).zip(tokens).map(view).collect()
    }

    /// LO-SWP-07: a session's slot is the one that the engine has named, or the only one that holds as much as the session left;
    /// where that cannot be told, none.
    #[test]
    fn slots_are_found_by_name_or_by_what_they_hold() {
        type Case<'a> = (&'a str, &'a [(Option<u32>, u64)], &'a [Option<u64>], &'a [(u64, u32)]);
        let cases: &[Case<'_>] = &[
            ("named", &[(Some(1), 50), (Some(0), 70)], &[Some(69), Some(49)], &[(50, 1), (70, 0)]),
            ("named, by a build that tells no more", &[(Some(1), 50)], &[None, None], &[(50, 1)]),
            ("used by another since", &[(Some(1), 50)], &[Some(69), Some(30)], &[]),
            ("the later one has it", &[(Some(1), 50), (Some(1), 70)], &[None, None], &[(50, 1)]),
            ("not named", &[(None, 50), (None, 70)], &[Some(69), Some(50)], &[(50, 1), (70, 0)]),
            ("two slots fit", &[(None, 50)], &[Some(49), Some(49)], &[]),
            ("two sessions fit", &[(None, 50), (None, 49)], &[Some(49), Some(7)], &[]),
            ("named and not", &[(None, 50), (Some(0), 50)], &[Some(49), Some(49)], &[(50, 1), (50, 0)]),
            ("the only slot", &[(None, 50), (None, 70)], &[None], &[(50, 0)]),
            ("the only slot, used since", &[(None, 50)], &[Some(20)], &[]),
            ("nothing told", &[(None, 50)], &[None, None], &[]),
            ("empty", &[(Some(0), 1)], &[Some(0)], &[]),
        ];
        for (name, tails, views, expected) in cases {
            let held = held(tails);
            let found = assign(&held, &slots(views));
            let found: Vec<_> = found.into_iter().map(|(_, tail, slot)| (tail.tokens, slot)).collect();
            assert_eq!(found, *expected, "{name}");
        }
        let busy = [SlotView { slot: 0, busy: true, tokens: Some(49) }];
        assert!(assign(&held(&[(Some(0), 50), (None, 50)]), &busy).is_empty(), "what works is not saved");
    }
}
