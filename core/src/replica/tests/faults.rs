//! What happens in a walk: ordinary events, and faults.

use crate::ids::{BrokerId, DiskId, Generation, Offset};
use crate::partition::Assignment;
use crate::replica::tests::checks::Checked;
use crate::replica::tests::cluster::{Cluster, LinkId};
use crate::replica::tests::node::Image;
use crate::replica::{Acks, Health, Input, Mutation, RequestId, RoleView};

impl Cluster {
    /// One event, most of them ordinary.
    pub fn event(&mut self, faults_percent: usize) -> Checked {
        if self.rng.percent(faults_percent) {
            return self.fault();
        }
        let Some(broker) = self.any_running() else {
            return self.start_any();
        };
        match self.rng.below(100) {
            0..36 => self.deliver_any(),
            36..56 => self.sync(broker),
            56..70 => self.produce_any(),
            70..74 => self.tick(broker),
            74..75 => self.retain(),
            75..83 => self.registry_event(),
            83..87 => self.notify(broker),
            87..90 => self.read_registry(broker),
            90..93 => self.finish_read(broker),
            93..96 => self.look_around(broker),
            _ => self.decide(broker),
        }
    }

    pub fn any_running(&mut self) -> Option<BrokerId> {
        let running = self.running();
        self.rng.pick(&running)
    }

    fn start_any(&mut self) -> Checked {
        let brokers = self.brokers();
        match self.rng.pick(&brokers) {
            Some(broker) => self.start(broker),
            None => Ok(()),
        }
    }

    fn deliver_any(&mut self) -> Checked {
        let busy = self.links.iter().filter(|(_, l)| !l.broken && !l.queue.is_empty());
        let busy: Vec<LinkId> = busy.map(|(id, _)| *id).collect();
        match self.rng.pick(&busy) {
            Some(id) => self.deliver(id),
            None => Ok(()),
        }
    }

    fn produce_any(&mut self) -> Checked {
        let leads = |b: &BrokerId| matches!(self.process(*b).map(|p| p.replica.role()), Some(RoleView::Leader { .. }));
        let leaders: Vec<BrokerId> = self.running().into_iter().filter(leads).collect();
        let Some(broker) = self.rng.pick(&leaders) else {
            return Ok(());
        };
        if self.rng.percent(10) {
            let id = (crate::ids::ProducerId(10_000 + self.fresh() as i64), 0);
            let request = RequestId(self.fresh());
            return self.produce_batch(broker, request, id, 1, Acks::Leader);
        }
        let client = self.rng.below(self.clients.len());
        let impatient = self.rng.percent(15);
        if self.clients[client].waits_for.is_some() && !impatient {
            return Ok(());
        }
        self.produce(client, broker)
    }

    fn tick(&mut self, broker: BrokerId) -> Checked {
        let steps = [1, 20, 100, 100, 300, 1_000];
        self.now_ms += self.rng.pick(&steps).unwrap_or(1);
        self.input(broker, Input::Tick)
    }

    fn registry_event(&mut self) -> Checked {
        if self.registry.pending.is_empty() || self.registry.down {
            return Ok(());
        }
        let index = self.rng.below(self.registry.pending.len());
        let write = &self.registry.pending[index];
        match (write.outcome, self.rng.below(100)) {
            (_, 0..6) => self.answer(index, true),
            (None, _) => self.happen(index),
            (Some(_), _) => self.answer(index, false),
        }
    }

    /// A watch fires: some version that is not older than the last one seen.
    fn notify(&mut self, broker: BrokerId) -> Checked {
        let latest = self.registry.history.len() - 1;
        let Some(process) = self.process(broker) else {
            return Ok(());
        };
        if process.session.is_none() || self.registry.down {
            return Ok(());
        }
        let seen = process.seen;
        let version = seen + self.rng.below(latest - seen + 1);
        self.show(broker, version)
    }

    fn look_around(&mut self, broker: BrokerId) -> Checked {
        let brokers = self.brokers();
        match self.rng.pick(&brokers).filter(|b| *b != broker) {
            Some(about) => self.judge(broker, about, self.truth(broker, about)),
            None => Ok(()),
        }
    }

    fn fault(&mut self) -> Checked {
        let brokers = self.brokers();
        let Some(broker) = self.rng.pick(&brokers) else {
            return Ok(());
        };
        match self.rng.below(100) {
            0..12 => self.crash(broker),
            12..34 => self.start(broker),
            34..42 => self.fault_of_links(broker),
            42..52 => self.reopen_some(),
            52..58 => self.session_fault(broker),
            58..64 => self.suspect(broker),
            64..69 => self.lose_disk(broker),
            69..73 => self.damage(broker),
            73..77 => self.change_min(),
            77..82 => self.resign(broker),
            82..87 => self.reassign(),
            87..89 => self.choose_unclean(broker),
            89..91 => self.refuse_append(broker),
            91..94 => self.retain(),
            94..96 => self.drain(broker),
            96..97 => self.fail_storage(broker),
            97..98 => {
                self.registry.down = !self.registry.down;
                Ok(())
            }
            _ => {
                self.now_ms += 4_000;
                self.input(broker, Input::Tick)
            }
        }
    }

    fn fault_of_links(&mut self, broker: BrokerId) -> Checked {
        let brokers = self.brokers();
        let Some(other) = self.rng.pick(&brokers).filter(|b| *b != broker) else {
            return Ok(());
        };
        let bulk = self.rng.percent(50);
        self.break_link((broker, other, bulk));
        if self.rng.percent(50) {
            self.break_link((broker, other, !bulk));
            self.break_link((other, broker, bulk));
        }
        Ok(())
    }

    fn reopen_some(&mut self) -> Checked {
        let broken: Vec<LinkId> = self.links.iter().filter(|(_, l)| l.broken).map(|(id, _)| *id).collect();
        match self.rng.pick(&broken) {
            Some(id) => self.reopen_link(id),
            None => Ok(()),
        }
    }

    fn session_fault(&mut self, broker: BrokerId) -> Checked {
        let Some(process) = self.process_mut(broker) else {
            return self.expire_dead(broker);
        };
        match process.session.take() {
            Some(session) => self.registry.expire(session),
            None => self.open_session(broker),
        }
        Ok(())
    }

    /// The session of a process that died ends at last.
    fn expire_dead(&mut self, broker: BrokerId) -> Checked {
        if let Some(registration) = self.registry.brokers.get(&broker) {
            self.registry.expire(registration.session);
        }
        Ok(())
    }

    pub fn open_session(&mut self, broker: BrokerId) {
        let Some(disk) = self.nodes.get(&broker).map(|n| n.disk) else {
            return;
        };
        let session = self.registry.open_session(broker, disk);
        if let Some(process) = self.process_mut(broker) {
            process.session = Some(session);
        }
    }

    /// The detector errs.
    fn suspect(&mut self, broker: BrokerId) -> Checked {
        let brokers = self.brokers();
        let wrong = [Health::Silent, Health::Dead, Health::Unknown];
        let health = self.rng.pick(&wrong).unwrap_or(Health::Unknown);
        match self.rng.pick(&brokers).filter(|b| *b != broker) {
            Some(about) => self.judge(broker, about, health),
            None => Ok(()),
        }
    }

    /// Whether somebody else's copy is in sync and intact.
    fn may_lose(&self, broker: BrokerId) -> bool {
        let down = self.nodes.get(&broker).is_some_and(|n| n.process.is_none());
        down && self.others_are_intact(broker)
    }

    fn others_are_intact(&self, broker: BrokerId) -> bool {
        let state = self.registry.latest().state;
        let intact = |m: &&crate::ids::Member| {
            m.broker != broker && self.nodes.get(&m.broker).is_some_and(|n| n.member() == **m)
        };
        // A write of its own that is still under way may yet leave it as the only member.
        let writes = self.registry.pending.iter().any(|w| w.broker == broker && w.outcome.is_none());
        !writes && state.isr.iter().any(|m| intact(&m))
    }

    fn lose_disk(&mut self, broker: BrokerId) -> Checked {
        if !self.may_lose(broker) {
            return Ok(());
        }
        self.say(|| format!("{broker} loses its disk"));
        self.note("disk replaced");
        let disk = DiskId(u128::from(self.fresh()));
        let forget = self.forget_disks;
        if let Some(node) = self.nodes.get_mut(&broker) {
            node.stable = Image::default();
            if !forget {
                node.disk = disk;
            }
        }
        self.ledger.dirty = true;
        self.check(broker)
    }

    /// The storage finds that a copy is not what it was.
    fn damage(&mut self, broker: BrokerId) -> Checked {
        if self.process(broker).is_some() {
            return self.find_damage(broker);
        }
        if !self.may_lose(broker) {
            return Ok(());
        }
        self.say(|| format!("{broker} is damaged"));
        self.note("copy damaged");
        let keep = self.rng.below(4);
        if let Some(node) = self.nodes.get_mut(&broker) {
            node.stable.batches.truncate(keep);
            node.stable.high_watermark = node.stable.high_watermark.min(node.stable.end());
            node.stable.generation = Generation(node.stable.generation.0 + 1);
            node.damaged = true;
        }
        Ok(())
    }

    /// The same, found by a process that reads its copy.
    fn find_damage(&mut self, broker: BrokerId) -> Checked {
        let idle = self.process(broker).is_some_and(|p| p.ops.is_empty() && !p.replica.is_damaged());
        if !idle || !self.others_are_intact(broker) {
            return Ok(());
        }
        self.say(|| format!("{broker} finds damage"));
        self.note("damage found while running");
        let Some(node) = self.nodes.get_mut(&broker) else { return Ok(()) };
        // The log remembers it: after a crash it is found again on opening.
        node.damaged = true;
        let generation = node.stable.generation.next();
        node.stable.generation = generation;
        if let Some(process) = &mut node.process {
            process.image.generation = generation;
        }
        self.input(broker, Input::Damaged("a test".into()))
    }

    fn change_min(&mut self) -> Checked {
        self.min_insync = 1 + self.rng.below(self.nodes.len() - 1);
        let min = self.min_insync;
        self.say(|| format!("min is {min}"));
        self.note("min changed");
        for broker in self.running() {
            if self.rng.percent(70) {
                self.learn_min(broker)?;
            }
        }
        Ok(())
    }

    pub fn learn_min(&mut self, broker: BrokerId) -> Checked {
        let min = self.min_insync;
        if let Some(process) = self.process_mut(broker) {
            process.min_insync = min;
        }
        self.input(broker, Input::MinInsync(min))
    }

    fn resign(&mut self, toward: BrokerId) -> Checked {
        match self.leader() {
            Some(leader) => self.input(leader, Input::Resign { toward }),
            None => Ok(()),
        }
    }

    fn reassign(&mut self) -> Checked {
        let mut state = self.registry.latest().state;
        let assignment = &state.assignment;
        let settled = assignment.adding.is_empty() && assignment.removing.is_empty();
        let spare = self.brokers().into_iter().find(|b| !assignment.replicas.contains(b));
        let (Some(spare), true) = (spare, settled) else {
            return Ok(());
        };
        let removing = self.rng.pick(&assignment.replicas).into_iter().collect();
        let mut replicas = assignment.replicas.clone();
        replicas.push(spare);
        state.assignment = Assignment { replicas, adding: vec![spare], removing };
        self.say(|| format!("reassign {:?}", state.assignment));
        self.note("reassignment begun");
        self.registry.history.push(state);
        Ok(())
    }

    /// An operator gives up what others may have; every process is told at once.
    fn choose_unclean(&mut self, broker: BrokerId) -> Checked {
        let mut state = self.registry.latest().state;
        let member = self.nodes[&broker].member();
        let busy = self.process(broker).is_some_and(|p| !p.ops.is_empty());
        if !state.assignment.replicas.contains(&broker) || self.nodes[&broker].damaged || self.unclean || busy {
            return Ok(());
        }
        if self.process(broker).is_some_and(|p| p.replica.member() != member || p.replica.is_damaged()) {
            return Ok(());
        }
        state.epoch = state.epoch.next();
        state.isr = vec![member];
        state.leader = None;
        state.hint = None;
        state.last_unclean_epoch = state.epoch;
        self.say(|| format!("unclean: {member:?}"));
        self.note("unclean choice");
        self.unclean = true;
        let stable = self.nodes[&broker].stable.clone();
        self.ledger.abandon_what_is_not_in(&stable);
        self.registry.history.push(state);
        let running = self.running();
        for other in running {
            self.show(other, self.registry.history.len() - 1)?;
        }
        Ok(())
    }

    /// Retention, or a client, moves the start of the log to some offset below the high watermark.
    fn retain(&mut self) -> Checked {
        let Some(broker) = self.leader() else {
            return Ok(());
        };
        let Some(process) = self.process(broker) else {
            return Ok(());
        };
        let (low, high) = (process.replica.log_start().0, process.replica.high_watermark().0);
        if high <= low {
            return Ok(());
        }
        let to = Offset(low + 1 + self.rng.below((high - low) as usize) as u64);
        self.note("log start moved");
        self.input(broker, Input::Trim { to })
    }

    fn drain(&mut self, broker: BrokerId) -> Checked {
        let Some(process) = self.process_mut(broker) else {
            return Ok(());
        };
        process.draining = !process.draining;
        let draining = process.draining;
        if let Some(registration) = self.registry.brokers.get_mut(&broker) {
            registration.draining = draining;
        }
        Ok(())
    }

    fn fail_storage(&mut self, broker: BrokerId) -> Checked {
        self.input(broker, Input::StorageFailed("EIO".into()))?;
        self.crash(broker)
    }

    /// Faults end: everybody is up, connected and heard.
    pub fn heal(&mut self) -> Checked {
        self.say(|| "heal".into());
        self.registry.down = false;
        while let Some(index) = self.registry.pending.iter().position(|w| w.forgotten && w.outcome.is_none()) {
            self.happen(index)?;
        }
        for broker in self.brokers() {
            let halted = self.process(broker).is_some_and(|p| p.replica.role() == RoleView::Halted);
            if halted {
                self.crash(broker)?;
            }
            self.start(broker)?;
            if self.process(broker).is_some_and(|p| p.session.is_none()) {
                self.open_session(broker);
            }
            if let Some(process) = self.process_mut(broker) {
                process.draining = false;
            }
            if let Some(registration) = self.registry.brokers.get_mut(&broker) {
                registration.draining = false;
            }
            self.learn_min(broker)?;
        }
        self.reopen_all()?;
        for broker in self.brokers() {
            for about in self.brokers().into_iter().filter(|b| *b != broker) {
                self.judge(broker, about, self.truth(broker, about))?;
            }
        }
        Ok(())
    }

    fn reopen_all(&mut self) -> Checked {
        let broken: Vec<LinkId> = self.links.iter().filter(|(_, l)| l.broken).map(|(id, _)| *id).collect();
        for id in broken {
            self.reopen_link(id)?;
        }
        Ok(())
    }

    /// Invariant 11: after the faults a bounded time is enough for a full set of in-sync
    /// replicas and an acknowledged produce of every client.
    pub fn settle(&mut self) -> Checked {
        let before: Vec<usize> = self.clients.iter().map(|c| c.acknowledged).collect();
        for round in 0..300 {
            self.round(round)?;
            let progress = self.clients.iter().zip(&before).all(|(c, b)| c.acknowledged > *b);
            let state = self.registry.latest().state;
            let mut wanted = state.assignment.replicas.clone();
            let mut found: Vec<BrokerId> = state.isr.iter().map(|m| m.broker).collect();
            wanted.sort_unstable();
            found.sort_unstable();
            let settled = state.assignment.adding.is_empty() && state.assignment.removing.is_empty();
            if progress && settled && wanted == found {
                return Ok(());
            }
        }
        let state = self.registry.latest();
        let roles: Vec<_> = self.nodes.values().map(|n| n.process.as_ref().map(|p| p.replica.role())).collect();
        Err(format!("11: stands still with {state:?}, {roles:?}"))
    }

    fn round(&mut self, round: usize) -> Checked {
        self.now_ms += 100;
        let client = round % self.clients.len();
        if let (Some(leader), None) = (self.leader(), self.clients[client].waits_for) {
            self.produce(client, leader)?;
        } else if round % 40 > 37 {
            self.clients[client].waits_for = None;
        }
        for broker in self.running() {
            self.input(broker, Input::Tick)?;
            self.show(broker, self.registry.history.len() - 1)?;
            self.refresh_candidates(broker);
            self.decide(broker)?;
        }
        self.drain_everything()
    }

    pub fn drain_everything(&mut self) -> Checked {
        for _ in 0..40 {
            for id in self.links.keys().copied().collect::<Vec<_>>() {
                while self.links.get(&id).is_some_and(|l| !l.queue.is_empty() && !l.broken) {
                    self.deliver(id)?;
                }
            }
            for broker in self.running() {
                while self.process(broker).is_some_and(|p| !p.ops.is_empty()) {
                    self.sync(broker)?;
                }
                while self.process(broker).is_some_and(|p| !p.log_reads.is_empty()) {
                    self.finish_read(broker)?;
                }
                let reads = |p: &crate::replica::tests::node::Process| !p.reads.is_empty() && p.session.is_some();
                while self.process(broker).is_some_and(reads) {
                    self.read_registry(broker)?;
                }
            }
            let mut writes = 0;
            while let Some(index) = self.registry.pending.len().checked_sub(1) {
                writes += 1;
                if writes > 100 {
                    return Err(format!("11: writes without end {:?}", self.registry.latest()));
                }
                if self.registry.pending[0].outcome.is_none() {
                    self.happen(0)?;
                }
                if self.registry.pending.len() > index {
                    self.answer(0, false)?;
                }
            }
            if self.links.values().all(|l| l.broken || l.queue.is_empty()) && self.registry.pending.is_empty() {
                break;
            }
        }
        Ok(())
    }

    /// A restart of the walk's cluster with another rule switched off.
    pub fn without(mut self, rule: Option<Mutation>) -> Self {
        if let Some(rule) = rule {
            self.mutations = crate::replica::Mutations::only(rule);
        }
        self
    }
}
