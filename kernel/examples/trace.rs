//! Traces an image without the command line around it: `trace IMAGE PROGRAM CACHE [ROW...]`. Prints
//! the table, and writes the data beside the cache. `trace BEFORE.json AFTER.json DIRECTORY` compares
//! kept traces: text for a mail, and a diagram for each operation.

use cellbench_kernel::trace::diagram::write_all;
use cellbench_kernel::trace::diff::difference;
use cellbench_kernel::trace::host::{self, Request};
use cellbench_kernel::trace::report::Trace;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [image, program, cache, rows @ ..] = arguments.as_slice() else {
        return Err("usage: trace IMAGE PROGRAM CACHE [ROW...]".into());
    };
    if image.ends_with(".json") {
        let (before, after) = (Trace::read(image.as_ref())?, Trace::read(program.as_ref())?);
        print!("{}", difference(&before, &after).mail());
        write_all(&after, Some(&before), cache.as_ref())?;
        return Ok(());
    }
    let image = host::find_image(image, cache.as_ref())?;
    let mut request = Request::new(image, program.into(), cache.into());
    request.rows = rows.to_vec();
    let trace = host::trace(&request, &mut |row| eprintln!("{row}"))?;
    trace.write(format!("{cache}/{}.json", trace.release).as_ref())?;
    print!("{}", trace.table());
    Ok(())
}
