//! The names of queue nodes, and the nodes of one CPU, at the ends of every range.

use std::collections::BTreeSet;

use super::{Claim, LEVELS, MAX_CPUS, decode_tail, encode_tail};
use crate::machine::MachineConfig;
use crate::platform::Stepped;
use crate::{CpuId, Machine};

#[test]
fn every_node_has_a_name_of_its_own_in_the_layout_of_the_kernel() {
    let mut names = BTreeSet::new();
    for cpu in [0, 1, 61, 62, 63, 64, 126, 127, 254, 255, 256, 4094, MAX_CPUS - 1] {
        for level in 0..LEVELS as u32 {
            let name = encode_tail(CpuId(cpu), level);
            assert!(name != 0 && names.insert(name), "CPU {cpu}, level {level}: {name}");
            // The level in two bits, above them the CPU from 1.
            assert_eq!(u32::from(name), (cpu + 1) * 4 + level);
        }
    }
}

#[test]
fn a_name_leads_to_its_node() {
    let machine = Machine::<Stepped>::new(MachineConfig::new(130));
    for cpu in [0, 1, 62, 63, 64, 129].map(CpuId) {
        for (level, node) in machine.per_cpu(cpu).queue.nodes.iter().enumerate() {
            let found = decode_tail(&machine, encode_tail(cpu, level as u32)).expect("a node");
            assert!(core::ptr::eq(found, node), "{cpu:?}, level {level}");
            assert_eq!(found.cpu(), cpu);
        }
    }
    assert!(decode_tail::<Stepped>(&machine, 0).is_none());
}

#[test]
fn a_waiter_beyond_the_last_level_has_no_node() {
    let machine = Machine::<Stepped>::new(MachineConfig::new(1));
    let cpu = machine.cpu(CpuId(0));
    let mut claims: Vec<_> = (0..LEVELS + 2).map(|_| Claim::new(&cpu)).collect();
    let nodes: Vec<_> = claims.iter().map(Claim::node).collect();
    let addresses: BTreeSet<_> =
        nodes.iter().flatten().map(|node| core::ptr::from_ref(*node)).collect();
    assert_eq!(addresses.len(), LEVELS, "a node for each level");
    assert!(nodes[LEVELS].is_none() && nodes[LEVELS + 1].is_none());
    while claims.pop().is_some() {}
    assert_eq!(cpu.this.queue.used(), 0);
}
