//! `baton events`

use baton_client::admin::Event;
use clap::Args as ClapArgs;
use serde_json::{Value, json};

use super::{failure::Outcome, options::Options, output, when};

#[derive(Debug, ClapArgs)]
pub struct Args {
    /// Go on with what happens from now on, until Ctrl-C
    #[arg(long, short, env = "BATON_EVENTS_FOLLOW")]
    follow: bool,
    /// The offset in the history to begin at [default: the last 100]
    #[arg(long, env = "BATON_EVENTS_FROM", value_name = "OFFSET", value_parser = clap::value_parser!(i64).range(0..))]
    from: Option<i64>,
}

pub async fn run(options: &Options, args: Args) -> Outcome {
    let mut events = options.connect().await?.admin().events(args.from, args.follow);
    loop {
        let event = tokio::select! {
            event = events.next() => event?,
            _ = tokio::signal::ctrl_c() => return Ok(()),
        };
        match event {
            Some(event) if options.json() => output::json(&json(&event))?,
            Some(event) => output::text(&text(&event))?,
            None => return Ok(()),
        }
    }
}

fn json(event: &Event) -> Value {
    json!({
        "offset": event.offset,
        "time_ms": event.time_ms,
        "kind": event.kind,
        "topic": event.topic,
        "partition": event.partition,
        "broker": event.broker.map(|broker| broker.0),
        "epoch": event.epoch.map(|epoch| epoch.0),
        "seen": event.seen,
        "decided": event.decided,
        "result": event.result,
        "who": event.who,
    })
}

fn text(event: &Event) -> String {
    let mut line = format!("{} {}", when::rfc3339(event.time_ms), event.kind);
    let place = [
        event.topic.as_ref().map(|topic| format!("topic {topic}")),
        event.partition.map(|partition| format!("partition {partition}")),
        event.broker.map(|broker| format!("broker {broker}")),
        event.epoch.map(|epoch| format!("epoch {epoch}")),
    ];
    for part in place.into_iter().flatten() {
        line += &format!(" {part}");
    }
    for (name, said) in
        [("seen", &event.seen), ("decided", &event.decided), ("result", &event.result), ("by", &event.who)]
    {
        if !said.is_empty() {
            line += &format!("; {name}: {said}");
        }
    }
    line
}
