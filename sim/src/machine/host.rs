//! A model of the machine that the measurements were made on.

use super::{
    CoreCosts, Distance, FillCosts, HitCosts, MACHINE_SCHEMA, MachineError, MachineModel, Place,
    Source, SourceKind, StoreBuffer, Topology, TransferCosts,
};
use crate::machine::DirectoryCosts;
use crate::protocol::Protocol;

/// The measurements of a host, and what was read from it, to simulate it.
#[derive(Debug, Clone, PartialEq)]
pub struct HostMeasurements {
    /// CPU model, as the host names it.
    pub cpu_model: String,
    /// Place of each hardware thread, in the order of the matrix.
    pub threads: Vec<Place>,
    /// Transfer cost between hardware threads, `[from][to]`, in nanoseconds, in the meaning of
    /// [`TransferCosts`]. Entries between threads of one core are not used.
    pub transfer_ns: Vec<Vec<f64>>,
    /// Protocol of the CPU's vendor.
    pub protocol: Protocol,
    /// Costs of hits.
    pub hit: HitCosts,
    /// Costs of lines that no core's cache supplies.
    pub fill: FillCosts,
    /// Ownership window and directory service.
    pub directory: DirectoryCosts,
    /// The store buffer.
    pub store_buffer: StoreBuffer,
    /// Pause, SMT, interrupts and variation.
    pub core: CoreCosts,
}

impl MachineModel {
    /// Makes a model of the measured host, named `host`.
    ///
    /// # Errors
    /// [`MachineError::Field`] if a figure is impossible or the matrix does not fit the threads.
    pub fn from_host(host: HostMeasurements) -> Result<Self, MachineError> {
        let typical = |distance| median_at(&host.threads, &host.transfer_ns, distance);
        // A distance that does not occur on the host keeps the next nearer one's figure: it is
        // never used, but the file must hold a possible value.
        let same_llc_ns = typical(Distance::SameLlc);
        let cross_llc_ns = typical(Distance::CrossLlc).or(same_llc_ns);
        let cross_socket_ns = typical(Distance::CrossSocket).or(cross_llc_ns);
        let nearest = same_llc_ns.or(cross_llc_ns).or(cross_socket_ns).unwrap_or(host.fill.llc_ns);
        let model = Self {
            schema: MACHINE_SCHEMA,
            name: "host".to_owned(),
            title: format!("measured host: {}", host.cpu_model),
            protocol: host.protocol,
            topology: Topology::Listed { threads: host.threads },
            hit: host.hit,
            transfer: TransferCosts {
                same_llc_ns: nearest,
                cross_llc_ns: cross_llc_ns.unwrap_or(nearest),
                cross_socket_ns: cross_socket_ns.unwrap_or(nearest),
                matrix_ns: Some(host.transfer_ns),
                matrix_file: None,
                matrix_share: 1.0,
                through_home: false,
            },
            fill: host.fill,
            directory: host.directory,
            store_buffer: host.store_buffer,
            core: host.core,
            sources: vec![Source {
                fields: vec!["transfer.matrix_ns".to_owned(), "hit".to_owned()],
                kind: SourceKind::Measured,
                text: "measured on this host".to_owned(),
            }],
        };
        model.check("host")?;
        Ok(model)
    }
}

/// Returns the median of the matrix entries between threads at a distance, if there are any.
fn median_at(places: &[Place], matrix: &[Vec<f64>], distance: Distance) -> Option<f64> {
    let mut costs: Vec<f64> = matrix
        .iter()
        .zip(places)
        .flat_map(|(row, from)| row.iter().zip(places).map(move |(cost, to)| (from, to, *cost)))
        .filter(|(from, to, _)| from.distance(**to) == distance)
        .map(|(_, _, cost)| cost)
        .collect();
    costs.sort_by(f64::total_cmp);
    costs.get(costs.len() / 2).copied()
}
