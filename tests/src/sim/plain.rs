//! Producers without our client: records and batches as other programs would send them. A plain
//! one repeats what was not answered, so that its records may be stored twice; a sequenced one
//! breaks the rules of sequences on purpose, and has to be refused.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use baton_client::net::Connector;
use baton_core::batch::{BatchBuilder, BuildOptions, ProducerStamp};
use baton_core::{ErrorCode, ProducerEpoch, ProducerId};
use baton_history::event::{Event, Producer};
use baton_proto::v1::broker_client::BrokerClient;
use baton_proto::v1::{self, produce_partition::Payload};
use bytes::Bytes;
use hyper_util::rt::TokioIo;
use rand::Rng;
use rand::rngs::SmallRng;
use tokio::time::Instant;
use tonic::Status;
use tonic::transport::{Channel, Endpoint, Uri};

use super::broker_name;
use super::load::{Key, Load, Stage, acknowledged, draw_place, failed};
use super::topic::{Place, Topic};
use crate::net::SimulatedNetwork;

/// A record that is not acknowledged after so long is given up.
const PATIENCE: Duration = Duration::from_secs(12);

/// One attempt.
const ATTEMPT: Duration = Duration::from_secs(3);

/// Batches that a sequenced producer remembers, to repeat them.
const REMEMBERED: usize = 12;

/// What became of one batch.
enum Told {
    Stored { offset: u64, epoch: u32 },
    Refused(ErrorCode, String),
    Unknown(String),
}

/// Connections to the brokers, as another program would keep them.
struct Wire {
    brokers: u32,
    channels: BTreeMap<u32, Channel>,
    rng: SmallRng,
}

impl Wire {
    fn broker(&mut self, id: u32) -> Option<BrokerClient<Channel>> {
        if let Some(channel) = self.channels.get(&id) {
            return Some(BrokerClient::new(channel.clone()));
        }
        let endpoint = Endpoint::from_shared(format!("http://{}:7400", broker_name(id))).ok()?;
        let endpoint = endpoint
            .http2_keep_alive_interval(Duration::from_millis(500))
            .keep_alive_timeout(Duration::from_secs(1))
            .keep_alive_while_idle(true);
        let channel = endpoint.connect_with_connector_lazy(tower::service_fn(|uri: Uri| async move {
            let address = uri.authority().map(ToString::to_string).unwrap_or_default();
            let stream = tokio::time::timeout(ATTEMPT, Connector::connect(&SimulatedNetwork, address)).await;
            stream.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?.map(TokioIo::new)
        }));
        self.channels.insert(id, channel.clone());
        Some(BrokerClient::new(channel))
    }

    /// Whom any broker names as the leader; now and then somebody else, as if that were known
    /// from long ago.
    async fn leader(&mut self, place: Place) -> Option<u32> {
        let any = self.rng.random_range(1..=self.brokers);
        if self.rng.random_bool(0.05) {
            return Some(any);
        }
        let topics = vec![place.topic.name().to_owned()];
        let request = v1::MetadataRequest { topics, ..Default::default() };
        let mut broker = self.broker(any)?;
        let answer = tokio::time::timeout(ATTEMPT, broker.metadata(request)).await.ok()?.ok()?.into_inner();
        let partitions = &answer.topics.first()?.partitions;
        partitions.iter().find(|p| p.partition == place.partition)?.leader
    }

    /// One request on a stream of its own.
    async fn produce(&mut self, place: Place, payload: Payload) -> Option<Told> {
        let leader = self.leader(place).await?;
        let mut broker = self.broker(leader)?;
        let (topic, partition) = (place.topic.name().to_owned(), place.partition);
        let partitions = vec![v1::ProducePartition { topic, partition, payload: Some(payload) }];
        let timeout_ms = u32::try_from(ATTEMPT.as_millis()).unwrap_or(u32::MAX);
        let request = v1::ProduceRequest { correlation: 1, timeout_ms, partitions, ..Default::default() };
        let asking = async move {
            let mut answers = broker.produce(tokio_stream::iter([request])).await?.into_inner();
            answers.message().await
        };
        Some(told(tokio::time::timeout(ATTEMPT * 2, asking).await))
    }

    /// Until it is acknowledged, or refused for good.
    async fn produce_patiently(&mut self, place: Place, payload: &Payload) -> Told {
        let (deadline, mut last) = (Instant::now() + PATIENCE, Told::Unknown("no leader was found".to_owned()));
        while Instant::now() < deadline {
            match self.produce(place, payload.clone()).await {
                Some(Told::Refused(code, why)) if code.retriable() => last = Told::Unknown(why),
                Some(Told::Unknown(why)) => last = Told::Unknown(why),
                Some(done) => return done,
                None => {}
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        last
    }

    async fn new_producer(&mut self) -> Option<(ProducerId, ProducerEpoch)> {
        let any = self.rng.random_range(1..=self.brokers);
        let mut broker = self.broker(any)?;
        let asking = broker.init_producer(v1::InitProducerRequest { client_id: String::new() });
        let answer = tokio::time::timeout(ATTEMPT, asking).await.ok()?.ok()?.into_inner();
        let epoch = ProducerEpoch(i16::try_from(answer.producer_epoch).ok()?);
        answer.error.is_none().then_some((ProducerId(answer.producer_id), epoch))
    }
}

type Answered = Result<Result<Option<v1::ProduceResponse>, Status>, tokio::time::error::Elapsed>;

fn told(answer: Answered) -> Told {
    let answer = match answer {
        Ok(Ok(Some(answer))) => answer,
        Ok(Ok(None)) => return Told::Unknown("the stream ended".to_owned()),
        Ok(Err(status)) => return Told::Unknown(status.to_string()),
        Err(_) => return Told::Unknown("no answer".to_owned()),
    };
    let Some(result) = answer.results.into_iter().next() else {
        return Told::Unknown("the answer is empty".to_owned());
    };
    match (result.error, u64::try_from(result.base_offset)) {
        (Some(error), _) => {
            let code = ErrorCode::from_number(error.code).unwrap_or(ErrorCode::Internal);
            Told::Refused(code, format!("{}: {}", error.name, error.cause))
        }
        (None, Ok(offset)) => Told::Stored { offset, epoch: result.epoch },
        (None, Err(_)) => Told::Unknown("the offset is negative".to_owned()),
    }
}

impl Load {
    /// Sends records without sequences, and batches with some, until the load ends.
    pub(super) async fn produce_plainly(self, id: u32, every_ms: u32) {
        let client = self.connect(400 + u64::from(id)).await;
        let orders = self.partitions(&client, Topic::Orders).await;
        self.partitions(&client, Topic::Drafts).await;
        drop(client);
        let name = format!("plain{id}");
        self.recorder.record(Event::Producer(Producer { producer: name.clone().into(), idempotent: false }));
        let brokers = self.cluster.settings.brokers;
        let mut wire = Wire { brokers, channels: BTreeMap::new(), rng: self.rng(500 + u64::from(id)) };
        let mut rng = self.rng(400 + u64::from(id));
        let mut sequenced: BTreeMap<Place, Sequenced> = BTreeMap::new();
        for sequence in 0.. {
            tokio::time::sleep(Duration::from_millis(u64::from(rng.random_range(every_ms / 2..=every_ms)))).await;
            if self.stage() > Stage::Load {
                break;
            }
            let place = draw_place(&mut rng, orders);
            if place.topic == Topic::Orders && rng.random_bool(0.5) {
                let producer = sequenced.entry(place).or_insert_with(|| Sequenced::new(&self, id, place));
                producer.go_on(&mut wire, &mut rng, sequence).await;
                continue;
            }
            let (key, value) = ((name.clone(), place, sequence), format!("{name}/{place}/{sequence}"));
            self.sends(&key, value.as_bytes());
            let record = v1::Record { value: Some(value.into()), ..Default::default() };
            let payload = Payload::Records(v1::Records { records: vec![record] });
            let outcome = match wire.produce_patiently(place, &payload).await {
                Told::Stored { offset, epoch } => acknowledged(&key, offset, epoch),
                // An attempt before the last one may have been stored.
                Told::Refused(_, why) | Told::Unknown(why) => Event::Unknown(failed(&key, &why)),
            };
            self.ended(&key, outcome);
        }
        std::future::pending::<()>().await;
    }
}

/// A producer with sequences, of one partition, that has one batch under way.
struct Sequenced {
    load: Load,
    name: String,
    place: Place,
    identity: Option<(ProducerId, ProducerEpoch)>,
    next: i32,
    /// Acknowledged batches of this epoch, and where they are.
    stored: Vec<(i32, Bytes, u64)>,
}

impl Sequenced {
    fn new(load: &Load, id: u32, place: Place) -> Self {
        let name = format!("sequenced{id}");
        Self { load: load.clone(), name, place, identity: None, next: 0, stored: Vec::new() }
    }

    fn batch(&self, value: &str, epoch: ProducerEpoch, base_sequence: i32) -> Option<Bytes> {
        let (id, _) = self.identity?;
        let mut builder = BatchBuilder::new(1 << 20);
        let _ = builder.push(1_704_067_200_000, None, Some(value.as_bytes()), &[]).ok()?;
        let producer = Some(ProducerStamp { id, epoch, base_sequence });
        builder.build(&BuildOptions { producer, ..BuildOptions::default() }).ok()
    }

    /// Sends the next batch, or one that has to be refused, or one again.
    async fn go_on(&mut self, wire: &mut Wire, rng: &mut SmallRng, number: u64) {
        let Some((_, epoch)) = self.identity else {
            self.identity = wire.new_producer().await;
            return;
        };
        let known = !self.stored.is_empty();
        match rng.random_range(0..10) {
            0 if known => self.repeat(wire, rng).await,
            1 if known => {
                let gap = self.next + rng.random_range(1..50);
                self.must_be_refused(wire, number, epoch, gap).await;
            }
            2 if known && epoch.0 > 0 => {
                self.must_be_refused(wire, number, ProducerEpoch(epoch.0 - 1), self.next).await;
            }
            3 if known => self.begin_epoch(),
            _ => self.send(wire, number, epoch).await,
        }
    }

    fn begin_epoch(&mut self) {
        if let Some((_, epoch)) = &mut self.identity {
            epoch.0 = epoch.0.saturating_add(1);
        }
        self.next = 0;
        self.stored.clear();
    }

    async fn send(&mut self, wire: &mut Wire, number: u64, epoch: ProducerEpoch) {
        let (key, value) = self.key(number);
        let Some(batch) = self.batch(&value, epoch, self.next) else { return };
        self.load.sends(&key, value.as_bytes());
        match wire.produce_patiently(self.place, &Payload::Batch(batch.clone())).await {
            Told::Stored { offset, epoch } => {
                self.load.ended(&key, acknowledged(&key, offset, epoch));
                self.stored.push((self.next, batch, offset));
                self.next += 1;
                let forgotten = self.stored.len().saturating_sub(REMEMBERED);
                self.stored.drain(..forgotten);
            }
            // It may be stored later than what is sent next: the next epoch keeps it out.
            Told::Refused(_, why) | Told::Unknown(why) => {
                self.load.ended(&key, Event::Unknown(failed(&key, &why)));
                self.begin_epoch();
            }
        }
    }

    /// What is stored already is stored once, and stays where it is.
    async fn repeat(&mut self, wire: &mut Wire, rng: &mut SmallRng) {
        let at = rng.random_range(0..self.stored.len());
        let Some((sequence, batch, stored)) = self.stored.get(at).cloned() else { return };
        if let Some(Told::Stored { offset, .. }) = wire.produce(self.place, Payload::Batch(batch)).await
            && offset != stored
        {
            let what = format!("{} of {} is at {stored}, and repeated at {offset}", sequence, self.name);
            self.load.cluster.violations.add(format!("stored twice in {}: sequence {what}", self.place));
        }
    }

    /// A sequence that leaves some out, or an epoch that is over.
    async fn must_be_refused(&mut self, wire: &mut Wire, number: u64, epoch: ProducerEpoch, sequence: i32) {
        let (key, value) = self.key(number);
        let Some(batch) = self.batch(&value, epoch, sequence) else { return };
        self.load.sends(&key, value.as_bytes());
        let outcome = match wire.produce(self.place, Payload::Batch(batch)).await {
            Some(Told::Stored { offset, .. }) => {
                let what = format!("{} took sequence {sequence} of epoch {epoch} at {offset}", self.place);
                self.load.cluster.violations.add(format!("what had to be refused was stored: {what}"));
                Event::Unknown(failed(&key, "it was stored"))
            }
            Some(Told::Refused(code, why)) if !code.retriable() => Event::Fail(failed(&key, &why)),
            Some(Told::Refused(_, why) | Told::Unknown(why)) => Event::Unknown(failed(&key, &why)),
            None => Event::Fail(failed(&key, "it was not sent")),
        };
        self.load.ended(&key, outcome);
    }

    fn key(&self, number: u64) -> (Key, String) {
        let key = (self.name.clone(), self.place, number);
        (key, format!("{}/{}/{number}", self.name, self.place))
    }
}
