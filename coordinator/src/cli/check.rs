//! `baton check`

use std::{path::PathBuf, time::Duration};

use baton_history::{Kind, ReadError, Report, check_files, report::Found};
use clap::Args as ClapArgs;
use serde_json::json;

use super::{
    failure::{Failure, Outcome},
    options::Options,
    output,
};

#[derive(Debug, ClapArgs)]
pub struct Args {
    /// Files of one history, JSON Lines; a client's own files in their order
    #[arg(required = true, value_name = "HISTORY")]
    histories: Vec<PathBuf>,
    /// By how much the clocks of those who wrote the files may differ
    #[arg(long, env = "BATON_CHECK_SKEW", value_parser = humantime::parse_duration, default_value = "0s",
          value_name = "DURATION")]
    skew: Duration,
    /// How many anomalies of each kind to print
    #[arg(long, env = "BATON_CHECK_EXAMPLES", default_value = "20", value_name = "COUNT")]
    examples: usize,
}

pub fn run(options: &Options, args: &Args) -> Outcome {
    let skew_us = u64::try_from(args.skew.as_micros()).unwrap_or(u64::MAX);
    let how = baton_history::Options { skew_us, examples_max: args.examples };
    let report = check_files(&args.histories, how).map_err(unreadable)?;
    if options.json() {
        output::json(&json!({"clean": report.clean(), "report": report}))?;
    } else {
        for remark in &report.remarks {
            eprintln!("{remark}");
        }
        print(&report)?;
    }
    match report.anomalies.values().map(|found| found.count).sum::<u64>() {
        0 => Ok(()),
        1 => Err(Failure::Failed("1 anomaly".to_owned())),
        count => Err(Failure::Failed(format!("{count} anomalies"))),
    }
}

/// The arguments name something that is no history.
fn unreadable(error: ReadError) -> Failure {
    Failure::Usage(error.to_string())
}

fn print(report: &Report) -> Outcome {
    let counts = &report.counts;
    let rows = [
        ("events", counts.events),
        ("operations", counts.operations),
        ("acknowledged", counts.acknowledged),
        ("failed", counts.failed),
        ("unknown", counts.unknown),
        ("verified", counts.verified),
        ("unverified", counts.unverified),
        ("expired", counts.expired),
        ("records read", counts.records_read),
        ("polls", counts.polls),
        ("commits", counts.commits),
        ("replica dumps", counts.replica_dumps),
        ("unclean elections", counts.unclean_elections),
        ("partitions", counts.partitions),
        ("producers", counts.producers),
        ("consumers", counts.consumers),
        ("groups", counts.groups),
    ];
    output::table(&["WHAT", "COUNT"], rows.map(|(what, count)| vec![what.to_owned(), count.to_string()]))?;
    let found: Vec<Kind> =
        Kind::ALL.iter().copied().filter(|kind| report.count(*kind) + report.permitted(*kind) > 0).collect();
    if found.is_empty() {
        return output::text("\nno anomalies");
    }
    output::text("")?;
    let row = |kind: &Kind| {
        let (count, permitted) = (report.count(*kind), report.permitted(*kind));
        vec![kind.to_string(), count.to_string(), permitted.to_string(), kind.explanation().to_owned()]
    };
    output::table(&["KIND", "FOUND", "PERMITTED", "MEANING"], found.iter().map(row))?;
    output::text("")?;
    for (heading, found) in [("", &report.anomalies), ("permitted: ", &report.permitted)] {
        for (kind, Found { examples, .. }) in found {
            for example in examples {
                let (partition, what, events) = (&example.partition, &example.what, example.events.join(", "));
                output::text(&format!("{heading}{kind}: {partition}: {what} ({events})"))?;
            }
        }
    }
    Ok(())
}
