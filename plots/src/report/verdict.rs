//! The outcome in words, as one would say it in a mail.

use std::collections::{BTreeMap, HashMap};

use cellbench_record::{Entry, OK, OutcomeCounts, Series, Source, Summary, Verdict};

use crate::number;

/// Returns the sentence on one row: what it is against its baseline, how sure that is, and what it
/// costs.
/// None for the baseline, and for rows that are compared with nothing.
#[must_use]
pub fn sentence(summary: &Summary, entry: &Entry) -> Option<String> {
    let series = &entry.series;
    if !entry.violations.is_empty() {
        return Some(format!(
            "{}, {} broke an invariant on {} at {} and is no result: {}.",
            scene(series),
            series.cell,
            series.workload,
            number::count(series.threads, "thread"),
            entry.violations[0].trim_end_matches('.'),
        ));
    }
    let baseline = entry.baseline.as_deref()?;
    let verdict = entry.verdict?;
    let at = format!(
        "at {} ({}, {})",
        number::count(series.threads, "thread"),
        series.kind,
        conditions(series)
    );
    let interval = interval(summary, entry);
    let scene = scene(series);
    let cell = &series.cell;
    let ratio = number::ratio(entry.ratio);
    let mut text = match verdict {
        Verdict::Faster | Verdict::Slower => {
            format!("{scene}, {cell} is {ratio}x {baseline} {at}{interval}")
        }
        Verdict::Same => format!(
            "{scene}, {cell} is the same as {baseline} within {} {at}{interval}",
            number::percent_chosen(summary.threshold_share)
        ),
        Verdict::Undecided if entry.ratio_low.is_some() => format!(
            "{scene}, it is undecided whether {cell} differs from {baseline} {at}: {ratio}x{interval}{}",
            more(entry)
        ),
        Verdict::Undecided => format!(
            "{scene}, it is undecided whether {cell} differs from {baseline} {at}: {} are too few{}",
            number::count(entry.pairs, "undisturbed round"),
            more(entry)
        ),
    };
    if let Some(failures) = failures(entry) {
        text += &format!("; but {failures}");
    }
    text.push('.');
    Some(text)
}

/// Returns the outcome of the run in a few sentences, one for each source, kind and cell, at the
/// number of
/// threads under which most workloads were run, of equals the largest: not at that of the few
/// workloads that put several threads on a CPU. Over several workloads and placements it says how
/// many
/// went which way and names the extremes of what is decided, so that no favourable row stands for
/// all
/// and no accident.
#[must_use]
pub fn headlines(summary: &Summary) -> Vec<String> {
    // In order of appearance.
    let mut stories: Vec<Vec<&Entry>> = Vec::new();
    let mut index = HashMap::new();
    for entry in &summary.entries {
        if entry.verdict.is_none() && entry.violations.is_empty() {
            continue;
        }
        let series = &entry.series;
        let key = (&series.host, &series.source, &series.machine, &series.kind, &series.cell);
        let place = *index.entry(key).or_insert_with(|| {
            stories.push(Vec::new());
            stories.len() - 1
        });
        stories[place].push(entry);
    }
    stories.iter().filter_map(|story| headline(summary, story)).collect()
}

/// Returns the rows of a story at the number of threads that tells most.
fn telling<'a>(story: &[&'a Entry]) -> Vec<&'a Entry> {
    let mut rows: BTreeMap<u32, Vec<&Entry>> = BTreeMap::new();
    for entry in story {
        rows.entry(entry.series.threads).or_default().push(entry);
    }
    // Of equals the last.
    rows.into_values().max_by_key(Vec::len).unwrap_or_default()
}

fn headline(summary: &Summary, story: &[&Entry]) -> Option<String> {
    if let Some(wrong) = story.iter().find(|entry| !entry.violations.is_empty()) {
        return sentence(summary, wrong);
    }
    let story = telling(story);
    if let [entry] = story[..] {
        return sentence(summary, entry);
    }
    let first = story.first()?;
    let series = &first.series;
    let baseline = first.baseline.as_deref()?;
    let tally: Vec<String> = [
        (Verdict::Faster, "faster"),
        (Verdict::Slower, "slower"),
        (Verdict::Same, "the same"),
        (Verdict::Undecided, "undecided"),
    ]
    .into_iter()
    .filter_map(|(verdict, word)| {
        let count = story.iter().filter(|entry| entry.verdict == Some(verdict)).count();
        (count > 0).then(|| format!("{word} in {count}"))
    })
    .collect();
    let ratio_of = |entry: &&&Entry| entry.ratio.unwrap_or(1.0);
    let is_decided = |entry: &&&Entry| entry.verdict != Some(Verdict::Undecided);
    let decided: Vec<&Entry> = story.iter().filter(is_decided).copied().collect();
    let certain = if decided.is_empty() { &story } else { &decided };
    let slowest = certain.iter().min_by(|a, b| ratio_of(a).total_cmp(&ratio_of(b)))?;
    let fastest = certain.iter().max_by(|a, b| ratio_of(a).total_cmp(&ratio_of(b)))?;
    let end = |entry: &Entry| {
        format!(
            "{}x ({}{})",
            number::ratio(entry.ratio),
            conditions(&entry.series),
            interval(summary, entry)
        )
    };
    let mut text = format!(
        "{}, {} ({}) at {} against {baseline}: {} of {} comparisons; from {} to {}",
        scene(series),
        series.cell,
        series.kind,
        number::count(series.threads, "thread"),
        tally.join(", "),
        story.len(),
        end(slowest),
        end(fastest),
    );
    let failing = story
        .iter()
        .max_by(|a, b| a.failure_share.unwrap_or(0.0).total_cmp(&b.failure_share.unwrap_or(0.0)))?;
    if let Some(failures) = failures(failing) {
        text += &format!("; but {failures} ({})", conditions(&failing.series));
    }
    text.push('.');
    Some(text)
}

/// Returns the conditions of a row, those that are the rule left out: threads placed compactly,
/// callbacks
/// counted and not run.
pub(super) fn conditions(series: &Series) -> String {
    let mut text = series.workload.clone();
    if !["compact", ""].contains(&series.placement.as_str()) {
        text += &format!(", {}", series.placement);
    }
    if let Some(rate) = series.offered_ops_s {
        text += &format!(", offered {}/s", number::si(Some(rate as f64)));
    }
    if !["count", ""].contains(&series.engine.as_str()) {
        text += &format!(", engine {}", series.engine);
    }
    text
}

pub(super) fn scene(series: &Series) -> String {
    let machine = series.machine.as_deref();
    let host = series.host.as_deref();
    match (&series.source, machine, host) {
        (Source::Sim, Some(machine), _) => format!("Simulated on {machine}"),
        (Source::Sim, None, _) => "Simulated".into(),
        (Source::Kernel, Some(machine), Some(host)) => {
            format!("In a guest's kernel ({machine}) on {host}")
        }
        (Source::Kernel, Some(machine), None) => format!("In a guest's kernel ({machine})"),
        (Source::Kernel, None, Some(host)) => format!("In the kernel of {host}"),
        (Source::Kernel, None, None) => "In this host's kernel".into(),
        (_, _, Some(host)) => format!("On {host}"),
        (_, _, None) => "On this host".into(),
    }
}

fn interval(summary: &Summary, entry: &Entry) -> String {
    number::ratio_ends(entry.ratio_low, entry.ratio_high).map_or(String::new(), |[low, high]| {
        format!(", {:.0} % interval {low} to {high}", summary.confidence * 100.0)
    })
}

fn more(entry: &Entry) -> String {
    match entry.rounds_needed {
        Some(more) if more < crate::stats::verdict::MOST_ROUNDS => {
            format!("; about {} would decide", number::count(more, "more round"))
        }
        Some(_) => "; more rounds alone will hardly decide".into(),
        None => String::new(),
    }
}

/// Writes `41 % of attempts fail with EBUSY`; none if nothing failed.
fn failures(entry: &Entry) -> Option<String> {
    let share = entry.failure_share.filter(|share| *share > 0.0)?;
    // Where one operation does the failing, its name and its own share say more.
    let failing: Vec<(&String, &OutcomeCounts)> = entry
        .ops
        .iter()
        .filter(|(_, outcomes)| outcomes.iter().any(|(name, count)| name != OK && *count > 0))
        .collect();
    let (share, what, outcomes) = match failing.as_slice() {
        [(op, outcomes)] => {
            let all = outcomes.values().fold(0_u64, |sum, count| sum.saturating_add(*count));
            let ok = outcomes.get(OK).copied().unwrap_or(0);
            (1.0 - ok as f64 / all as f64, format!("{op} attempts"), *outcomes)
        }
        _ => (share, "attempts".to_owned(), &entry.outcomes),
    };
    let mut errors: Vec<(&str, u64)> = outcomes
        .iter()
        .filter(|(name, count)| *name != OK && **count > 0)
        .map(|(name, count)| (name.as_str(), *count))
        .collect();
    errors.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
    let (most, _) = errors.first()?;
    let with =
        if errors.len() == 1 { format!("with {most}") } else { format!("mostly with {most}") };
    Some(format!("{} of {what} fail {with}", number::percent(Some(share))))
}

#[cfg(test)]
mod tests {
    use cellbench_record::Kind;

    use super::*;

    #[test]
    fn a_kernel_is_the_hosts_or_a_guests() {
        let host = Series::new("locked", Kind::Timer, "solo-start", 1, "compact", Source::Kernel);
        assert_eq!(scene(&host), "In this host's kernel");
        let guest = Series { machine: Some("QEMU with KVM".to_owned()), ..host.clone() };
        assert_eq!(scene(&guest), "In a guest's kernel (QEMU with KVM)");
        let named = Series { host: Some("epyc".to_owned()), ..guest };
        assert_eq!(scene(&named), "In a guest's kernel (QEMU with KVM) on epyc");
        let named = Series { host: Some("epyc".to_owned()), ..host };
        assert_eq!(scene(&named), "In the kernel of epyc");
    }
}
