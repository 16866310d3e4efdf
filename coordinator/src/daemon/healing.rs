//! What the elected coordinator does by itself: finish what was begun, note who is away, give
//! copies new homes, keep the topic of the history, hand leadership to preferred leaders.
//!
//! One pass every second, and whenever a broker came or went. A pass decides from the view;
//! what it cannot do now, the next one tries.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use baton_core::BrokerId;
use baton_core::event::{Event, EventKind};
use baton_core::partition::VersionedState;
use baton_registry::RegistryError;
use baton_registry::recipes::partition_state::{self, Outcome, StateWrite};
use baton_registry::recipes::topics::{self, TopicError};
use baton_registry::recipes::{RecipeError, absences, tombstones};
use baton_registry::znode::Absence;
use futures::future::join_all;
use tokio::time::{Instant, sleep};

use super::admin;
use super::brokers::peer_address;
use super::plan::absent::{self, Rehoming, attendance, overdue, plan_rehoming};
use super::plan::internal::{EVENTS_TOPIC, InternalStep, next_step};
use super::plan::preferred::Balancer;
use super::plan::{changes, reassign};
use super::term::{Term, is_transient};

/// Preferred leaders are looked at so often.
const BALANCE_EVERY: Duration = Duration::from_secs(10);
/// Intents are looked for and old tombstones removed so often.
const TIDY_EVERY: Duration = Duration::from_secs(30);
/// How long the pass gives itself for one internal topic.
const INTERNAL_WITHIN: Duration = Duration::from_secs(10);
const RETRY: Duration = Duration::from_millis(200);
/// A broker has to be away for so long before the eyes of this coordinator, whatever clocks say:
/// one that was set forward makes every absence look old.
const SEEN_AWAY_MIN: Duration = Duration::from_secs(60);
/// At least so long between two passes.
const PAUSE: Duration = Duration::from_millis(100);

/// What the passes of one term remember.
pub struct Healing {
    term: Arc<Term>,
    /// Who was registered at the last pass, and by which registration.
    live: BTreeMap<BrokerId, i64>,
    /// The first pass has nothing to compare with.
    compared: bool,
    /// Since when this coordinator has seen nothing of a broker, on a clock that nobody sets.
    away_since: BTreeMap<BrokerId, Instant>,
    /// Absent brokers of which it was said that there is no room.
    said_no_room: BTreeSet<BrokerId>,
    balancer: Balancer,
    started: Instant,
    first_broker: Option<Instant>,
    balanced: Option<Instant>,
    tidied: Option<Instant>,
}

impl Healing {
    #[must_use]
    pub fn new(term: Arc<Term>) -> Self {
        Self {
            term,
            live: BTreeMap::new(),
            compared: false,
            away_since: BTreeMap::new(),
            said_no_room: BTreeSet::new(),
            balancer: Balancer::default(),
            started: Instant::now(),
            first_broker: None,
            balanced: None,
            tidied: None,
        }
    }

    /// Until it is fenced or dropped.
    pub async fn run(mut self) {
        self.finish_intents().await;
        let mut changes = self.term.view().changes();
        while !self.is_complete() {
            // Plans made from half a view would find no brokers.
            if changes.changed().await.is_err() {
                return;
            }
        }
        self.term.ready.send_replace(true);
        let every = Duration::from_millis(self.term.shared.config.timing.healing_ms);
        loop {
            if let Err(error) = self.pass().await {
                // Notes a fenced term as over.
                let error = self.term.failed(&error);
                tracing::debug!(%error, "a pass of healing was cut short");
            }
            if self.term.over.is_cancelled() {
                return;
            }
            let next = Instant::now() + every;
            changes.mark_unchanged();
            // However fast brokers come and go, and whatever failed.
            sleep(PAUSE.min(every)).await;
            while Instant::now() < next && self.brokers_as_before() {
                tokio::select! {
                    biased;
                    changed = changes.changed() => if changed.is_err() { return },
                    () = tokio::time::sleep_until(next) => {}
                }
            }
        }
    }

    fn is_complete(&self) -> bool {
        self.term.view().read(super::plan::Snapshot::is_complete)
    }

    fn brokers_as_before(&self) -> bool {
        self.term.view().read(|snapshot| snapshot.brokers.keys().eq(self.live.keys()))
    }

    /// What a coordinator that died had begun. Nobody is answered before.
    async fn finish_intents(&self) {
        loop {
            match self.try_finish_intents().await {
                Ok(()) => return,
                Err(error) => {
                    let error = self.term.failed(&error);
                    if self.term.over.is_cancelled() {
                        return;
                    }
                    tracing::info!(%error, "what was begun is not finished yet");
                    sleep(RETRY).await;
                }
            }
        }
    }

    async fn try_finish_intents(&self) -> Result<(), RecipeError> {
        let registry = self.term.registry();
        for topic in topics::unfinished(registry).await? {
            let name = &topic.node.name;
            tracing::info!(topic = name, id = %topic.id, "finishes what was begun with a topic");
            let finished = match topics::finish(registry, self.term.fence, topic.id).await {
                Err(TopicError::Recipe(error)) if concerns_all(&error) => return Err(error),
                Err(error) => Err(error),
                Ok(()) => match self.term.refresh(topic.id).await {
                    Err(error) if concerns_all(&error) => return Err(error),
                    read => read.map_err(TopicError::Recipe),
                },
            };
            if let Err(error) = finished {
                // One topic that cannot be mended holds nobody else up; it is tried again later.
                tracing::error!(topic = name, id = %topic.id, %error, "cannot finish what was begun with a topic");
            }
        }
        Ok(())
    }

    async fn pass(&mut self) -> Result<(), RecipeError> {
        let noted = self.note_attendance().await?;
        self.rehome(&noted).await?;
        self.keep_history_topic().await?;
        let due = |last: Option<Instant>, every| last.is_none_or(|at: Instant| at.elapsed() >= every);
        if due(self.balanced, BALANCE_EVERY) {
            self.balanced = Some(Instant::now());
            self.balance().await;
        }
        if due(self.tidied, TIDY_EVERY) {
            self.tidied = Some(Instant::now());
            let _changing = self.term.changes.lock().await;
            self.try_finish_intents().await?;
            tombstones::prune(self.term.registry(), self.term.fence, tombstones::TOMBSTONES_MAX).await?;
        }
        Ok(())
    }

    /// Notes who went and who came back; returns who is away.
    async fn note_attendance(&mut self) -> Result<BTreeMap<BrokerId, Absence>, RecipeError> {
        let registry = self.term.registry();
        let mut noted = absences::read_all(registry).await?;
        let were_live: BTreeSet<BrokerId> = self.live.keys().copied().collect();
        let (found, live) = self.term.view().read(|snapshot| {
            let live: BTreeMap<_, _> = snapshot.brokers.iter().map(|(id, live)| (*id, live.czxid)).collect();
            (attendance(snapshot, &were_live, &noted), live)
        });
        for broker in found.gone {
            let absence = Absence { since_unix_ms: self.term.shared.now_unix_ms() };
            absences::note(registry, self.term.fence, broker, absence).await?;
            noted.insert(broker, absence);
            let minutes = self.term.shared.config.healing.reassign_after_ms / 60_000;
            let event = self.event(EventKind::BrokerGone).broker(broker).seen("its registration is gone");
            self.record(event.decided(format!("its copies get new homes after {minutes} minutes")));
        }
        for broker in found.back {
            let since = noted.remove(&broker).map_or(0, |absence| absence.since_unix_ms);
            absences::clear(registry, self.term.fence, broker).await?;
            self.said_no_room.remove(&broker);
            let away_ms = self.term.shared.now_unix_ms().saturating_sub(since);
            let event = self.event(EventKind::BrokerBack).broker(broker).seen("it registered");
            self.record(event.result(format!("it was away for {} s", away_ms / 1_000)));
            self.live.insert(broker, live.get(&broker).copied().unwrap_or_default());
        }
        self.away_since.retain(|broker, _| noted.contains_key(broker));
        for broker in noted.keys() {
            self.away_since.entry(*broker).or_insert_with(Instant::now);
        }
        self.note_arrivals(&live);
        self.live = live;
        self.compared = true;
        Ok(noted)
    }

    /// Brokers that are new, and those that were back before anybody noticed that they had gone.
    fn note_arrivals(&self, live: &BTreeMap<BrokerId, i64>) {
        if !self.compared {
            return;
        }
        for (broker, registration) in live {
            let seen = match self.live.get(broker) {
                Some(before) if before == registration => continue,
                Some(_) => "it registered anew",
                None => "it registered for the first time",
            };
            self.record(self.event(EventKind::BrokerBack).broker(*broker).seen(seen));
        }
    }

    async fn rehome(&mut self, noted: &BTreeMap<BrokerId, Absence>) -> Result<(), RecipeError> {
        let shared = &self.term.shared;
        let healing = &shared.config.healing;
        let after_ms = healing.reassign_after_ms;
        let seen_min = SEEN_AWAY_MIN.min(Duration::from_millis(after_ms));
        let mut absent = self.term.view().read(|snapshot| overdue(snapshot, noted, shared.now_unix_ms(), after_ms));
        absent.retain(|broker| self.away_since.get(broker).is_some_and(|since| since.elapsed() >= seen_min));
        if absent.is_empty() {
            return Ok(());
        }
        let _changing = self.term.changes.lock().await;
        let snapshot = self.term.view().snapshot();
        let at_once = healing.reassign_at_once as usize;
        let seed = shared.draw("rehoming");
        let plan = plan_rehoming(&snapshot, &absent, shared.config.placement_limits(), at_once, seed);
        for (broker, (count, why)) in &plan.stuck {
            if self.said_no_room.insert(*broker) {
                let event = self.event(EventKind::NoRoom).broker(*broker).seen(why.to_string());
                self.record(
                    event.decided("its copies stay assigned to it").result(format!("{count} copies without a home")),
                );
            }
        }
        if !plan.rehomings.is_empty() {
            tracing::info!(now = plan.rehomings.len(), later = plan.waiting, "copies get new homes");
        }
        let events = write_rehomings(&self.term, &plan.rehomings).await?;
        for event in changes::coalesce(events) {
            self.record(event);
        }
        Ok(())
    }

    async fn keep_history_topic(&mut self) -> Result<(), RecipeError> {
        let term = &self.term;
        let shared = &term.shared;
        let any = term.view().read(|snapshot| !snapshot.brokers.is_empty());
        self.first_broker = if any { self.first_broker.or(Some(Instant::now())) } else { None };
        let wait = Duration::from_millis(shared.config.timing.events_topic_wait_ms);
        let waited = self.first_broker.is_some_and(|at| at.elapsed() >= wait);
        let seed = shared.draw("history");
        let limits = shared.config.placement_limits();
        match term.view().read(|snapshot| next_step(snapshot, limits, waited, seed)) {
            None => Ok(()),
            Some(InternalStep::Create(creation)) => {
                let deadline = Instant::now() + INTERNAL_WITHIN;
                if let Err(error) = admin::create(term, &creation, "coordinator", deadline).await {
                    tracing::warn!(%error, topic = EVENTS_TOPIC, "the topic of the history is not there yet");
                }
                Ok(())
            }
            Some(InternalStep::AddCopies { id, version, state }) => {
                let rehoming = Rehoming { id, version, state: *state, moves: Vec::new() };
                let _changing = term.changes.lock().await;
                for event in write_rehomings(term, &[rehoming]).await? {
                    self.record(event);
                }
                Ok(())
            }
            Some(InternalStep::RaiseMinInsync { id, config }) => {
                let _changing = term.changes.lock().await;
                match topics::set_config(term.registry(), term.fence, id, config).await {
                    Err(TopicError::Recipe(error)) => Err(error),
                    Ok(()) | Err(_) => term.refresh(id).await,
                }
            }
        }
    }

    /// Asks leaders to hand over to the preferred ones. Who refuses is asked again later.
    async fn balance(&mut self) {
        let shared = &self.term.shared;
        if !shared.config.healing.balance_leaders {
            return;
        }
        let now_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let limits = shared.config.balance_limits();
        let due = self.term.view().read(|snapshot| self.balancer.pass(snapshot, limits, now_ms));
        // All at once: one broker that does not answer holds up nobody else.
        let asking = due.iter().filter_map(|handover| {
            let address = self.term.view().read(|snapshot| {
                let live = snapshot.brokers.get(&handover.leader)?;
                peer_address(handover.leader, &live.registration).ok()
            })?;
            Some(async move {
                let asked = shared.brokers.resign(&address, handover.id, handover.epoch, handover.toward).await;
                (handover, asked)
            })
        });
        for (handover, asked) in join_all(asking).await {
            if let Err(error) = asked {
                tracing::debug!(partition = %handover.id, %error, "a leader did not take the request to hand over");
                continue;
            }
            let topic = self.term.view().read(|snapshot| snapshot.name_of(handover.id));
            let event = self.event(EventKind::PreferredElection).topic(topic).partition(handover.id.partition);
            let event = event.broker(handover.toward).epoch(handover.epoch);
            let decided = format!("asked broker {} to hand over to broker {}", handover.leader, handover.toward);
            self.record(event.seen("the preferred leader has been in sync for a while").decided(decided));
        }
    }

    fn event(&self, kind: EventKind) -> Event {
        self.term.history().event(kind)
    }

    fn record(&self, event: Event) {
        self.term.history().record(event);
    }
}

/// Whether an error says nothing about the one topic with which it was met.
fn concerns_all(error: &RecipeError) -> bool {
    match error {
        RecipeError::Fenced => true,
        RecipeError::Registry(error) => is_transient(error),
        RecipeError::Znode(_) | RecipeError::Contended(_) => false,
    }
}

/// Writes assignments; what somebody else changed meanwhile is left to the next pass. Returns
/// what to record.
async fn write_rehomings(term: &Term, rehomings: &[Rehoming]) -> Result<Vec<Event>, RecipeError> {
    let write = |r: &Rehoming| StateWrite::coordinate(r.id, r.version, r.state.clone(), term.fence);
    let writes: Vec<_> = rehomings.iter().map(write).collect();
    let outcomes = partition_state::write_many(term.registry(), &writes).await;
    let mut events = Vec::new();
    let mut unclear = Vec::new();
    for (rehoming, outcome) in rehomings.iter().zip(outcomes) {
        match outcome {
            Outcome::Done { version } => {
                let known = VersionedState { state: rehoming.state.clone(), version };
                let changed = term.view().set_states(vec![(rehoming.id, Some(known))]);
                term.history().record_changes(&changed);
                events.push(rehoming_event(term, rehoming));
            }
            Outcome::Fenced => return Err(RecipeError::Fenced),
            Outcome::Failed(error) => return Err(error.into()),
            Outcome::Unknown => {
                unclear.push(rehoming.id);
                events.push(rehoming_event(term, rehoming));
            }
            Outcome::Conflict | Outcome::Missing | Outcome::CandidateGone | Outcome::BrokerChanged => {
                unclear.push(rehoming.id);
            }
        }
    }
    match term.refresh_states(&unclear).await {
        Ok(()) | Err(RecipeError::Registry(RegistryError::Unknown(_))) => Ok(events),
        Err(error) => Err(error),
    }
}

fn rehoming_event(term: &Term, rehoming: &absent::Rehoming) -> Event {
    let topic = term.view().read(|snapshot| snapshot.name_of(rehoming.id));
    let assignment = &rehoming.state.assignment;
    let seen = match rehoming.moves.first() {
        Some(_) => {
            let away: Vec<_> = rehoming.moves.iter().map(|moved| moved.from).collect();
            format!("brokers that stay away: {}", reassign::list(&away))
        }
        None => "more brokers are here than copies".to_owned(),
    };
    let event = term.history().event(EventKind::Reassigned).topic(topic).partition(rehoming.id.partition);
    event
        .epoch(rehoming.state.epoch)
        .seen(seen)
        .decided(format!("replicas: {}", reassign::list(&reassign::target_of(assignment))))
        .result(format!(
            "joining: {}; leaving: {}",
            reassign::list(&assignment.adding),
            reassign::list(&assignment.removing)
        ))
}
