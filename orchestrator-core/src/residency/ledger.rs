//! Memory of devices: measured, promised, and on its way back.

use std::collections::BTreeMap;

/// Longest that memory is waited for that an engine held which has ended: the driver gives it back a moment later, in milliseconds.
pub const MEMORY_BACK_MS: u64 = 10_000;
/// How long it is counted on so much that nobody else has to go instead, in milliseconds.
const MEMORY_SOON_MS: u64 = 3_000;

/// Memory of one device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// The device, as the ledger counts them.
    pub device: usize,
    /// Bytes of it.
    pub bytes: u64,
}

/// What is known of the memory of devices, and what of it was promised to whom.
///
/// A promise counts in full until a reading that was taken after the load shows what the engine holds. Of an engine that is
/// loading, what two readings in a row have shown is no longer counted twice. What an engine held that has ended is free only
/// when a reading says so that was taken later.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    devices: Vec<Book>,
    claims: BTreeMap<usize, Claim>,
    /// Of engines that have ended since the last reading: what they took after it, nobody has seen.
    ended: Vec<(u64, Share)>,
}

/// One device.
#[derive(Clone, Debug, Default)]
struct Book {
    total: u64,
    reserve: u64,
    /// Free by the last reading; `None` while it cannot be read.
    free: Option<u64>,
    /// Used by then by nobody of ours that lives.
    unowned: Option<u64>,
    /// When the last reading was taken.
    taken_ms: Option<u64>,
    /// What engines that have ended were seen to hold, what they may have held at most, and no reading has shown free yet; and
    /// when the last of them ended.
    coming: u64,
    coming_at_most: u64,
    ended_ms: u64,
}

/// What was promised to a tenant.
#[derive(Clone, Debug)]
struct Claim {
    shares: Vec<Share>,
    /// Since when its engine is loaded.
    loaded_ms: Option<u64>,
}

/// A claim's part of one device.
#[derive(Clone, Copy, Debug)]
struct Share {
    device: usize,
    promised: u64,
    /// By the last reading, and by the one before: what is free may have been read before what is held.
    held: u64,
    held_before: u64,
    is_told: bool,
    /// The device was read since it was promised.
    was_read: bool,
    /// A reading has shown all that it took.
    settled: bool,
}

impl Share {
    /// What is promised and was not taken when the device was read.
    fn outstanding(&self) -> u64 {
        if self.settled { 0 } else { self.promised.saturating_sub(self.held.min(self.held_before)) }
    }

    /// What of the memory that is not free may be its own.
    fn seen(&self) -> u64 {
        match (self.was_read, self.is_told) {
            (false, _) => 0,
            (true, true) => self.held,
            (true, false) => self.taken(),
        }
    }

    /// What it takes in the end, as far as that is known.
    fn taken(&self) -> u64 {
        if self.settled && self.is_told { self.held } else { self.promised.max(self.held) }
    }
}

impl Ledger {
    /// Adds a device of which nothing was read yet, and says its number. `reserve_bytes` of it are for other programs; what they
    /// use counts towards it.
    pub fn add_device(&mut self, total_bytes: u64, reserve_bytes: u64) -> usize {
        self.devices.push(Book { total: total_bytes, reserve: reserve_bytes, ..Book::default() });
        self.devices.len() - 1
    }

    /// Number of devices.
    #[must_use]
    pub const fn devices(&self) -> usize {
        self.devices.len()
    }

    /// Takes in what was read of a device: what is free, `None` when that cannot be told, and what engines of tenants hold where
    /// the driver tells. `taken_ms` is when the reading began. Readings come in the order in which they were taken;
    /// one may be told more than once.
    pub fn read(&mut self, device: usize, free_bytes: Option<u64>, held: &[(usize, u64)], taken_ms: u64) {
        let Some(book) = self.devices.get_mut(device) else { return };
        book.free = free_bytes;
        let is_new = book.taken_ms.replace(taken_ms) != Some(taken_ms);
        self.ended.retain(|(ended_ms, share)| share.device != device || *ended_ms >= taken_ms);
        for (tenant, claim) in &mut self.claims {
            let told = held.iter().find(|(of, _)| of == tenant).map(|(_, bytes)| *bytes);
            for share in claim.shares.iter_mut().filter(|share| share.device == device) {
                if is_new {
                    share.held_before = share.held;
                }
                share.held = told.unwrap_or(0);
                share.is_told = told.is_some();
                share.was_read = true;
                share.settled |= claim.loaded_ms.is_some_and(|loaded_ms| taken_ms > loaded_ms);
            }
        }
        let living = self.claims.values().flat_map(|claim| &claim.shares).filter(|share| share.device == device);
        let seen: u64 = living.map(Share::seen).sum();
        let book = &mut self.devices[device];
        let unowned = free_bytes.map(|free| book.total.saturating_sub(free).saturating_sub(seen));
        if let (Some(before), Some(now)) = (book.unowned, unowned) {
            // What is used by nobody of ours has become less: it has come back, whoever has taken it since.
            let back = before.saturating_sub(now);
            book.coming = book.coming.saturating_sub(back).min(now);
            book.coming_at_most = book.coming_at_most.saturating_sub(back).min(now);
        }
        book.unowned = unowned;
    }

    /// Memory in all that a device has, in bytes.
    #[must_use]
    pub fn total(&self, device: usize) -> u64 {
        self.devices.get(device).map_or(0, |book| book.total)
    }

    /// What our engines can have of a device when nobody but the reserve uses it, in bytes.
    #[must_use]
    pub fn room(&self, device: usize) -> u64 {
        self.devices.get(device).map_or(0, |book| book.total.saturating_sub(book.reserve))
    }

    /// What of a device could be had if none of our engines had any, in bytes: other programs keep what they use.
    #[must_use]
    pub fn attainable(&self, device: usize) -> u64 {
        let Some(book) = self.devices.get(device) else { return 0 };
        let others = book.unowned.unwrap_or(0).saturating_sub(book.coming_at_most);
        book.total.saturating_sub(others.max(book.reserve))
    }

    /// What can be promised of a device now, in bytes; `None` while it cannot be read.
    #[must_use]
    pub fn available(&self, device: usize) -> Option<u64> {
        let book = self.devices.get(device)?;
        let free = book.free?;
        let of = |share: &&Share| share.device == device;
        let living = self.claims.values().flat_map(|claim| &claim.shares).filter(of);
        let ended = self.ended.iter().map(|(_, share)| share).filter(of);
        let outstanding: u64 = living.clone().chain(ended).map(Share::outstanding).sum();
        let seen: u64 = living.map(Share::seen).sum();
        // What nobody of ours holds, others do; what they do not use of their reserve, they may.
        let others = book.total.saturating_sub(free).saturating_sub(seen).saturating_sub(book.coming_at_most);
        Some(free.saturating_sub(outstanding).saturating_sub(book.reserve.saturating_sub(others)))
    }

    /// What is hoped to come back to a device soon from engines that have ended, in bytes.
    #[must_use]
    pub fn coming(&self, device: usize, now_ms: u64) -> u64 {
        let hoped = |book: &&Book| now_ms.saturating_sub(book.ended_ms) < MEMORY_SOON_MS;
        self.devices.get(device).filter(hoped).map_or(0, |book| book.coming)
    }

    /// Whether engines that have ended may still hold some of a device.
    #[must_use]
    pub fn may_come_back(&self, device: usize, now_ms: u64) -> bool {
        let may = |book: &Book| now_ms.saturating_sub(book.ended_ms) < MEMORY_BACK_MS && book.coming_at_most > 0;
        self.devices.get(device).is_some_and(may)
    }

    /// Promises memory to a tenant, if it can be promised. What it had before is forgotten.
    ///
    /// # Errors
    /// The parts that lack something, with what they lack; nothing is promised then.
    pub fn promise(&mut self, tenant: usize, parts: &[Part]) -> Result<(), Vec<Part>> {
        let lacking: Vec<Part> = parts
            .iter()
            .map(|part| Part {
                device: part.device,
                bytes: part.bytes.saturating_sub(self.available(part.device).unwrap_or(0)),
            })
            .filter(|part| part.bytes > 0)
            .collect();
        if lacking.is_empty() {
            self.claim(tenant, parts);
            return Ok(());
        }
        Err(lacking)
    }

    /// Writes down what a tenant takes whether or not it can be promised: an engine that is there already, or one that is tried
    /// although it may not fit.
    pub fn claim(&mut self, tenant: usize, parts: &[Part]) {
        let share = |part: &Part| Share {
            device: part.device,
            promised: part.bytes,
            held: 0,
            held_before: 0,
            is_told: false,
            was_read: false,
            settled: false,
        };
        let claim = Claim { shares: parts.iter().map(share).collect(), loaded_ms: None };
        self.claims.insert(tenant, claim);
    }

    /// A tenant's engine has loaded its model: it takes no more.
    pub fn loaded(&mut self, tenant: usize, now_ms: u64) {
        if let Some(claim) = self.claims.get_mut(&tenant) {
            claim.loaded_ms = claim.loaded_ms.or(Some(now_ms));
        }
    }

    /// A tenant's engine has ended, or none was started after all.
    pub fn released(&mut self, tenant: usize, now_ms: u64) {
        let Some(claim) = self.claims.remove(&tenant) else { return };
        for share in claim.shares {
            let held = if share.is_told || !share.settled { share.held } else { share.promised };
            let book = &mut self.devices[share.device];
            if now_ms.saturating_sub(book.ended_ms) >= MEMORY_BACK_MS {
                (book.coming, book.coming_at_most) = (0, 0);
            }
            book.coming = book.coming.saturating_add(held);
            book.coming_at_most = book.coming_at_most.saturating_add(share.taken());
            book.unowned = book.unowned.map(|unowned| unowned.saturating_add(share.seen()));
            book.ended_ms = now_ms;
            self.ended.push((now_ms, share));
        }
    }

    /// What a tenant holds by readings that were taken after its load, part by part; `None` while there is none, or where the
    /// driver does not tell.
    #[must_use]
    pub fn measured(&self, tenant: usize) -> Option<Vec<Part>> {
        let part = |share: &Share| {
            (share.settled && share.is_told).then_some(Part { device: share.device, bytes: share.held })
        };
        self.claims.get(&tenant)?.shares.iter().map(part).collect()
    }

    /// Whether readings that were taken after a tenant's load have shown all that it took.
    #[must_use]
    pub fn is_settled(&self, tenant: usize) -> bool {
        self.claims.get(&tenant).is_some_and(|claim| claim.shares.iter().all(|share| share.settled))
    }

    /// What would come back to a device if a tenant's engine ended, in bytes.
    #[must_use]
    pub fn freed_by(&self, tenant: usize, device: usize) -> u64 {
        let Some(claim) = self.claims.get(&tenant) else { return 0 };
        let of = |share: &&Share| share.device == device;
        claim.shares.iter().filter(of).map(Share::taken).sum()
    }

    /// Whether another tenant has memory of a device of which this holds.
    #[must_use]
    pub fn has_others(&self, tenant: usize, of: impl Fn(&Part) -> bool) -> bool {
        let others = self.claims.iter().filter(|(other, _)| **other != tenant);
        let mut shares = others.flat_map(|(_, claim)| &claim.shares);
        shares.any(|share| of(&Part { device: share.device, bytes: share.promised }))
    }

    /// Whether memory was promised to a tenant.
    #[must_use]
    pub fn has_claim(&self, tenant: usize) -> bool {
        self.claims.contains_key(&tenant)
    }
}
