//! The task around the failure detector: heartbeats in, opinions out.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use baton_core::detector::{Advice, Detector, DetectorConfig, Observation};
use baton_core::replica::{Env, Health};
use baton_core::{BrokerId, Incarnation};
use baton_proto::v1::SuspectRequest;
use baton_proto::v1::peer_client::PeerClient;
use baton_registry::SessionState;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;

use crate::clock::Monotonic;
use crate::metrics::{Metrics, Verdict};
use crate::peers::sender::PeerSender;
use crate::shard::{ShardInput, Shards};

/// How long another broker may take to say whether it hears somebody.
const QUESTION_MAX: Duration = Duration::from_millis(300);

#[derive(Debug)]
enum Word {
    Observed(Observation),
    Hears { broker: BrokerId, incarnation: Incarnation, reply: oneshot::Sender<bool> },
}

/// Tells the detector what was seen. Cloning it is cheap.
#[derive(Clone, Debug)]
pub struct DetectionHandle {
    words: mpsc::UnboundedSender<Word>,
}

impl DetectionHandle {
    /// Observations come at the rate of heartbeats, and the task only computes: its queue
    /// stays short.
    pub fn observe(&self, observation: Observation) {
        let _ = self.words.send(Word::Observed(observation));
    }

    /// Whether that process was heard within the last heartbeats.
    pub async fn hears(&self, broker: BrokerId, incarnation: Incarnation) -> bool {
        let (reply, answer) = oneshot::channel();
        let asked = self.words.send(Word::Hears { broker, incarnation, reply }).is_ok();
        asked && answer.await.unwrap_or(false)
    }
}

/// What the task is made of.
pub struct Detection {
    detector: Detector,
    words: mpsc::UnboundedReceiver<Word>,
    handle: DetectionHandle,
    heartbeat: Duration,
}

impl Detection {
    #[must_use]
    pub fn new(config: DetectorConfig) -> (Self, DetectionHandle) {
        let (sender, words) = mpsc::unbounded_channel();
        let handle = DetectionHandle { words: sender };
        let heartbeat = Duration::from_millis(config.heartbeat_ms);
        (Self { detector: Detector::new(config), words, handle: handle.clone(), heartbeat }, handle)
    }

    /// Runs until the broker stops. `env` is what shards and elections read; they are told
    /// when it has news.
    pub async fn run(mut self, world: World) {
        let mut tick = tokio::time::interval(self.heartbeat / 5);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut session = world.session.clone();
        let mut advice = Vec::new();
        loop {
            let mut connection_changed = false;
            tokio::select! {
                biased;
                _ = tick.tick() => self.detector.tick(world.monotonic.now_ms(), &mut advice),
                changed = session.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    connection_changed = true;
                }
                word = self.words.recv() => match word {
                    Some(word) => self.take(word, &world, &mut advice),
                    None => return,
                },
            }
            self.act(&world, &mut advice, connection_changed).await;
        }
    }

    fn take(&mut self, word: Word, world: &World, advice: &mut Vec<Advice>) {
        let now_ms = world.monotonic.now_ms();
        match word {
            Word::Observed(observation) => self.detector.observe(observation, now_ms, advice),
            Word::Hears { broker, incarnation, reply } => {
                // Whoever asked may have given up.
                let _ = reply.send(self.detector.hears(broker, incarnation, now_ms));
            }
        }
    }

    async fn act(&self, world: &World, advice: &mut Vec<Advice>, mut news: bool) {
        let mut ask = BTreeSet::new();
        for word in advice.drain(..) {
            match word {
                Advice::Changed { broker, health } => {
                    news = true;
                    tracing::info!(peer = %broker, ?health, "the opinion of a broker changed");
                    world.metrics.detected(broker, verdict(health));
                }
                Advice::Ask { broker, incarnation } => {
                    ask.insert((broker, incarnation));
                }
            }
        }
        for (broker, incarnation) in ask {
            self.ask_others(world, broker, incarnation);
        }
        if news {
            let connected = matches!(*world.session.borrow(), SessionState::Connected(_));
            let env = Env { now_ms: 0, peers: self.detector.peers(), registry_connected: connected };
            world.env.send_replace(Arc::new(env));
            world.shards.tell_all(|| ShardInput::PeersChanged).await;
        }
    }

    /// Asks every other live broker at once; each answer counts by itself.
    fn ask_others(&self, world: &World, broker: BrokerId, incarnation: Incarnation) {
        for (_, channel) in world.peers.channels(broker) {
            let handle = self.handle.clone();
            tokio::spawn(async move {
                let question = SuspectRequest { broker: broker.0, incarnation: incarnation.0 };
                let mut client = PeerClient::new(channel);
                if let Ok(Ok(answer)) = timeout(QUESTION_MAX, client.suspect(question)).await {
                    let hears_it = answer.into_inner().hears_it;
                    handle.observe(Observation::Answer { broker, hears_it });
                }
            });
        }
    }
}

/// Where opinions go, and what they are formed with.
pub struct World {
    pub env: watch::Sender<Arc<Env>>,
    pub shards: Shards,
    pub peers: PeerSender,
    pub session: watch::Receiver<SessionState>,
    pub monotonic: Monotonic,
    pub metrics: Metrics,
}

fn verdict(health: Health) -> Verdict {
    match health {
        Health::Alive(_) => Verdict::Alive,
        Health::Unknown | Health::Silent => Verdict::Silent,
        Health::Dead => Verdict::Dead,
    }
}
