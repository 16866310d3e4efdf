//! Sends numbered records and remembers how each went.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rdkafka::message::Message;
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer, ProducerContext, ThreadedProducer};
use rdkafka::{ClientConfig, ClientContext};

use crate::stage::PATIENCE;

/// A record that was acknowledged.
#[derive(Clone, Copy, Debug)]
pub struct Told {
    pub partition: i32,
    pub offset: i64,
    pub sequence: u64,
    pub at: Instant,
}

#[derive(Default)]
struct Deliveries {
    told: Mutex<Vec<Told>>,
    failed: Mutex<Vec<String>>,
}

#[derive(Clone, Default)]
struct Context(Arc<Deliveries>);

impl ClientContext for Context {}

impl ProducerContext for Context {
    type DeliveryOpaque = Box<u64>;

    fn delivery(&self, result: &DeliveryResult<'_>, sequence: Self::DeliveryOpaque) {
        match result {
            Ok(message) => {
                let (partition, offset) = (message.partition(), message.offset());
                let told = Told { partition, offset, sequence: *sequence, at: Instant::now() };
                self.0.told.lock().unwrap().push(told);
            }
            Err((error, message)) => {
                let what = format!("record {sequence} of partition {}: {error}", message.partition());
                self.0.failed.lock().unwrap().push(what);
            }
        }
    }
}

/// One idempotent producer that writes to every partition in turn.
pub struct Sending {
    deliveries: Arc<Deliveries>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<u64>,
}

impl Sending {
    /// One record for each partition, `every` so often.
    pub fn start(mut config: ClientConfig, topic: &str, partitions: i32, every: Duration) -> Self {
        config.set("enable.idempotence", "true").set("acks", "all").set("linger.ms", "1");
        let context = Context::default();
        let producer: ThreadedProducer<Context> = config.create_with_context(context.clone()).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, topic) = (Arc::clone(&stop), topic.to_owned());
        let thread = std::thread::spawn(move || {
            let (mut sequence, mut due) = (0, Instant::now());
            while !stopped.load(Ordering::Relaxed) {
                for partition in 0..partitions {
                    let value = sequence.to_string();
                    let record = BaseRecord::<(), str, Box<u64>>::with_opaque_to(&topic, Box::new(sequence));
                    producer.send(record.partition(partition).payload(value.as_str())).map_err(|(e, _)| e).unwrap();
                    sequence += 1;
                }
                due += every;
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
            }
            producer.flush(PATIENCE).unwrap();
            sequence
        });
        Self { deliveries: context.0, stop, thread }
    }

    /// What was acknowledged up to now.
    pub fn told(&self) -> Vec<Told> {
        self.deliveries.told.lock().unwrap().clone()
    }

    /// Stops, and says what was acknowledged: everything, or the test fails.
    pub fn finish(self) -> Vec<Told> {
        self.stop.store(true, Ordering::Relaxed);
        let sent = self.thread.join().unwrap();
        let failed = self.deliveries.failed.lock().unwrap().clone();
        assert!(failed.is_empty(), "errors reached the application: {failed:?}");
        let told = std::mem::take(&mut *self.deliveries.told.lock().unwrap());
        assert_eq!(told.len() as u64, sent, "every record is acknowledged");
        told
    }
}
