//! A client: one instance of a producer. It does not notice when another one takes its place.

use super::*;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Asks who it is.
    Starting,
    Between,
    Writing,
    Ending {
        commit: bool,
    },
    Dead,
}

pub struct Client {
    number: usize,
    pub id: &'static str,
    protocol: Protocol,
    producer: Option<Producer>,
    phase: Phase,
    tag: usize,
    added: BTreeSet<usize>,
    sequences: [i32; PARTITIONS],
    /// Batches without an answer, at most one for each partition.
    open: BTreeMap<u64, Write>,
    /// The call to the coordinator without an answer.
    asked: Option<(u64, Ask)>,
    /// It can only abort this transaction.
    failed: bool,
    /// It has to ask anew who it is once this transaction is over.
    renews: bool,
}

impl Client {
    pub fn new(number: usize, id: &'static str, protocol: Protocol) -> Self {
        Self {
            number,
            id,
            protocol,
            producer: None,
            phase: Phase::Starting,
            tag: 0,
            added: BTreeSet::new(),
            sequences: [0; PARTITIONS],
            open: BTreeMap::new(),
            asked: None,
            failed: false,
            renews: false,
        }
    }

    pub fn stop(&mut self) {
        self.phase = Phase::Dead;
    }

    fn is(&mut self, producer: Producer) {
        if self.producer != Some(producer) {
            self.sequences = [0; PARTITIONS];
        }
        self.producer = Some(producer);
    }

    fn over(&mut self) {
        self.phase = if self.renews { Phase::Starting } else { Phase::Between };
        (self.failed, self.renews) = (false, false);
        self.open.clear();
        self.added.clear();
    }
}

impl World {
    /// The client does something.
    pub fn act(&mut self, who: usize) {
        if self.clients[who].phase == Phase::Dead {
            return self.restart(who);
        }
        let client = &self.clients[who];
        if let Some((call, ask)) = client.asked.clone() {
            if self.rng.one_in(4) {
                self.wire.push(Message::Ask(Asker::Client(who, call), ask));
            }
            return;
        }
        match (client.phase, client.producer) {
            (Phase::Starting, expected) => self.ask_coordinator(who, Ask::Init { id: self.clients[who].id, expected }),
            (Phase::Between, Some(_)) => {
                let tag = self.truth.begin(who);
                let client = &mut self.clients[who];
                (client.phase, client.tag) = (Phase::Writing, tag);
            }
            (Phase::Writing, Some(producer)) => self.write_or_end(who, producer),
            (Phase::Ending { commit }, Some(producer)) => self.end(who, producer, commit),
            _ => {}
        }
    }

    /// The client's process has ended, and another one starts, unless there is one already.
    /// What it sent may still be on its way.
    fn restart(&mut self, who: usize) {
        let id = self.clients[who].id;
        if !self.clients.iter().any(|client| client.id == id && client.phase != Phase::Dead) {
            self.clients[who] = Client::new(who, id, self.clients[who].protocol);
        }
    }

    fn ask_coordinator(&mut self, who: usize, ask: Ask) {
        let call = self.call();
        self.clients[who].asked = Some((call, ask.clone()));
        self.wire.push(Message::Ask(Asker::Client(who, call), ask));
    }

    fn write_or_end(&mut self, who: usize, producer: Producer) {
        let partition = self.rng.index(PARTITIONS);
        match self.rng.next(10) {
            0..=4 if !self.clients[who].failed => self.write(who, producer, partition),
            5 | 6 => {
                let open: Vec<_> = self.clients[who].open.values().copied().collect();
                if !open.is_empty() {
                    let write = open[self.rng.index(open.len())];
                    self.wire.push(Message::Produce(write, None));
                }
            }
            // It waits no longer for an answer. The batch may still be on its way.
            7 if !self.clients[who].open.is_empty() => self.clients[who].failed = true,
            _ => {
                let wants = self.rng.next(3) > 0;
                let client = &mut self.clients[who];
                let commit = wants && !client.failed;
                if !commit || client.open.is_empty() {
                    client.phase = Phase::Ending { commit };
                }
            }
        }
    }

    fn write(&mut self, who: usize, producer: Producer, partition: usize) {
        let client = &self.clients[who];
        if client.protocol == Protocol::First && !client.added.contains(&partition) {
            let id = client.id;
            return self.ask_coordinator(who, Ask::Add { id, producer, partition });
        }
        if client.open.values().any(|write| write.partition == partition) {
            return;
        }
        let call = self.call();
        let client = &mut self.clients[who];
        let sequence = client.sequences[partition];
        let (tag, id, protocol) = (client.tag, client.id, client.protocol);
        let write = Write { client: who, call, tag, id, producer, partition, sequence, protocol };
        client.sequences[partition] += 1;
        client.open.insert(call, write);
        client.added.insert(partition);
        self.truth.sent(&write);
        self.wire.push(Message::Produce(write, None));
    }

    fn end(&mut self, who: usize, producer: Producer, commit: bool) {
        let client = &mut self.clients[who];
        let nothing = client.added.is_empty();
        if nothing && (client.protocol == Protocol::First || commit) {
            return client.over();
        }
        let (id, protocol, tag) = (client.id, client.protocol, client.tag);
        if commit {
            self.truth.commit_asked(tag);
        }
        self.ask_coordinator(who, Ask::End { id, producer, commit, protocol });
    }

    pub fn reply(&mut self, who: usize, call: u64, reply: Reply) {
        let client = &mut self.clients[who];
        if let Some(write) = client.open.get(&call).copied() {
            if let Reply::Done(result) = reply {
                self.write_answered(&write, result);
            }
            return;
        }
        if client.phase == Phase::Dead || client.asked.as_ref().is_none_or(|(asked, _)| *asked != call) {
            return;
        }
        let Some((_, ask)) = client.asked.take() else { return };
        match (ask, reply) {
            (_, Reply::Producer(Err(code)) | Reply::Done(Err(code))) => self.asked_in_vain(who, code),
            (Ask::Init { .. }, Reply::Producer(Ok(producer))) => {
                client.is(producer);
                client.phase = Phase::Between;
            }
            (Ask::Add { partition, .. }, Reply::Done(Ok(()))) => {
                client.added.insert(partition);
            }
            (Ask::End { commit, .. }, Reply::Producer(Ok(producer))) => {
                let tag = client.tag;
                if client.phase == (Phase::Ending { commit }) {
                    client.is(producer);
                    client.over();
                    self.truth.ended(tag, commit);
                }
            }
            (ask, reply) => panic!("{ask:?} is answered by {reply:?}"),
        }
    }

    fn asked_in_vain(&mut self, who: usize, code: ErrorCode) {
        let retries = code.retriable();
        let client = &mut self.clients[who];
        // It asks again when it acts again.
        if retries {
            return;
        }
        match client.phase {
            Phase::Writing if code == ErrorCode::InvalidTransactionState => client.failed = true,
            _ => client.phase = Phase::Dead,
        }
    }

    fn write_answered(&mut self, write: &Write, result: Result<(), ErrorCode>) {
        let goes_on = self.rng.one_in(2);
        let client = &mut self.clients[write.client];
        debug_assert_eq!(client.number, write.client);
        match result {
            Ok(()) => {
                client.open.remove(&write.call);
                self.truth.acknowledged(write);
            }
            Err(code) if code.retriable() => {}
            Err(ErrorCode::TransactionAbortable) => client.failed = true,
            Err(ErrorCode::OutOfOrderSequence) => (client.failed, client.renews) = (true, true),
            // It was too slow, or another one has come: it asks who it is (KIP-360).
            Err(_) if goes_on && client.phase == Phase::Writing && client.asked.is_none() => {
                client.over();
                client.phase = Phase::Starting;
            }
            Err(_) => client.phase = Phase::Dead,
        }
    }
}
