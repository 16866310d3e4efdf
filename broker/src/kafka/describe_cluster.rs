//! DescribeCluster: the brokers and the controller.

use kafka_protocol::messages::DescribeClusterRequest;
use kafka_protocol::messages::describe_cluster_response::{DescribeClusterBroker, DescribeClusterResponse};

use super::errors;
use super::names::text;
use super::service::Call;
use crate::authorizer::{Resource, Verb};

/// The other kind is KRaft's controllers, which there are none of.
const BROKERS: i8 = 1;

/// `UNSUPPORTED_ENDPOINT_TYPE`
const UNSUPPORTED_ENDPOINT_TYPE: i16 = 115;

pub(super) async fn serve(call: &Call, request: DescribeClusterRequest) -> DescribeClusterResponse {
    let response = DescribeClusterResponse::default();
    if let Err(error) = call.authorize(Verb::Describe, Resource::Cluster) {
        return response.with_error_code(error.code.kafka()).with_error_message(errors::message(&error));
    }
    if call.version >= 1 && request.endpoint_type != BROKERS {
        return response
            .with_error_code(UNSUPPORTED_ENDPOINT_TYPE)
            .with_error_message(Some(text("there are brokers only")));
    }
    let service = &call.service;
    let broker = |node: super::address::Node| {
        DescribeClusterBroker::default()
            .with_broker_id(node.id)
            .with_host(node.host)
            .with_port(node.port)
            .with_rack(node.rack)
    };
    response
        .with_cluster_id(text(&service.parts.cluster))
        .with_controller_id(service.controller())
        .with_brokers(service.nodes().into_iter().map(broker).collect())
}
