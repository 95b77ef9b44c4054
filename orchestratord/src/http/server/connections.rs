//! How many connections are open, in all and of each address.
//!
//! A client over the limit is told so rather than left in the backlog: one that waits there cannot tell a full server from a
//! dead one, and neither can a health check. A few seats are kept for these answers; what comes beyond is dropped.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

use config_schema::Server as Settings;
use tracing::warn;

/// Connections beyond the limit that get an answer, in all and of one address.
const EXTRA_IN_ALL: usize = 64;
const EXTRA_PER_ADDRESS: usize = 8;

/// The open connections.
pub(super) struct Connections {
    in_all: usize,
    per_address: Option<usize>,
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    in_all: usize,
    over_limit: usize,
    by_address: HashMap<IpAddr, usize>,
}

impl Connections {
    pub(super) fn new(settings: &Settings) -> Self {
        Self {
            in_all: settings.max_connections.get(),
            per_address: settings.max_connections_per_address.map(Into::into),
            open: Mutex::default(),
        }
    }

    /// A seat for a connection from this address; `None` when it is not even worth an answer.
    pub(super) fn seat(self: &Arc<Self>, addr: IpAddr) -> Option<Seat> {
        let source = source(addr);
        let (room, room_of_address) = (self.in_all, self.room_of(source));
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let of_address = open.by_address.get(&source).copied().unwrap_or(0);
        if open.in_all >= room.saturating_add(EXTRA_IN_ALL)
            || of_address >= room_of_address.saturating_add(EXTRA_PER_ADDRESS)
        {
            return None;
        }
        let is_over_limit = open.in_all >= room || of_address >= room_of_address;
        if is_over_limit && open.over_limit == 0 {
            warn!(%addr, open = open.in_all, of_address, "too many connections; further ones are refused");
        }
        open.in_all += 1;
        open.over_limit += usize::from(is_over_limit);
        open.by_address.insert(source, of_address + 1);
        Some(Seat { connections: Arc::clone(self), source, is_over_limit })
    }

    /// Unless it is set, an address has a quarter of all; loopback has no limit, since a reverse proxy there speaks for many.
    fn room_of(&self, source: IpAddr) -> usize {
        match self.per_address {
            Some(limit) => limit,
            None if source.is_loopback() => usize::MAX,
            None => self.in_all.div_ceil(4),
        }
    }
}

/// What counts as one address: an IPv6 site has 2^64 of its own.
fn source(addr: IpAddr) -> IpAddr {
    match addr.to_canonical() {
        IpAddr::V6(addr) if !addr.is_loopback() => {
            IpAddr::V6(Ipv6Addr::from_bits(addr.to_bits() & (u128::from(u64::MAX) << 64)))
        }
        other => other,
    }
}

/// The place of one open connection.
pub(super) struct Seat {
    connections: Arc<Connections>,
    source: IpAddr,
    is_over_limit: bool,
}

impl Seat {
    /// Whether there was no room, so that all it gets is that answer.
    pub(super) fn is_over_limit(&self) -> bool {
        self.is_over_limit
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut open = self.connections.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.in_all -= 1;
        open.over_limit -= usize::from(self.is_over_limit);
        if let Some(count) = open.by_address.get_mut(&self.source) {
            *count -= 1;
            if *count == 0 {
                open.by_address.remove(&self.source);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::num::NonZeroUsize;
    use std::sync::Arc;

    use config_schema::Server as Settings;
    use proptest::prelude::*;

    use super::{Connections, EXTRA_IN_ALL, EXTRA_PER_ADDRESS, Seat};

    fn connections(in_all: usize, per_address: Option<usize>) -> Arc<Connections> {
        Arc::new(Connections::new(&Settings {
            max_connections: NonZeroUsize::new(in_all).expect("not zero"),
            max_connections_per_address: per_address.and_then(NonZeroUsize::new),
            ..Settings::default()
        }))
    }

    fn addr(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    /// One address takes its share and no more; the others, and those on this machine, still find room.
    #[test]
    fn an_address_has_its_share() {
        let connections = connections(400, None);
        let take = |from: &str| connections.seat(addr(from));
        let greedy: Vec<Seat> = std::iter::from_fn(|| take("192.0.2.7")).collect();
        assert_eq!(greedy.len(), 100 + EXTRA_PER_ADDRESS);
        assert_eq!(greedy.iter().filter(|seat| seat.is_over_limit()).count(), EXTRA_PER_ADDRESS);
        assert!(take("::ffff:192.0.2.7").is_none(), "the same address in another notation");
        assert!(take("192.0.2.8").is_some_and(|seat| !seat.is_over_limit()));
        let site: Vec<Seat> = (0..108).filter_map(|host| take(&format!("2001:db8::{host:x}"))).collect();
        assert!(site[99].connections.seat(addr("2001:db8::ffff")).is_none(), "one site is one address");
        let local: Vec<Seat> = std::iter::from_fn(|| take("127.0.0.1")).collect();
        assert_eq!(local.iter().filter(|seat| !seat.is_over_limit()).count(), 400 - 2 * (100 + EXTRA_PER_ADDRESS));
    }

    proptest! {
        /// Whatever comes and goes, the counts are those of the open seats, and nothing is left of closed ones.
        #[test]
        fn the_counts_are_right(steps in prop::collection::vec((0_u8..6, any::<bool>()), 1..200), limit in 1_usize..20) {
            let connections = connections(limit, Some(limit.div_ceil(2)));
            let mut seats: Vec<Seat> = Vec::new();
            for (host, opens) in steps {
                if opens {
                    seats.extend(connections.seat(IpAddr::from([10, 0, 0, host])));
                } else if !seats.is_empty() {
                    seats.swap_remove(usize::from(host) % seats.len());
                }
                let open = connections.open.lock().expect("no panic");
                prop_assert_eq!(open.in_all, seats.len());
                prop_assert_eq!(open.over_limit, seats.iter().filter(|seat| seat.is_over_limit()).count());
                prop_assert_eq!(open.by_address.values().sum::<usize>(), seats.len());
                prop_assert!(open.in_all <= limit + EXTRA_IN_ALL);
            }
            drop(seats);
            let open = connections.open.lock().expect("no panic");
            prop_assert!(open.in_all == 0 && open.over_limit == 0 && open.by_address.is_empty());
        }
    }
}
