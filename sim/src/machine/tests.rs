//! Machine files: what is accepted, and what a wrong one is told.

use super::*;

fn desktop_text() -> String {
    MachineModel::preset("desktop").expect("a built-in machine").to_toml()
}

/// Returns the message for the desktop's file with one piece of text replaced.
fn refused(from: &str, to: &str) -> String {
    let text = desktop_text();
    assert!(text.contains(from), "{text}");
    let error = MachineModel::parse("my.toml", &text.replace(from, to)).expect_err("is refused");
    let message = error.to_string();
    assert!(!message.contains('\n'), "more than one line: {message}");
    message
}

#[test]
fn every_preset_is_sound_names_its_sources_and_survives_a_round_trip() {
    let names: Vec<_> = MachineModel::preset_names().collect();
    for wanted in ["desktop", "epyc-genoa-2s", "graviton3", "xeon-spr-2s"] {
        assert!(names.contains(&wanted), "{names:?}");
    }
    for name in names {
        let machine = MachineModel::preset(name).expect("it is built in");
        assert_eq!(machine.name, name, "the file's name is the machine's");
        let again = MachineModel::parse("again.toml", &machine.to_toml()).expect("it is sound");
        assert_eq!(again, machine);
        for wanted in ["topology", "transfer", "hit", "fill", "directory", "core"] {
            let about = |source: &Source| source.fields.iter().any(|f| f.starts_with(wanted));
            assert!(machine.sources.iter().any(about), "{name}: no source for {wanted}");
        }
    }
}

#[test]
fn threads_are_numbered_core_by_core_and_siblings_come_last() {
    let genoa = MachineModel::preset("epyc-genoa-2s").expect("it is built in").places();
    assert_eq!(genoa.len(), 384);
    assert_eq!(genoa[0].distance(genoa[192]), Distance::SameCore);
    assert_eq!(genoa[0].distance(genoa[7]), Distance::SameLlc);
    assert_eq!(genoa[0].distance(genoa[8]), Distance::CrossLlc);
    assert_eq!(genoa[0].distance(genoa[96]), Distance::CrossSocket);
}

#[test]
fn a_wrong_file_is_told_file_field_and_remedy() {
    assert_eq!(
        refused("jitter = 0.1", "jitter = 3.0"),
        "my.toml: field `core.jitter` is 3: give a value from 0 to 0.5"
    );
    assert_eq!(
        refused("schema = 1", "schema = 2"),
        "my.toml: field `schema` is 2: this version reads schema 1"
    );
    assert_eq!(
        refused("threads_per_core = 2", "threads_per_core = 2000"),
        "my.toml: field `topology` describes 32000 hardware threads: \
         describe a machine of at most 4096"
    );
    let message = refused("pause_ns", "pause_us");
    assert!(message.starts_with("my.toml:"), "{message}");
    assert!(message.contains("unknown field `pause_us`"), "{message}");
    let message = refused("protocol = \"moesi\"", "protocol = \"dragon\"");
    assert!(message.starts_with("my.toml:4: unknown variant `dragon`"), "{message}");
    let message = refused("schema = 1", "schema = ");
    assert!(message.starts_with("my.toml:1: "), "{message}");
}

#[test]
fn unknown_names_list_the_known_ones_and_missing_files_are_named() {
    let message = MachineModel::preset("cray").expect_err("there is none").to_string();
    assert!(message.contains("`cray`") && message.contains("epyc-genoa-2s"), "{message}");
    for missing in ["no/such/machine", "machine.toml"] {
        let error = MachineModel::find(missing).expect_err("there is none");
        assert!(matches!(error, MachineError::Read { .. }), "{error}");
        assert!(error.to_string().contains(missing), "{error}");
    }
    assert_eq!(MachineModel::find("desktop").expect("it is built in").name, "desktop");
}

/// Makes two sockets of two cores with two threads each, with a distance for every pair of cores.
fn measured() -> HostMeasurements {
    let model = MachineModel::preset("desktop").expect("it is built in");
    let threads: Vec<Place> = (0..8)
        .map(|thread| Place { core: thread % 4 * 10, llc: thread % 4 / 2, socket: thread % 4 / 2 })
        .collect();
    let transfer_ns = (0..8)
        .map(|from| (0..8).map(|to| f64::from(100 * (from % 4) + 10 * (to % 4) + 30)).collect())
        .collect();
    HostMeasurements {
        cpu_model: "Test".to_owned(),
        threads,
        transfer_ns,
        protocol: Protocol::Mesif,
        hit: model.hit,
        fill: model.fill,
        directory: model.directory,
        store_buffer: model.store_buffer,
        core: model.core,
    }
}

#[test]
fn a_measured_host_becomes_a_machine_with_its_own_distances() {
    let machine = MachineModel::from_host(measured()).expect("it is sound");
    assert_eq!(machine.name, "host");
    let again = MachineModel::parse("host.toml", &machine.to_toml()).expect("it is sound");
    assert_eq!(again, machine);
    let costs = crate::costs::Costs::new(&machine);
    assert_eq!((costs.threads(), costs.cache_count()), (8, 4));
    assert_eq!(costs.cache_of[1], costs.cache_of[5], "siblings share a cache");
    assert_eq!(costs.transfer(2, 1), 240_000, "from the matrix, in picoseconds");
    assert_eq!(costs.shortest_transfer(&[0, 1, 2, 3]), 40_000, "from 0 to 1");
    assert_eq!(costs.shortest_transfer(&[1, 3]), 160_000, "from 1 to 3");
}

#[test]
fn impossible_measurements_are_refused() {
    let refused = |change: fn(&mut HostMeasurements)| {
        let mut host = measured();
        change(&mut host);
        MachineModel::from_host(host).expect_err("is refused").to_string()
    };
    let message = refused(|host| host.transfer_ns[1][2] = f64::NAN);
    assert!(message.contains("`transfer.matrix_ns[1][2]` is NaN"), "{message}");
    let message = refused(|host| host.transfer_ns.truncate(3));
    assert!(message.contains("is not 8 rows of 8"), "{message}");
    let message = refused(|host| host.threads[4].socket = 1);
    assert!(message.contains("threads 0 and 4"), "{message}");
}
