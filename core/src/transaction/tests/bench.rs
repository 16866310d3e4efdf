//! A coordinator with a log beside it, and shorthand for what clients say.

use std::collections::{BTreeMap, BTreeSet};

use crate::connection::ConnectionId;
use crate::error::{Error, ErrorCode};
use crate::ids::{Epoch, ProducerEpoch, ProducerId, TopicId, TopicPartition};
use crate::transaction::TransactionCoordinator;
use crate::transaction::message::*;
use crate::transaction::metadata::{TransactionMetadata, TransactionState};
use crate::transaction::partition::EndMarker;
use crate::transaction::record::TransactionRecord;
use crate::transaction::settings::TransactionSettings;

pub const TIMEOUT_MS: i64 = 60_000;

pub fn producer(id: i64, epoch: i16) -> Producer {
    Producer { id: ProducerId(id), epoch: ProducerEpoch(epoch) }
}

pub fn at(partition: u32) -> TopicPartition {
    TopicPartition { topic: TopicId(7), partition }
}

pub fn these(partitions: &[u32]) -> BTreeSet<TopicPartition> {
    partitions.iter().map(|partition| at(*partition)).collect()
}

/// Appends are stored at once unless `held`; producer ids are 1000 and following.
pub struct Bench {
    pub coordinator: TransactionCoordinator,
    pub settings: TransactionSettings,
    pub now_ms: i64,
    pub epoch: u32,
    pub log: Vec<TransactionRecord>,
    pub answers: BTreeMap<RequestId, Answer>,
    pub held: bool,
    pub waiting: Vec<(Ticket, TransactionRecord)>,
    /// Markers that were asked for, and not confirmed.
    pub markers: Vec<(MarkerRound, EndMarker, bool, BTreeSet<TopicPartition>)>,
    pub superseded: bool,
    pub ids_given: bool,
    connection: Option<ConnectionId>,
    next_request: u64,
    next_producer: i64,
}

impl Bench {
    pub fn new() -> Self {
        Self::with(TransactionSettings::default())
    }

    pub fn with(settings: TransactionSettings) -> Self {
        let mut bench = Self {
            coordinator: TransactionCoordinator::new(settings.clone(), Epoch(1)),
            settings,
            now_ms: 1_000_000,
            epoch: 1,
            log: Vec::new(),
            answers: BTreeMap::new(),
            held: false,
            waiting: Vec::new(),
            markers: Vec::new(),
            superseded: false,
            connection: None,
            ids_given: true,
            next_request: 0,
            next_producer: 1_000,
        };
        bench.load();
        bench
    }

    fn load(&mut self) {
        let effects = self.coordinator.loaded(self.now_ms);
        self.carry_out(effects);
    }

    pub fn step(&mut self, input: Input) {
        let effects = self.coordinator.step(self.now_ms, input);
        self.carry_out(effects);
        while !self.held && !self.waiting.is_empty() {
            self.store();
        }
    }

    fn carry_out(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Answer(request, answer) => {
                    let before = self.answers.insert(request, answer);
                    assert!(before.is_none(), "{request:?} is answered twice");
                }
                Effect::Append { ticket, record } => self.waiting.push((ticket, record)),
                Effect::WriteMarkers { round, marker, raised, partitions } => {
                    self.markers.push((round, marker, raised, partitions));
                }
                Effect::NeedProducerIds => {
                    let count = if self.ids_given { 100 } else { 0 };
                    let first = ProducerId(self.next_producer);
                    self.next_producer += i64::from(count);
                    self.step(Input::ProducerIds { first, count });
                }
                Effect::Superseded => self.superseded = true,
            }
        }
    }

    /// The oldest append is durable.
    pub fn store(&mut self) {
        let (ticket, record) = self.waiting.remove(0);
        self.log.push(record);
        let effects = self.coordinator.step(self.now_ms, Input::Appended { ticket, result: Ok(()) });
        self.carry_out(effects);
    }

    /// The oldest append is refused.
    pub fn refuse(&mut self) {
        let (ticket, _) = self.waiting.remove(0);
        let error = Error::new(ErrorCode::NotEnoughReplicas, "two of three are away");
        let effects = self.coordinator.step(self.now_ms, Input::Appended { ticket, result: Err(error) });
        self.carry_out(effects);
    }

    /// Another broker coordinates; what was on its way to the log is lost, and markers too.
    pub fn fail_over(&mut self) {
        let effects = self.coordinator.step(self.now_ms, Input::Resigned);
        self.carry_out(effects);
        self.waiting.clear();
        self.markers.clear();
        self.epoch += 1;
        self.coordinator = TransactionCoordinator::new(self.settings.clone(), Epoch(self.epoch));
        for record in &self.log {
            let (key, value) = (record.key(), record.value());
            self.coordinator.replay(TransactionRecord::decode(&key, value.as_deref()).unwrap());
        }
        self.load();
    }

    pub fn wait(&mut self, ms: i64) {
        let until = self.now_ms + ms;
        while let Some(at) = self.coordinator.next_deadline_ms().filter(|at| *at <= until) {
            self.now_ms = self.now_ms.max(at);
            self.step(Input::Tick);
        }
        self.now_ms = until;
    }

    /// Every partition confirms.
    pub fn confirm(&mut self) {
        for (round, _, _, partitions) in std::mem::take(&mut self.markers) {
            for at in partitions {
                self.step(Input::Marked { round, at, outcome: MarkerOutcome::Written });
            }
        }
    }

    /// What follows comes in on this connection.
    pub fn connect(&mut self, number: u64) {
        self.connection = Some(ConnectionId(number));
    }

    pub fn request(&mut self) -> RequestId {
        self.next_request += 1;
        RequestId(self.next_request)
    }

    pub fn init(&mut self, id: &str, expected: Option<Producer>) -> Result<Producer, ErrorCode> {
        let (request, connection) = (self.request(), self.connection);
        self.step(Input::Init { request, id: id.to_owned(), timeout_ms: TIMEOUT_MS, expected, connection });
        self.producer(request)
    }

    pub fn producer(&self, request: RequestId) -> Result<Producer, ErrorCode> {
        match &self.answers[&request] {
            Answer::Init(result) | Answer::End(result) => result.clone().map_err(|error| error.code),
            other => panic!("{other:?}"),
        }
    }

    pub fn ask_add(&mut self, id: &str, producer: Producer, partitions: &[u32]) -> RequestId {
        let (request, connection) = (self.request(), self.connection);
        self.step(Input::Add { request, id: id.to_owned(), producer, partitions: these(partitions), connection });
        request
    }

    pub fn added(&self, request: RequestId) -> Result<(), ErrorCode> {
        match &self.answers[&request] {
            Answer::Add(result) => result.clone().map_err(|error| error.code),
            other => panic!("{other:?}"),
        }
    }

    pub fn add(&mut self, id: &str, producer: Producer, partitions: &[u32]) -> Result<(), ErrorCode> {
        let request = self.ask_add(id, producer, partitions);
        self.added(request)
    }

    /// The first partition that is not part of the transaction.
    pub fn verify(&mut self, id: &str, producer: Producer, partitions: &[u32]) -> Result<(), ErrorCode> {
        let request = self.request();
        self.step(Input::Verify { request, id: id.to_owned(), producer, partitions: these(partitions) });
        match self.answers[&request].clone() {
            Answer::Verify(Ok(all)) => all.into_iter().try_for_each(|(_, one)| one).map_err(|error| error.code),
            Answer::Verify(Err(error)) => Err(error.code),
            other => panic!("{other:?}"),
        }
    }

    pub fn ask_end(&mut self, id: &str, producer: Producer, commit: bool, protocol: Protocol) -> RequestId {
        let (request, connection) = (self.request(), self.connection);
        self.step(Input::End { request, id: id.to_owned(), producer, commit, protocol, connection });
        request
    }

    pub fn end(
        &mut self,
        id: &str,
        producer: Producer,
        commit: bool,
        protocol: Protocol,
    ) -> Result<Producer, ErrorCode> {
        let request = self.ask_end(id, producer, commit, protocol);
        self.producer(request)
    }

    pub fn state(&self, id: &str) -> TransactionState {
        self.coordinator.describe(id).unwrap().state
    }

    /// An id whose producer has this epoch.
    pub fn with_epoch(&mut self, id: &str, epoch: i16) -> Producer {
        let mut metadata = TransactionMetadata::new(ProducerId(5), TIMEOUT_MS as u32, self.now_ms);
        metadata.producer.epoch = ProducerEpoch(epoch);
        let producer = metadata.producer;
        self.log.push(TransactionRecord { id: id.to_owned(), metadata: Some(metadata) });
        self.fail_over();
        producer
    }

    /// A producer with an open transaction in these partitions.
    pub fn ongoing(&mut self, id: &str, partitions: &[u32]) -> Producer {
        let producer = self.init(id, None).unwrap();
        assert_eq!(self.add(id, producer, partitions), Ok(()));
        producer
    }
}
