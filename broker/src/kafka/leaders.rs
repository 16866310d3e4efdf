//! A client whose connection to a leader broke asks another broker who leads now, within the
//! same millisecond. Told what was true until then, it goes back to the dead broker and asks
//! again after a back-off that doubles (librdkafka: 100 ms to 10 s), although the next leader is
//! there after some 50 ms. So an answer about what others lead waits a little: until this broker
//! must have noticed as well, and then for the election.

use std::collections::BTreeSet;
use std::time::Duration;

use baton_core::partition::PartitionState;
use baton_core::replica::Env;
use kafka_protocol::messages::MetadataRequest;
use tokio::time::{Instant, sleep};

use super::service::Call;

/// This broker's own connection to a process that died breaks when the client's does.
const NOTICED_WITHIN: Duration = Duration::from_millis(20);

/// Elections that take longer are not waited for: the answers behind this one wait, too.
const LED_WITHIN: Duration = Duration::from_millis(150);

const LOOK_EVERY: Duration = Duration::from_millis(25);

/// Topics whose leaders are waited for.
const TOPICS_MAX: usize = 100;

/// The topics of which this client may have lost a leader: it names them, and others lead there.
pub(super) fn lost_by(call: &Call, request: &MetadataRequest) -> Option<BTreeSet<String>> {
    let topics = request.topics.as_ref().filter(|topics| topics.len() <= TOPICS_MAX)?;
    let named = |topic: &kafka_protocol::messages::metadata_request::MetadataRequestTopic| match &topic.name {
        Some(name) if topic.topic_id.is_nil() => Some(name.to_string()),
        _ => call.service.topic_by_uuid(topic.topic_id).map(|topic| topic.name),
    };
    let names: BTreeSet<String> = topics.iter().filter_map(named).filter(|name| others_lead(call, name)).collect();
    Some(names).filter(|names| !names.is_empty())
}

fn others_lead(call: &Call, topic: &str) -> bool {
    let (view, me) = (&call.parts().view, call.parts().me);
    let led_by_me = |state: &PartitionState| state.leader.is_some_and(|leader| leader.broker == me);
    view.topic(topic).is_some_and(|topic| view.states_of(topic.id).iter().any(|(_, known)| !led_by_me(&known.state)))
}

/// Until the partitions of these topics that can be led are led.
pub(super) async fn await_elections(call: &Call, topics: &BTreeSet<String>) {
    let until = Instant::now() + LED_WITHIN;
    sleep(NOTICED_WITHIN).await;
    while topics.iter().any(|topic| is_being_elected(call, topic)) && Instant::now() < until {
        sleep(LOOK_EVERY).await;
    }
}

/// Whether a partition has lost its leader and will have another one.
fn is_being_elected(call: &Call, topic: &str) -> bool {
    let parts = call.parts();
    let env = parts.env.borrow().clone();
    let Some(topic) = parts.view.topic(topic).filter(|_| env.registry_connected) else { return false };
    parts.view.states_of(topic.id).iter().any(|(_, known)| awaits_leader(&known.state, &env))
}

fn awaits_leader(state: &PartitionState, env: &Env) -> bool {
    let is_led = state.leader.is_some_and(|leader| !env.is_gone(leader.broker));
    !is_led && state.isr.iter().any(|member| !env.is_gone(member.broker))
}

#[cfg(test)]
mod tests {
    use baton_core::partition::LeaderId;
    use baton_core::replica::{Health, Peer};
    use baton_core::{BrokerId, CandidateSeq, DiskId, Generation, Incarnation, Member};

    use super::*;

    fn led_by_1() -> PartitionState {
        let member = |broker| Member { broker: BrokerId(broker), disk: DiskId(7), generation: Generation(0) };
        let (disk, incarnation) = (DiskId(7), Incarnation(1));
        let leader = Some(LeaderId { broker: BrokerId(1), disk, incarnation, candidate: CandidateSeq(0) });
        PartitionState { leader, isr: vec![member(1), member(2)], ..PartitionState::default() }
    }

    fn env(health: [Health; 2]) -> Env {
        let peers = (1..).map(BrokerId).zip(health.map(|health| Peer { health, draining: false })).collect();
        Env { peers, ..Env::default() }
    }

    #[test]
    fn only_an_election_that_can_be_won_is_waited_for() {
        let alive = Health::Alive(Incarnation(1));
        assert!(!awaits_leader(&led_by_1(), &env([alive, alive])));
        assert!(!awaits_leader(&led_by_1(), &env([Health::Unknown, alive])), "not heard of is not gone");
        assert!(awaits_leader(&led_by_1(), &env([Health::Dead, alive])));
        assert!(!awaits_leader(&led_by_1(), &env([Health::Dead, Health::Silent])), "nobody is left");
        assert!(awaits_leader(&PartitionState { leader: None, ..led_by_1() }, &env([alive, alive])));
    }
}
