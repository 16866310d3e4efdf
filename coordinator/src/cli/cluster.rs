//! `baton cluster`

use baton_client::admin::{BrokerStatus, ClusterStatus};
use clap::Subcommand;
use serde_json::{Value, json};

use super::{
    failure::{Failure, Outcome},
    options::Options,
    output::{self, optional},
    when,
};

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show the brokers, the coordinator and what is wrong; exits with 10 if anything is
    Status,
}

pub async fn run(options: &Options, command: Command) -> Outcome {
    let Command::Status = command;
    let status = options.connect().await?.admin().cluster_status().await?;
    if options.json() {
        output::json(&json(&status))?;
    } else {
        text(&status)?;
    }
    if status.healthy() { Ok(()) } else { Err(Failure::Unhealthy(complaint(&status))) }
}

fn json(status: &ClusterStatus) -> Value {
    let brokers: Vec<Value> = status.brokers.iter().map(broker).collect();
    let problems = status.problems.iter();
    let problems: Vec<Value> =
        problems.map(|p| json!({"topic": p.topic, "partition": p.partition, "problem": p.problem})).collect();
    let coordinator = status.coordinator.as_ref();
    json!({
        "cluster_id": status.cluster_id,
        "healthy": status.healthy(),
        "brokers": brokers,
        "coordinator": coordinator.map(|c| json!({"endpoint": c.endpoint, "epoch": c.epoch})),
        "registry_connected": status.registry_connected,
        "topics": status.topics,
        "partitions": status.partitions,
        "problems": problems,
        "problems_total": status.problems_total,
    })
}

fn broker(broker: &BrokerStatus) -> Value {
    let endpoints = broker.endpoints.iter();
    let endpoints: Vec<Value> =
        endpoints.map(|e| json!({"listener": e.listener, "protocol": e.protocol, "address": e.address})).collect();
    json!({
        "id": broker.id.0,
        "state": broker.state,
        "rack": broker.rack,
        "leads": broker.leads,
        "replicas": broker.replicas,
        "absent_since_ms": broker.absent_since_ms,
        "endpoints": endpoints,
    })
}

fn text(status: &ClusterStatus) -> Outcome {
    let coordinator = match &status.coordinator {
        Some(coordinator) => format!("coordinator {} (epoch {})", coordinator.endpoint, coordinator.epoch),
        None => "no coordinator".to_owned(),
    };
    let registry = if status.registry_connected { "connected" } else { "not connected" };
    output::text(&format!(
        "cluster {}: {} topics, {} partitions, {coordinator}, ZooKeeper {registry}",
        status.cluster_id, status.topics, status.partitions
    ))?;
    let rows = status.brokers.iter().map(|b| {
        let grpc = b.endpoints.iter().find(|endpoint| endpoint.protocol == "grpc");
        vec![
            b.id.to_string(),
            b.state.clone(),
            b.leads.to_string(),
            b.replicas.to_string(),
            optional(grpc.map(|endpoint| endpoint.address.clone())),
            optional(Some(b.rack.clone()).filter(|rack| !rack.is_empty())),
            optional(b.absent_since_ms.map(when::rfc3339)),
        ]
    });
    output::table(&["BROKER", "STATE", "LEADS", "REPLICAS", "ADDRESS", "RACK", "ABSENT-SINCE"], rows)?;
    if !status.problems.is_empty() {
        let rows = status.problems.iter().map(|p| vec![p.topic.clone(), p.partition.to_string(), p.problem.clone()]);
        output::table(&["TOPIC", "PARTITION", "PROBLEM"], rows)?;
    }
    Ok(())
}

fn complaint(status: &ClusterStatus) -> String {
    let mut complaints = Vec::new();
    let missing: Vec<String> = status
        .brokers
        .iter()
        .filter(|broker| broker.state != "live")
        .map(|broker| format!("broker {} is {}", broker.id, broker.state))
        .collect();
    complaints.extend(missing);
    if status.coordinator.is_none() {
        complaints.push("no coordinator works".to_owned());
    }
    if !status.registry_connected {
        complaints.push("ZooKeeper is not reached".to_owned());
    }
    if status.problems_total > 0 {
        complaints.push(format!("{} partitions have problems", status.problems_total));
    }
    format!("the cluster is not healthy: {}", complaints.join(", "))
}
