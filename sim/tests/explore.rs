mod common;
use common::*;
#[test]
fn explore() {
    for name in ["desktop"] {
        for svc in [4.0, 12.0] {
            let mut m = cellbench_sim::MachineModel::preset(name).unwrap();
            m.directory.service_ns = svc;
            m.topology = cellbench_sim::machine::Topology::Uniform {
                sockets: 1,
                llcs_per_socket: 1,
                cores_per_llc: 64,
                threads_per_core: 1,
            };
            for n in [1, 2, 4, 8, 16, 32, 64] {
                println!(
                    "{name} {n}: tas {:.1} ticket {:.1} mcs {:.1} fadd {:.1}",
                    handoff_ns::<TestAndSet>(&m, n),
                    handoff_ns::<Ticket>(&m, n),
                    handoff_ns::<Mcs>(&m, n),
                    fetch_add_ns(&m, n).0
                );
            }
        }
    }
}
