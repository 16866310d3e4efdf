//! A coordinator with a log beside it, and shorthand for what clients say.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::error::{Error, ErrorCode};
use crate::group::GroupCoordinator;
use crate::group::message::*;
use crate::group::record::GroupRecord;
use crate::group::settings::GroupSettings;
use crate::ids::{ProducerEpoch, ProducerId};

pub type Transaction = Option<(ProducerId, ProducerEpoch)>;

/// Appends are stored at once unless `held`.
pub struct Bench {
    pub coordinator: GroupCoordinator,
    pub settings: GroupSettings,
    pub now_ms: i64,
    pub log: Vec<(GroupRecord, Transaction)>,
    pub answers: BTreeMap<RequestId, Answer>,
    pub held: bool,
    pub waiting: Vec<(Ticket, Vec<GroupRecord>, Transaction)>,
    next: u64,
}

impl Bench {
    pub fn new() -> Self {
        Self::with(GroupSettings { initial_delay_ms: 0, ..GroupSettings::default() })
    }

    pub fn with(settings: GroupSettings) -> Self {
        Self {
            coordinator: GroupCoordinator::new(settings.clone()),
            settings,
            now_ms: 1_000_000,
            log: Vec::new(),
            answers: BTreeMap::new(),
            held: false,
            waiting: Vec::new(),
            next: 0,
        }
    }

    pub fn request(&mut self) -> RequestId {
        self.next += 1;
        RequestId(self.next)
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
                Effect::Append { ticket, records, transaction } => self.waiting.push((ticket, records, transaction)),
            }
        }
    }

    /// The oldest append is durable.
    pub fn store(&mut self) {
        let (ticket, records, transaction) = self.waiting.remove(0);
        for record in records {
            let (key, value) = (record.key(), record.value());
            assert_eq!(GroupRecord::decode(&key, value.as_deref()), Ok(record.clone()));
            self.log.push((record, transaction));
        }
        let effects = self.coordinator.step(self.now_ms, Input::Appended { ticket, result: Ok(()) });
        self.carry_out(effects);
    }

    /// The oldest append is refused.
    pub fn refuse(&mut self) {
        let (ticket, ..) = self.waiting.remove(0);
        let error = Error::new(ErrorCode::NotEnoughReplicas, "two of three are away");
        let effects = self.coordinator.step(self.now_ms, Input::Appended { ticket, result: Err(error) });
        self.carry_out(effects);
    }

    /// Another broker coordinates; what was on its way to the log is lost.
    pub fn fail_over(&mut self) {
        let effects = self.coordinator.step(self.now_ms, Input::End);
        self.waiting.clear();
        self.carry_out(effects);
        self.coordinator = GroupCoordinator::new(self.settings.clone());
        for (record, transaction) in &self.log {
            self.coordinator.replay(self.now_ms, record.clone(), *transaction);
        }
        self.coordinator.loaded(self.now_ms);
    }

    pub fn wait(&mut self, ms: i64) {
        let until = self.now_ms + ms;
        while let Some(at) = self.coordinator.next_deadline_ms().filter(|at| *at <= until) {
            self.now_ms = self.now_ms.max(at);
            self.step(Input::Tick);
        }
        self.now_ms = until;
    }

    pub fn join_as(&mut self, group: &str, join: Join) -> RequestId {
        let request = self.request();
        self.step(Input::Join(request, group.to_owned(), join));
        request
    }

    pub fn joined(&self, request: RequestId) -> Joined {
        match &self.answers[&request] {
            Answer::Join(Ok(joined)) => joined.clone(),
            other => panic!("{other:?}"),
        }
    }

    pub fn join_error(&self, request: RequestId) -> ErrorCode {
        match &self.answers[&request] {
            Answer::Join(Err((error, _))) => error.code,
            other => panic!("{other:?}"),
        }
    }

    pub fn sync(&mut self, group: &str, id: &str, generation: i32, parts: &[(&str, &str)]) -> RequestId {
        let request = self.request();
        let assignments = parts.iter().map(|(id, part)| ((*id).to_owned(), Bytes::copy_from_slice(part.as_bytes())));
        let sync = Sync {
            identity: identity(id),
            generation,
            protocol_type: None,
            protocol: None,
            assignments: assignments.collect(),
        };
        self.step(Input::Sync(request, group.to_owned(), sync));
        request
    }

    pub fn synced(&self, request: RequestId) -> Result<Bytes, ErrorCode> {
        match &self.answers[&request] {
            Answer::Sync(result) => result.as_ref().map(|s| s.assignment.clone()).map_err(|e| e.code),
            other => panic!("{other:?}"),
        }
    }

    pub fn heartbeat(&mut self, group: &str, id: &str, generation: i32) -> Result<(), ErrorCode> {
        let request = self.request();
        self.step(Input::Heartbeat { request, group: group.to_owned(), identity: identity(id), generation });
        match &self.answers[&request] {
            Answer::Heartbeat(result) => result.clone().map_err(|e| e.code),
            other => panic!("{other:?}"),
        }
    }

    pub fn leave(&mut self, group: &str, id: &str) -> Result<(), ErrorCode> {
        let request = self.request();
        self.step(Input::Leave { request, group: group.to_owned(), members: vec![identity(id)] });
        match &self.answers[&request] {
            Answer::Leave(members) => members[0].1.clone().map_err(|e| e.code),
            other => panic!("{other:?}"),
        }
    }

    /// A stable group of these members; returns its generation.
    pub fn stable(&mut self, group: &str, ids: &[&str]) -> i32 {
        let requests: Vec<_> = ids.iter().map(|id| self.join_as(group, new_member(id))).collect();
        // The first one was alone in a generation of its own.
        if ids.len() > 1 {
            let first = self.join_as(group, Join { identity: identity(ids[0]), ..new_member(ids[0]) });
            let others = ids[1..ids.len() - 1].iter();
            let others: Vec<_> =
                others.map(|id| self.join_as(group, Join { identity: identity(id), ..new_member(id) })).collect();
            assert!(
                others.iter().all(|request| self.answers.contains_key(request)) && self.answers.contains_key(&first)
            );
        }
        let generation = self.joined(*requests.last().unwrap()).generation;
        let leader = self.coordinator.describe(group).unwrap().leader.unwrap();
        let parts: Vec<_> = ids.iter().map(|id| (*id, *id)).collect();
        self.sync(group, &leader, generation, &parts);
        for id in ids.iter().filter(|id| ***id != leader) {
            let request = self.sync(group, id, generation, &[]);
            assert_eq!(self.synced(request), Ok(Bytes::copy_from_slice(id.as_bytes())));
        }
        assert_eq!(self.coordinator.describe(group).unwrap().state, "Stable");
        generation
    }
}

pub fn identity(id: &str) -> Identity {
    Identity { member: id.to_owned(), instance: None }
}

/// A consumer of topic `t` that comes for the first time and gets this id.
pub fn new_member(id: &str) -> Join {
    Join {
        identity: Identity::default(),
        client_id: "client".to_owned(),
        client_host: "/127.0.0.1".to_owned(),
        session_ms: 10_000,
        rebalance_ms: 60_000,
        protocol_type: "consumer".to_owned(),
        protocols: vec![Protocol {
            name: "range".to_owned(),
            metadata: Bytes::from_static(b"\0\0\0\0\0\x01\0\x01t\xff\xff\xff\xff"),
        }],
        fresh_id: id.to_owned(),
        must_know_id: false,
        may_skip_assignment: false,
    }
}
