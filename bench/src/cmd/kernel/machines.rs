//! `cellbench kernel --vm`: kernels in virtual machines.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::bail;
use cellbench_host::Topology;
use cellbench_kernel::trace::host;
use cellbench_kernel::trace::request::Fault;
use cellbench_kernel::vm::{Engine, Guest, Machine, kvm};
use cellbench_record::Series;

use crate::backend::machines::{Boot, Machines, Measures};
use cellbench_measure::cmd::{args::default_out, run::seed_from_clock};

/// Flags for virtual machines.
#[derive(clap::Args, Debug)]
pub(super) struct Flags {
    /// Measure this kernel in a virtual machine: image file, Debian package or `running`
    #[arg(long, value_name = "IMAGE", conflicts_with = "list")]
    pub(super) vm: Option<String>,
    /// Compare: the kernel before the patch, given likewise; rounds of both are interleaved
    #[arg(long, value_name = "IMAGE", requires = "vm")]
    against: Option<String>,
    /// Emulate, and count instructions in place of time: needs no KVM, one thread
    #[arg(long, requires = "vm")]
    instructions: bool,
    /// Program that runs in the guest [default: kernelproof beside this program]
    #[arg(long, value_name = "FILE", requires = "vm")]
    program: Option<PathBuf>,
    /// Fault that the guests commit, for tests: panic:ROW, hang:ROW, no-btf
    #[arg(long, value_name = "FAULT", hide = true, requires = "vm")]
    fault: Vec<Fault>,
}

/// Boots, measures and reports.
pub(super) fn run(args: &super::Args, image: &str) -> anyhow::Result<ExitCode> {
    let flags = &args.machines;
    let engine = if flags.instructions { Engine::Instructions } else { Engine::Kvm };
    if engine == Engine::Kvm
        && let Some(obstacle) = kvm::obstacle()
    {
        bail!(
            "{obstacle}: a virtual machine would be emulated, and its times would be those of the \
             emulator; --instructions counts instructions instead"
        );
    }
    let known = host::row_names();
    if let Some(name) = args.workloads.iter().find(|name| !known.contains(name)) {
        bail!("unknown row `{name}`; known are {}", known.join(", "));
    }
    let topology = Topology::read()?;
    let threads = threads(args, engine, &topology)?;
    let most = threads.iter().copied().max().unwrap_or(1);
    let cpus = topology.place(args.placement, most as usize)?;
    let cache = default_out().join("trace").join("cache");
    let machine = |name: &str| -> anyhow::Result<Machine> {
        Ok(Machine {
            image: host::find_image(name, &cache)?,
            program: flags.program.clone().unwrap_or_else(beside),
            disk: cache.clone(),
            rows: args.workloads.clone(),
            threads: threads.clone(),
            cpus: cpus.iter().map(|cpu| cpu.0).collect(),
            engine,
            faults: flags.fault.clone(),
        })
    };
    // The baseline is the kernel before the patch.
    let names = flags.against.iter().map(String::as_str).chain([image]);
    let machines = names.map(machine).collect::<anyhow::Result<Vec<Machine>>>()?;
    let boot = |machine: Machine| -> Boot<'static> {
        Box::new(move || {
            let (guest, hello) = Guest::boot(&machine)?;
            Ok((Box::new(guest) as Box<dyn Measures>, hello))
        })
    };
    let boots = machines.into_iter().map(boot).collect();
    let wanted =
        |series: &Series| args.kinds.is_empty() || args.kinds.contains(&series.kind.to_string());
    let (mut machines, plan) = Machines::boot(boots, engine, &topology, &cpus, &wanted)?;
    let compared = flags.against.is_some();
    let baseline = match compared {
        true => machines.labels().first().map(|label| (*label).to_owned()),
        false => plan
            .specs()
            .next()
            .map(|spec| cellbench_measure::backend::Configuration::series(spec).cell.clone()),
    };
    let seed = args.seed.unwrap_or_else(seed_from_clock);
    super::session(args, seed, baseline.unwrap_or_default(), compared, plan, &mut machines)
}

/// Returns the numbers of threads: those asked for, or one and all.
fn threads(args: &super::Args, engine: Engine, topology: &Topology) -> anyhow::Result<Vec<u32>> {
    let mut threads = args.threads.clone();
    if engine == Engine::Instructions {
        if threads.iter().any(|threads| *threads != 1) {
            bail!("--instructions counts on one processor: leave --threads out, or say 1");
        }
        return Ok(vec![1]);
    }
    if threads.is_empty() {
        threads = vec![1, topology.usable.len() as u32];
        threads.dedup();
    }
    for &count in &threads {
        topology.place(args.placement, count as usize)?;
    }
    Ok(threads)
}

/// Returns the guest's program, which is built beside this one.
fn beside() -> PathBuf {
    std::env::current_exe().unwrap_or_default().with_file_name("kernelproof")
}
