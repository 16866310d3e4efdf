//! The coordinator, its log, and what becomes of its effects.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::*;
use crate::error::Error;
use crate::ids::{Epoch, ProducerEpoch, ProducerId};
use crate::transaction::metadata::TransactionMetadata;
use crate::transaction::record::TransactionRecord;
use crate::transaction::settings::TransactionSettings;
use crate::transaction::{TransactionCoordinator, TransactionFilter};

pub struct CoordinatorSim {
    machine: TransactionCoordinator,
    epoch: u32,
    log: Vec<TransactionRecord>,
    waiting: VecDeque<(Ticket, TransactionRecord)>,
    requests: BTreeMap<RequestId, Asker>,
    next_request: u64,
    next_producer: i64,
}

impl CoordinatorSim {
    pub fn new() -> Self {
        Self {
            machine: TransactionCoordinator::new(settings(), Epoch(0)),
            epoch: 0,
            log: Vec::new(),
            waiting: VecDeque::new(),
            requests: BTreeMap::new(),
            next_request: 0,
            next_producer: 100,
        }
    }

    pub fn epoch(&self) -> u32 {
        self.epoch
    }

    fn append(&mut self, record: TransactionRecord) {
        let (key, value) = (record.key(), record.value());
        assert_eq!(TransactionRecord::decode(&key, value.as_deref()), Ok(record.clone()));
        self.log.push(record);
    }
}

fn settings() -> TransactionSettings {
    TransactionSettings { producer_ids_min: 1, ..TransactionSettings::default() }
}

impl World {
    /// The ids were used for so long that their epochs are nearly used up.
    pub fn age_epochs(&mut self) {
        for (n, id) in IDS.iter().enumerate() {
            let mut metadata = TransactionMetadata::new(ProducerId(10 + n as i64), TIMEOUT_MS as u32, 0);
            metadata.producer.epoch = ProducerEpoch(i16::MAX - 5);
            self.coordinator.append(TransactionRecord { id: (*id).to_owned(), metadata: Some(metadata) });
        }
    }

    /// Another broker coordinates. Of what was on its way to the log some is there, and those
    /// who asked do not hear of it.
    pub fn fail_over_coordinator(&mut self) {
        self.truth.count("coordinator fails over");
        let effects = self.coordinator.machine.step(self.now_ms, Input::Resigned);
        self.carry_out(effects);
        assert!(self.coordinator.requests.is_empty(), "never answered: {:?}", self.coordinator.requests);
        let stored = self.rng.index(self.coordinator.waiting.len() + 1);
        for (_, record) in std::mem::take(&mut self.coordinator.waiting).into_iter().take(stored) {
            self.coordinator.append(record);
        }
        self.take_over();
    }

    pub fn take_over(&mut self) {
        self.coordinator.epoch += 1;
        let mut machine = TransactionCoordinator::new(settings(), Epoch(self.coordinator.epoch));
        self.coordinator.log.iter().for_each(|record| machine.replay(record.clone()));
        self.coordinator.machine = machine;
        let effects = self.coordinator.machine.loaded(self.now_ms);
        self.carry_out(effects);
    }

    fn tell(&mut self, input: Input) {
        let effects = self.coordinator.machine.step(self.now_ms, input);
        self.carry_out(effects);
    }

    pub fn tick(&mut self) {
        while self.coordinator.machine.next_deadline_ms().is_some_and(|at| at <= self.now_ms) {
            self.tell(Input::Tick);
        }
    }

    fn carry_out(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Answer(request, answer) => self.answered(request, answer),
                Effect::Append { ticket, record } => self.coordinator.waiting.push_back((ticket, record)),
                Effect::WriteMarkers { round, marker, raised, partitions } => {
                    let coordinator = self.coordinator.epoch;
                    for at in partitions {
                        let at = at.partition as usize;
                        self.wire.push(Message::Mark { coordinator, round, marker, raised, at });
                    }
                }
                Effect::NeedProducerIds => {
                    let count = 2;
                    let first = ProducerId(self.coordinator.next_producer);
                    self.coordinator.next_producer += i64::from(count);
                    self.tell(Input::ProducerIds { first, count });
                }
                Effect::Superseded => panic!("there is no later coordinator"),
            }
        }
    }

    pub fn ask(&mut self, asker: Asker, ask: Ask) {
        self.coordinator.next_request += 1;
        let request = RequestId(self.coordinator.next_request);
        self.coordinator.requests.insert(request, asker);
        let only = |partition| BTreeSet::from([place(partition)]);
        self.tell(match ask {
            Ask::Init { id, expected } => {
                Input::Init { request, id: id.to_owned(), timeout_ms: TIMEOUT_MS, expected, connection: None }
            }
            Ask::Add { id, producer, partition } => {
                Input::Add { request, id: id.to_owned(), producer, partitions: only(partition), connection: None }
            }
            Ask::Verify { id, producer, partition } => {
                Input::Verify { request, id: id.to_owned(), producer, partitions: only(partition) }
            }
            Ask::End { id, producer, commit, protocol } => {
                Input::End { request, id: id.to_owned(), producer, commit, protocol, connection: None }
            }
        });
    }

    fn answered(&mut self, request: RequestId, answer: Answer) {
        let asker = self.coordinator.requests.remove(&request);
        let Some(asker) = asker else { panic!("{request:?} is answered twice, or was never asked") };
        let reply = match answer {
            Answer::Init(result) => {
                if let (Ok(producer), Asker::Client(client, _)) = (&result, &asker) {
                    self.truth.taken(self.clients[*client].id, *producer);
                }
                Reply::Producer(result.map_err(|error| error.code))
            }
            Answer::End(result) => Reply::Producer(result.map_err(|error| error.code)),
            Answer::Add(result) => Reply::Done(result.map_err(|error| error.code)),
            Answer::Verify(result) => {
                let one = result.and_then(|mut all| all.remove(0).1);
                Reply::Done(one.map_err(|error| error.code))
            }
        };
        match (asker, reply) {
            (Asker::Client(client, call), reply) => self.wire.push(Message::Reply { client, call, reply }),
            (Asker::Broker(write, guard), Reply::Done(Ok(()))) => {
                self.wire.push(Message::Produce(write, Some(guard)));
            }
            (Asker::Broker(write, _), Reply::Done(Err(code)) | Reply::Producer(Err(code))) => {
                self.refuse_write(&write, code);
            }
            (Asker::Broker(..), Reply::Producer(Ok(_))) => panic!("an answer of another kind"),
        }
    }

    /// The oldest append is durable; whether there was one.
    pub fn store(&mut self) -> bool {
        let Some((ticket, record)) = self.coordinator.waiting.pop_front() else {
            return false;
        };
        self.coordinator.append(record);
        self.tell(Input::Appended { ticket, result: Ok(()) });
        true
    }

    /// The oldest append is refused.
    pub fn refuse(&mut self) {
        if let Some((ticket, _)) = self.coordinator.waiting.pop_front() {
            let error = Error::new(ErrorCode::NotEnoughReplicas, "two of three are away");
            self.tell(Input::Appended { ticket, result: Err(error) });
        }
    }

    pub fn marked(&mut self, coordinator: u32, round: MarkerRound, at: usize, outcome: MarkerOutcome) {
        if coordinator == self.coordinator.epoch {
            self.tell(Input::Marked { round, at: place(at), outcome });
        }
    }

    pub fn unanswered(&self) -> usize {
        self.coordinator.requests.len()
    }

    /// Transactional ids with a transaction that is not over.
    pub fn open_transactions(&self) -> Vec<String> {
        let all = self.coordinator.machine.list(self.now_ms, &TransactionFilter::default());
        let open = all.into_iter().filter(|line| !line.state.is_idle());
        open.map(|line| format!("{} is {}", line.id, line.state.name())).collect()
    }
}
