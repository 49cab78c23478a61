//! The machine's figures in the form the inner loop needs: integers, picoseconds, dense indices.

use std::collections::BTreeMap;

use cellbench_mutations::mutated;

use crate::bitset::bits;
use crate::machine::{Distance, MachineModel};
use crate::rng::Rng;

/// Simulated time and durations in picoseconds.
pub(crate) type Ps = u64;

/// A time that never comes.
pub(crate) const NEVER: Ps = Ps::MAX;

#[inline]
pub(crate) fn ps(ns: f64) -> Ps {
    let exact = ns.max(0.0) * 1e3;
    // Processors convert to signed numbers, and cut off; what is longer is as good as never over.
    if exact < 4e18 { (exact + 0.5) as i64 as Ps } else { exact as Ps }
}

#[inline]
pub(crate) fn ns(ps: Ps) -> f64 {
    // Processors convert signed numbers, and need several instructions for others. (A time that never
    // comes is as far off when the last half of what can be counted is cut off.)
    ps.min(NEVER >> 1).cast_signed() as f64 / 1e3
}

/// Returns the factor of a constant that a mutation doubles.
fn twice(mutated: bool) -> f64 {
    if mutated { 2.0 } else { 1.0 }
}

/// Multiplies a duration by a factor in 1/65536.
pub(crate) fn scale(duration: Ps, factor: u64) -> Ps {
    // A duration of more than three days is not a latency any more, and needs no variation.
    duration.checked_mul(factor).map_or(duration, |product| product >> 16)
}

/// Costs of a hardware thread, alone on its core or beside a busy sibling.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HitPs {
    pub(crate) load: Ps,
    pub(crate) store: Ps,
    pub(crate) atomic: Ps,
    /// Time, up to its end, for which an atomic has locked its line.
    pub(crate) locked: Ps,
    pub(crate) partial_store: Ps,
    pub(crate) fence: Ps,
    pub(crate) pause: Ps,
    pub(crate) clock: Ps,
}

/// Where a cache (that is: a core) is, in dense numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct CachePlace {
    llc: u16,
    socket: u16,
}

/// The machine in picoseconds.
#[derive(Debug)]
pub(crate) struct Costs {
    /// Costs of hits: `[0]` alone on the core, `[1]` with a busy SMT sibling.
    pub(crate) hit: [HitPs; 2],
    pub(crate) smt_slowdown: f64,
    pub(crate) llc_fill: Ps,
    pub(crate) memory_fill: Ps,
    pub(crate) remote_memory_fill: Ps,
    pub(crate) service: Ps,
    pub(crate) snoop_issue: Ps,
    /// For how long a new owner holds a line at the least that it took for an atomic, or for a store in
    /// its buffer.
    pub(crate) hold_atomic: Ps,
    pub(crate) hold_store: Ps,
    /// Share of a transfer for which a new owner keeps the line, in 1/65536.
    pub(crate) ownership_share: u64,
    /// Variation of that share, in 1/65536 of it.
    pub(crate) ownership_spread: u64,
    /// Factor on the window of a line that was taken for an addition, in 1/65536.
    pub(crate) addition_factor: u64,
    /// Rest of the window of a line that a buffered store asked for, in 1/65536 of it.
    pub(crate) drained_window: u64,
    pub(crate) migratory: bool,
    pub(crate) store_buffer_entries: usize,
    pub(crate) drained_by_atomics: bool,
    pub(crate) restart: Ps,
    /// Time lost by a core that lost a line which it had read ahead.
    pub(crate) replay: Ps,
    /// Accesses that a core looks ahead while it waits.
    pub(crate) run_ahead: u32,
    /// Whether read-modify-writes are among them.
    pub(crate) atomics_run_ahead: bool,
    /// Each request goes through the socket of the line's memory.
    through_home: bool,
    /// Loss of a core whose atomics were executed ahead, when another one reads its line.
    pub(crate) squash: Ps,
    pub(crate) interrupt: Ps,
    pub(crate) context_switch: Ps,
    /// Random variation in 1/65536.
    pub(crate) jitter: u64,
    /// Dense number of the core of each hardware thread. A cache is identified by its core.
    pub(crate) cache_of: Vec<u16>,
    caches: Vec<CachePlace>,
    /// The caches of each LLC and of each socket as sets, one bit each, in so many words.
    set_words: usize,
    llc_sets: Vec<u64>,
    socket_sets: Vec<u64>,
    /// Transfer cost by [`Distance`].
    by_distance: [Ps; 4],
    /// The dearest of these.
    dearest: Ps,
    /// Measured transfer cost between caches, `from * caches + to`.
    matrix: Option<Vec<Ps>>,
}

impl Costs {
    pub(crate) fn new(model: &MachineModel) -> Self {
        let places = model.places();
        let mut cache_numbers = BTreeMap::new();
        let mut caches = Vec::new();
        let mut first_thread = Vec::new();
        let mut cache_of = Vec::with_capacity(places.len());
        for (thread, place) in places.iter().enumerate() {
            let cache = *cache_numbers.entry(place.core).or_insert_with(|| {
                caches.push(CachePlace { llc: place.llc as u16, socket: place.socket as u16 });
                first_thread.push(thread);
                (caches.len() - 1) as u16
            });
            cache_of.push(cache);
        }
        let set_words = caches.len().div_ceil(64);
        let sets = |group: fn(&CachePlace) -> u16| {
            let groups = caches.iter().map(group).max().map_or(0, |last| usize::from(last) + 1);
            let mut sets = vec![0; groups * set_words];
            for (cache, place) in caches.iter().enumerate() {
                sets[usize::from(group(place)) * set_words + cache / 64] |= 1 << (cache % 64);
            }
            sets
        };
        let (llc_sets, socket_sets) = (sets(|place| place.llc), sets(|place| place.socket));
        let matrix = model.transfer.matrix_ns.as_ref().map(|rows| {
            let row = |&from: &usize| {
                let cells = &rows[from];
                first_thread.iter().map(|&to| ps(cells[to])).collect::<Vec<_>>()
            };
            first_thread.iter().flat_map(row).collect()
        });
        let hit = |factor: f64| HitPs {
            load: ps(model.hit.load_ns * factor * twice(mutated!(LoadDoubled))).max(1),
            store: ps(model.hit.store_ns * factor * twice(mutated!(StoreDoubled))).max(1),
            atomic: ps(model.hit.atomic_ns * factor * twice(mutated!(AtomicDoubled))).max(1),
            locked: if mutated!(AtomicLocksNothing) {
                0
            } else {
                ps(model.hit.atomic_ns * factor * model.core.atomic_locked)
            },
            partial_store: ps(model.hit.partial_store_ns * factor),
            fence: ps(model.hit.fence_ns * factor * twice(mutated!(FenceDoubled))),
            pause: ps(model.core.pause_ns * factor * twice(mutated!(PauseDoubled))).max(1),
            clock: ps(model.core.clock_ns * factor * twice(mutated!(ClockDoubled))),
        };
        let alone = hit(1.0);
        let transfer = &model.transfer;
        let by_distance =
            [0.0, transfer.same_llc_ns, transfer.cross_llc_ns, transfer.cross_socket_ns].map(ps);
        let by_distance = if mutated!(SocketsAsOne) {
            [by_distance[0], by_distance[1], by_distance[2], by_distance[2]]
        } else if mutated!(LlcsAsOne) {
            [by_distance[0], by_distance[1], by_distance[1], by_distance[3]]
        } else {
            by_distance
        };
        let window = ps(model.directory.ownership_window_ns);
        Self {
            hit: [
                alone,
                hit(if mutated!(SiblingsIgnored) { 1.0 } else { model.core.smt_slowdown }),
            ],
            smt_slowdown: model.core.smt_slowdown,
            llc_fill: ps(model.fill.llc_ns * twice(mutated!(LlcFillDoubled))),
            memory_fill: ps(model.fill.memory_ns * twice(mutated!(MemoryFillDoubled))),
            remote_memory_fill: ps(if mutated!(RemoteMemoryAsLocal) {
                model.fill.memory_ns
            } else {
                model.fill.remote_memory_ns
            }),
            service: ps(model.directory.service_ns * twice(mutated!(ServiceDoubled))),
            snoop_issue: ps(model.directory.snoop_issue_ns * twice(mutated!(SnoopIssueDoubled))),
            hold_atomic: window.max(alone.atomic),
            hold_store: window.max(alone.store),
            ownership_share: (model.directory.ownership_share * 65536.0) as u64,
            ownership_spread: (model.directory.ownership_spread * 65536.0) as u64,
            addition_factor: match model.directory.addition_share {
                Some(share) if model.directory.ownership_share > 0.0 => {
                    (share / model.directory.ownership_share * 65536.0) as u64
                }
                _ => 1 << 16,
            },
            drained_window: if mutated!(DrainedWindowWhole) {
                1 << 16
            } else {
                (model.directory.drained_window * 65536.0) as u64
            },
            migratory: model.directory.migratory && !mutated!(MigrationUnseen),
            store_buffer_entries: model.store_buffer.entries as usize,
            drained_by_atomics: model.store_buffer.drained_by_atomics,
            restart: ps(model.core.restart_ns * twice(mutated!(RestartDoubled))),
            replay: ps(model.core.replay_ns.unwrap_or(model.core.restart_ns)
                * twice(mutated!(ReplayDoubled))),
            run_ahead: model.core.run_ahead,
            atomics_run_ahead: model.core.atomics_run_ahead,
            through_home: model.transfer.through_home && !mutated!(HomePassedBy),
            squash: ps(model.core.disturbed_ns * twice(mutated!(SquashDoubled))),
            interrupt: ps(model.core.interrupt_ns * twice(mutated!(InterruptDoubled))),
            context_switch: ps(model.core.context_switch_ns * twice(mutated!(SwitchDoubled))),
            jitter: (model.core.jitter * 65536.0) as u64,
            cache_of,
            caches,
            set_words,
            llc_sets,
            socket_sets,
            by_distance,
            dearest: by_distance.into_iter().max().unwrap_or(0),
            matrix,
        }
    }

    pub(crate) fn threads(&self) -> usize {
        self.cache_of.len()
    }

    pub(crate) fn cache_count(&self) -> usize {
        self.caches.len()
    }

    /// Draws a factor close to one, in 1/65536, for the random variation of a duration.
    #[inline]
    pub(crate) fn factor(&self, rng: &mut Rng) -> u64 {
        65536 - self.jitter + rng.below(2 * self.jitter + 1)
    }

    pub(crate) fn distance(&self, from: u16, to: u16) -> Distance {
        const BY_BORDERS: [Distance; 4] =
            [Distance::SameCore, Distance::SameLlc, Distance::CrossLlc, Distance::CrossSocket];
        BY_BORDERS[self.borders(from, to)]
    }

    /// Returns how many borders lie between two caches: of cores, LLCs and sockets, each within the next. It is
    /// the number of their [`Distance`].
    #[inline]
    pub(crate) fn borders(&self, from: u16, to: u16) -> usize {
        let (a, b) = (self.caches[from as usize], self.caches[to as usize]);
        let crossed = [from != to, a.llc != b.llc, a.socket != b.socket];
        crossed.into_iter().map(usize::from).sum::<usize>() & 3
    }

    /// Returns the cost of a transfer between two caches.
    #[inline]
    pub(crate) fn transfer(&self, from: u16, to: u16) -> Ps {
        match &self.matrix {
            Some(matrix) if from != to => matrix[from as usize * self.caches.len() + to as usize],
            _ => self.by_distance[self.borders(from, to)],
        }
    }

    /// Returns the cost of a transfer between two caches of a line whose memory is in the socket of a
    /// third. Where requests go through that socket (CHI: the home node orders all requests for its
    /// addresses and snoops for them), the way crosses the link between the sockets unless all three
    /// are in one: once to the home and back, whoever of the two is beyond the link.
    #[inline]
    pub(crate) fn transfer_by(&self, home: u16, from: u16, to: u16) -> Ps {
        let direct = self.transfer(from, to);
        if self.through_home
            && let Some(place) = self.caches.get(home as usize)
        {
            let away = |cache: u16| self.caches[cache as usize].socket != place.socket;
            if away(from) || away(to) {
                return direct.max(self.by_distance[Distance::CrossSocket as usize]);
            }
        }
        direct
    }

    /// Returns the cost of the dearest transfer from one of a set of caches (one bit each) to a cache.
    pub(crate) fn farthest(&self, set: &[u64], to: u16) -> Ps {
        if self.matrix.is_some() {
            return bits(set).map(|from| self.transfer(from, to)).max().unwrap_or(0);
        }
        let CachePlace { llc, socket } = self.caches[to as usize];
        let (llc, socket) = (usize::from(llc), usize::from(socket));
        if mutated!(FarthestIgnored) {
            return 0;
        }
        let mut dearest = 0;
        for (word, &set) in set.iter().enumerate() {
            let own = if word == usize::from(to / 64) { 1 << (to % 64) } else { 0 };
            let others = set & !own;
            if others == 0 {
                continue;
            }
            let llc = self.llc_sets[llc * self.set_words + word];
            let socket = self.socket_sets[socket * self.set_words + word];
            let cost = |set: u64, distance: usize| {
                if others & set == 0 { 0 } else { self.by_distance[distance] }
            };
            dearest = dearest.max(cost(llc, 1)).max(cost(socket & !llc, 2)).max(cost(!socket, 3));
            if dearest == self.dearest {
                break;
            }
        }
        dearest
    }

    /// Returns the cost of the cheapest transfer between two of some caches, or [`NEVER`] if there are no two.
    pub(crate) fn shortest_transfer(&self, caches: &[u16]) -> Ps {
        let others = |from: u16| caches.iter().filter(move |&&to| to != from);
        let costs = |&from: &u16| others(from).map(move |&to| self.transfer(from, to)).min();
        caches.iter().filter_map(costs).min().unwrap_or(NEVER)
    }
}
