//! Who elects itself, and when: one elector per partition and broker.
//!
//! Any clean in-sync replica is a correct leader, and a write at a known version decides, so
//! nothing is asked or waited for. The order of the queue only keeps everybody from trying at
//! once.

use crate::branches::reached;
use crate::ids::{BrokerId, CandidateSeq, Epoch, Incarnation, Member};
use crate::partition::PartitionState;
use crate::replica::{Env, Health, Mutation};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ElectionConfig {
    /// How much later each further candidate in the queue tries.
    pub step_ms: u64,
    /// How long a follower that hears its leader waits when only the leader's candidate node
    /// vanished: after an outage of the registry healthy leaders elect themselves again first.
    pub healthy_leader_ms: u64,
    /// Between two elections of one partition that the failure detector caused.
    pub detector_pause_ms: u64,
    /// A new partition's preferred leader has so long before others try.
    pub hint_ms: u64,
    #[cfg(any(test, feature = "mutations"))]
    pub mutations: crate::replica::Mutations,
}

impl ElectionConfig {
    #[cfg(any(test, feature = "mutations"))]
    fn lacks(&self, rule: Mutation) -> bool {
        self.mutations.has(rule)
    }

    #[cfg(not(any(test, feature = "mutations")))]
    #[inline(always)]
    fn lacks(&self, _: Mutation) -> bool {
        false
    }
}

impl Default for ElectionConfig {
    fn default() -> Self {
        Self {
            step_ms: 100,
            healthy_leader_ms: 2_000,
            detector_pause_ms: 2_000,
            hint_ms: 500,
            #[cfg(any(test, feature = "mutations"))]
            mutations: crate::replica::Mutations::default(),
        }
    }
}

/// One node of the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Candidate {
    pub seq: CandidateSeq,
    pub member: Member,
    pub incarnation: Incarnation,
}

/// What a broker sees of one partition when it decides.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    pub state: &'a PartitionState,
    /// The queue, in order.
    pub candidates: &'a [Candidate],
    pub me: Member,
    pub incarnation: Incarnation,
    /// This process leads at the moment.
    pub leading: bool,
    /// The copy may lead: not halted, not being refilled.
    pub eligible: bool,
    pub draining: bool,
    pub env: &'a Env,
}

/// Why an election is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Trigger {
    NoLeader,
    /// The leader's candidate node is gone.
    CandidateGone,
    /// The failure detector gave the leader up.
    Detector,
    /// This broker's own session ended: it queues and elects itself again.
    OwnSession,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    Nothing,
    /// Create a candidate node.
    Queue,
    /// Delete these candidate nodes of this process: it may not lead.
    Leave,
    /// Write the state, checking this candidate node.
    Elect {
        candidate: CandidateSeq,
        trigger: Trigger,
    },
    /// Decide again at this time.
    WaitUntil(u64),
}

/// What has to be remembered between two decisions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Elector {
    triggered: Option<(Trigger, u64)>,
    /// When the detector last caused an election here, and the epoch that it was to end.
    detector_elected: Option<(Epoch, u64)>,
}

impl Elector {
    /// To be called whenever anything of the view changed, and when a wait is over.
    pub fn decide(&mut self, view: &View<'_>, config: &ElectionConfig) -> Decision {
        let mine = view.candidates.iter().find(|c| c.incarnation == view.incarnation && c.member == view.me);
        let in_sync = view.state.in_isr(&view.me) || config.lacks(Mutation::WinnerOutsideIsr);
        let may_stand = view.eligible && !view.draining && in_sync;
        let Some(mine) = mine else {
            let ghosts = view.candidates.iter().any(|c| c.incarnation == view.incarnation);
            // A node under an older generation of this copy is one that may not lead ★.
            return if ghosts && !may_stand {
                reached!("election.old_generation_leaves_queue");
                Decision::Leave
            } else if may_stand {
                reached!("election.queues");
                Decision::Queue
            } else {
                Decision::Nothing
            };
        };
        if !may_stand && config.lacks(Mutation::IneligibleStays) {
            return Decision::Nothing;
        }
        if !may_stand {
            reached!("election.ineligible_leaves_queue");
            // A candidate that is not eligible would block those behind it ★.
            return Decision::Leave;
        }
        let Some(trigger) = trigger(view, mine.seq) else {
            self.triggered = None;
            return Decision::Nothing;
        };
        self.when(view, mine.seq, trigger, config)
    }

    fn when(&mut self, view: &View<'_>, mine: CandidateSeq, trigger: Trigger, config: &ElectionConfig) -> Decision {
        let now = view.env.now_ms;
        if trigger == Trigger::OwnSession {
            reached!("election.elects_itself_again");
            return Decision::Elect { candidate: mine, trigger };
        }
        let since = match self.triggered {
            Some((known, since)) if known == trigger => since,
            _ => now,
        };
        self.triggered = Some((trigger, since));
        let mut due = since + config.step_ms * position(view, mine);
        match trigger {
            Trigger::CandidateGone if leader_is_heard(view) => {
                reached!("election.lets_healthy_leader_return");
                due = due.max(since + config.healthy_leader_ms);
            }
            Trigger::Detector => {
                // An attempt that lost against another write ended no epoch: it may be repeated
                // soon.
                let earliest = self.detector_elected.map_or(0, |(epoch, last)| {
                    let failed = epoch == view.state.epoch;
                    last + if failed { config.step_ms } else { config.detector_pause_ms }
                });
                if earliest > due {
                    reached!("election.detector_pauses");
                }
                due = due.max(earliest);
            }
            Trigger::NoLeader => due = self.after_hint(view, since, due, config),
            Trigger::CandidateGone | Trigger::OwnSession => {}
        }
        if now < due {
            reached!("election.waits_for_its_turn");
            return Decision::WaitUntil(due);
        }
        match trigger {
            Trigger::Detector => {
                reached!("election.elects_after_detector");
                self.detector_elected = Some((view.state.epoch, now));
            }
            Trigger::NoLeader => {
                reached!("election.elects_without_leader");
            }
            Trigger::CandidateGone | Trigger::OwnSession => {
                reached!("election.elects_after_candidate_gone");
            }
        }
        // If the write fails, the next decision waits anew.
        self.triggered = None;
        Decision::Elect { candidate: mine, trigger }
    }

    /// The one that was named goes at once; the others let it go first if it can.
    fn after_hint(&self, view: &View<'_>, since: u64, due: u64, config: &ElectionConfig) -> u64 {
        match view.state.hint {
            Some(hint) if hint == view.me.broker => {
                reached!("election.goes_first_as_named");
                since
            }
            Some(hint) if !view.env.is_gone(hint) && view.state.isr_member(hint).is_some() => {
                reached!("election.lets_named_one_go_first");
                due + config.hint_ms
            }
            _ => due,
        }
    }
}

fn trigger(view: &View<'_>, mine: CandidateSeq) -> Option<Trigger> {
    let Some(leader) = view.state.leader else {
        return Some(Trigger::NoLeader);
    };
    let is_me = leader.incarnation == view.incarnation && leader.broker == view.me.broker;
    if is_me {
        // A new session brought a new candidate node, or leading was given up on the way.
        return (leader.candidate != mine || !view.leading).then_some(Trigger::OwnSession);
    }
    let given_up = match view.env.health(leader.broker) {
        Health::Alive(incarnation) => incarnation != leader.incarnation,
        Health::Dead | Health::Silent => true,
        // An earlier incarnation of this very broker.
        Health::Unknown => leader.broker == view.me.broker,
    };
    if given_up {
        return Some(Trigger::Detector);
    }
    let stands = view.candidates.iter().any(|c| c.seq == leader.candidate && c.incarnation == leader.incarnation);
    (!stands).then_some(Trigger::CandidateGone)
}

fn leader_is_heard(view: &View<'_>) -> bool {
    view.state.leader.is_some_and(|l| view.env.health(l.broker) == Health::Alive(l.incarnation))
}

/// How many live candidates in the in-sync replicas stand before this one.
fn position(view: &View<'_>, mine: CandidateSeq) -> u64 {
    let old = view.state.leader.map(|l| l.broker);
    let before = |c: &&Candidate| {
        c.seq < mine
            && Some(c.member.broker) != old
            && c.member.broker != view.me.broker
            && view.state.in_isr(&c.member)
            && !view.env.is_gone(c.member.broker)
            && !view.env.is_draining(c.member.broker)
    };
    view.candidates
        .iter()
        .filter(before)
        .map(|c| c.member.broker)
        .collect::<std::collections::BTreeSet<BrokerId>>()
        .len() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{DiskId, Epoch, Generation};
    use crate::partition::LeaderId;
    use crate::replica::Peer;

    fn member(broker: u32) -> Member {
        Member { broker: BrokerId(broker), disk: DiskId(u128::from(broker)), generation: Generation(0) }
    }

    fn incarnation(broker: u32) -> Incarnation {
        Incarnation(u64::from(broker) * 10)
    }

    fn candidate(seq: i64, broker: u32) -> Candidate {
        Candidate { seq: CandidateSeq(seq), member: member(broker), incarnation: incarnation(broker) }
    }

    fn state(leader: Option<(u32, i64)>, isr: &[u32]) -> PartitionState {
        PartitionState {
            leader: leader.map(|(broker, seq)| LeaderId {
                broker: BrokerId(broker),
                disk: member(broker).disk,
                incarnation: incarnation(broker),
                candidate: CandidateSeq(seq),
            }),
            epoch: Epoch(3),
            isr: isr.iter().map(|b| member(*b)).collect(),
            ..PartitionState::default()
        }
    }

    fn env(now_ms: u64, health: &[(u32, Health)]) -> Env {
        let peers = health.iter().map(|(b, h)| (BrokerId(*b), Peer { health: *h, draining: false })).collect();
        Env { now_ms, peers, registry_connected: true }
    }

    struct Case<'a> {
        me: u32,
        state: &'a PartitionState,
        candidates: &'a [Candidate],
        env: Env,
    }

    impl Case<'_> {
        fn decide(&self, elector: &mut Elector) -> Decision {
            let view = View {
                state: self.state,
                candidates: self.candidates,
                me: member(self.me),
                incarnation: incarnation(self.me),
                leading: false,
                eligible: true,
                draining: false,
                env: &self.env,
            };
            elector.decide(&view, &ElectionConfig::default())
        }
    }

    const ALL: [(i64, u32); 3] = [(0, 1), (1, 2), (2, 3)];

    fn queue() -> Vec<Candidate> {
        ALL.iter().map(|(seq, broker)| candidate(*seq, *broker)).collect()
    }

    fn alive(broker: u32) -> (u32, Health) {
        (broker, Health::Alive(incarnation(broker)))
    }

    #[test]
    fn the_first_live_candidate_elects_itself_at_once_and_the_next_later() {
        let state = state(Some((1, 0)), &[1, 2, 3]);
        let (queue, mut second, mut third) = (queue(), Elector::default(), Elector::default());
        let world = || env(1_000, &[(1, Health::Dead), alive(2), alive(3)]);
        let case = Case { me: 2, state: &state, candidates: &queue, env: world() };
        let elect = Decision::Elect { candidate: CandidateSeq(1), trigger: Trigger::Detector };
        assert_eq!(case.decide(&mut second), elect);
        let case = Case { me: 3, state: &state, candidates: &queue, env: world() };
        assert_eq!(case.decide(&mut third), Decision::WaitUntil(1_100));
    }

    #[test]
    fn who_is_not_in_sync_never_elects_itself_and_leaves_the_queue() {
        let state = state(None, &[1, 2]);
        let case = Case { me: 3, state: &state, candidates: &queue(), env: env(0, &[]) };
        assert_eq!(case.decide(&mut Elector::default()), Decision::Leave);
    }

    #[test]
    fn another_disk_of_the_same_broker_is_not_in_sync() {
        let mut state = state(None, &[1, 2, 3]);
        state.isr[2].disk = DiskId(99);
        let case = Case { me: 3, state: &state, candidates: &[], env: env(0, &[]) };
        assert_eq!(case.decide(&mut Elector::default()), Decision::Nothing);
    }

    #[test]
    fn a_candidate_behind_one_that_may_not_lead_goes_at_once() {
        // Broker 1 stands first but is not in sync: it must not hold up broker 2.
        let state = state(None, &[2, 3]);
        let case = Case { me: 2, state: &state, candidates: &queue(), env: env(0, &[alive(1), alive(3)]) };
        let elect = Decision::Elect { candidate: CandidateSeq(1), trigger: Trigger::NoLeader };
        assert_eq!(case.decide(&mut Elector::default()), elect);
    }

    #[test]
    fn a_follower_that_hears_its_leader_lets_it_come_back() {
        let state = state(Some((1, 0)), &[1, 2, 3]);
        let without: Vec<_> = queue().into_iter().skip(1).collect();
        let mut elector = Elector::default();
        let mut case = Case { me: 2, state: &state, candidates: &without, env: env(500, &[alive(1), alive(3)]) };
        assert_eq!(case.decide(&mut elector), Decision::WaitUntil(2_500));
        case.env.now_ms = 2_500;
        assert!(matches!(case.decide(&mut elector), Decision::Elect { trigger: Trigger::CandidateGone, .. }));
    }

    #[test]
    fn a_restarted_leader_is_given_up_by_its_incarnation() {
        let state = state(Some((1, 0)), &[1, 2, 3]);
        let world = env(0, &[(1, Health::Alive(Incarnation(999))), alive(3)]);
        let case = Case { me: 2, state: &state, candidates: &queue(), env: world };
        assert!(matches!(case.decide(&mut Elector::default()), Decision::Elect { trigger: Trigger::Detector, .. }));
    }

    #[test]
    fn the_detector_causes_one_election_in_two_seconds() {
        let state = state(Some((1, 0)), &[1, 2, 3]);
        let later = PartitionState { epoch: Epoch(4), ..state.clone() };
        let queue = queue();
        let mut elector = Elector::default();
        let mut case = Case { me: 2, state: &state, candidates: &queue, env: env(0, &[(1, Health::Silent)]) };
        assert!(matches!(case.decide(&mut elector), Decision::Elect { .. }));
        case.env.now_ms = 10;
        assert_eq!(case.decide(&mut elector), Decision::WaitUntil(100), "the write lost");
        case.state = &later;
        assert_eq!(case.decide(&mut elector), Decision::WaitUntil(2_000));
    }

    #[test]
    fn a_new_session_elects_itself_again() {
        let state = state(Some((2, 1)), &[1, 2, 3]);
        let requeued = [candidate(0, 1), candidate(7, 2)];
        let case = Case { me: 2, state: &state, candidates: &requeued, env: env(0, &[alive(1)]) };
        let elect = Decision::Elect { candidate: CandidateSeq(7), trigger: Trigger::OwnSession };
        assert_eq!(case.decide(&mut Elector::default()), elect);
    }

    #[test]
    fn the_one_that_was_named_goes_first() {
        let mut state = state(None, &[1, 2, 3]);
        state.hint = Some(BrokerId(3));
        let queue = queue();
        let case = Case { me: 3, state: &state, candidates: &queue, env: env(0, &[alive(1), alive(2)]) };
        assert!(matches!(case.decide(&mut Elector::default()), Decision::Elect { .. }));
        let case = Case { me: 1, state: &state, candidates: &queue, env: env(0, &[alive(3), alive(2)]) };
        assert_eq!(case.decide(&mut Elector::default()), Decision::WaitUntil(500));
    }
}
