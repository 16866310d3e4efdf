//! Seeded walks: members that come, go, repeat themselves and fall silent, logs that refuse,
//! coordinators that die at any point.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::bench::{Bench, identity, new_member};
use crate::group::message::*;
use crate::group::offsets::Committed;
use crate::group::record::GroupRecord;
use crate::group::settings::GroupSettings;
use crate::ids::{Offset, TopicId, TopicPartition};

const GROUPS: [&str; 2] = ["g", "h"];
const AT: TopicPartition = TopicPartition { topic: TopicId(1), partition: 0 };

struct Rng(u64);

impl Rng {
    fn next(&mut self, below: u64) -> u64 {
        // SplitMix64 (Steele, Lea and Flood, 2014).
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % below
    }
}

#[derive(Clone, Debug)]
struct Client {
    group: usize,
    id: String,
    instance: Option<String>,
    generation: i32,
    leads: bool,
    members: Vec<String>,
}

/// What was said to whom, to judge it.
#[derive(Default)]
struct Seen {
    generations: BTreeMap<usize, i32>,
    /// Of each generation: its leader.
    leaders: BTreeMap<(usize, i32), String>,
    committed: BTreeMap<usize, u64>,
    judged: BTreeSet<RequestId>,
}

struct Walk {
    bench: Bench,
    rng: Rng,
    clients: Vec<Client>,
    asked: BTreeMap<RequestId, usize>,
    commits: BTreeMap<RequestId, (usize, u64)>,
    seen: Seen,
    fresh: u64,
}

impl Walk {
    fn new(seed: u64) -> Self {
        let delay = if seed.is_multiple_of(3) { 3_000 } else { 0 };
        let settings = GroupSettings { initial_delay_ms: delay, members_max: 5, ..GroupSettings::default() };
        let mut bench = Bench::with(settings);
        bench.held = true;
        let client = |n: usize| Client {
            group: n % GROUPS.len(),
            id: String::new(),
            instance: n.is_multiple_of(4).then(|| format!("static-{n}")),
            generation: 0,
            leads: false,
            members: Vec::new(),
        };
        let clients = (0..10).map(client).collect();
        let (asked, commits, seen) = Default::default();
        Self { bench, rng: Rng(seed), clients, asked, commits, seen, fresh: 0 }
    }

    fn step(&mut self) {
        let who = self.rng.next(self.clients.len() as u64) as usize;
        match self.rng.next(20) {
            0..=5 => self.join(who),
            6..=9 => self.sync(who),
            10 | 11 => self.heartbeat(who),
            12 => self.leave(who),
            13 | 14 => self.commit(who),
            15..=17 if !self.bench.waiting.is_empty() => self.bench.store(),
            18 => self.disturb(),
            _ => {
                let ms = self.rng.next(4_000) as i64;
                self.bench.wait(ms);
            }
        }
        self.judge();
    }

    fn disturb(&mut self) {
        match self.rng.next(6) {
            0 => self.bench.fail_over(),
            1 if !self.bench.waiting.is_empty() => self.bench.refuse(),
            2 => {
                let ms = self.rng.next(70_000) as i64;
                self.bench.wait(ms);
            }
            3 => {
                let topics = BTreeMap::from([(AT.topic, "t".to_owned())]);
                self.bench.step(Input::Sweep { topics, gone: BTreeSet::new() });
            }
            _ => {
                // A process ends and another one starts: a static one keeps its name.
                let who = self.rng.next(self.clients.len() as u64) as usize;
                self.clients[who].id.clear();
            }
        }
    }

    fn who(&self, client: usize) -> Identity {
        let client = &self.clients[client];
        Identity { instance: client.instance.clone(), ..identity(&client.id) }
    }

    fn join(&mut self, who: usize) {
        self.fresh += 1;
        let mut join = new_member(&format!("m{}", self.fresh));
        join.identity = self.who(who);
        join.must_know_id = who.is_multiple_of(2);
        join.may_skip_assignment = who.is_multiple_of(3);
        if self.rng.next(5) == 0 {
            join.protocols.push(Protocol { name: "sticky".to_owned(), metadata: Bytes::new() });
        }
        let request = self.bench.join_as(GROUPS[self.clients[who].group], join);
        self.asked.insert(request, who);
    }

    fn sync(&mut self, who: usize) {
        let client = self.clients[who].clone();
        let part = |id: &String| (id.clone(), Bytes::from(format!("{}:{id}", client.generation)));
        let assignments = if client.leads { client.members.iter().map(part).collect() } else { Vec::new() };
        let (identity, generation) = (self.who(who), client.generation);
        let sync = Sync { identity, generation, protocol_type: None, protocol: None, assignments };
        let request = self.bench.request();
        self.asked.insert(request, who);
        self.bench.step(Input::Sync(request, GROUPS[client.group].to_owned(), sync));
    }

    fn heartbeat(&mut self, who: usize) {
        let (request, identity) = (self.bench.request(), self.who(who));
        let (group, generation) = (GROUPS[self.clients[who].group].to_owned(), self.clients[who].generation);
        self.asked.insert(request, who);
        self.bench.step(Input::Heartbeat { request, group, identity, generation });
    }

    fn leave(&mut self, who: usize) {
        let (request, members) = (self.bench.request(), vec![self.who(who)]);
        self.asked.insert(request, who);
        self.bench.step(Input::Leave { request, group: GROUPS[self.clients[who].group].to_owned(), members });
    }

    fn commit(&mut self, who: usize) {
        let (request, identity) = (self.bench.request(), self.who(who));
        let group = self.clients[who].group;
        let offset = request.0;
        let committed = Committed {
            offset: Offset(offset),
            leader_epoch: None,
            metadata: String::new(),
            committed_ms: self.bench.now_ms,
        };
        let generation = self.clients[who].generation;
        let commit =
            Commit { identity, generation, offsets: vec![(AT, committed)], transaction: None, connection: None };
        self.asked.insert(request, who);
        self.commits.insert(request, (group, offset));
        self.bench.step(Input::Commit(request, GROUPS[group].to_owned(), commit));
    }

    fn judge(&mut self) {
        let new: Vec<_> = self.bench.answers.iter().filter(|(r, _)| !self.seen.judged.contains(r)).collect();
        let new: Vec<_> = new.into_iter().map(|(request, answer)| (*request, answer.clone())).collect();
        for (request, answer) in new {
            self.seen.judged.insert(request);
            let Some(who) = self.asked.get(&request).copied() else { continue };
            match answer {
                Answer::Join(Ok(joined)) => self.judge_join(who, joined),
                Answer::Join(Err((_, id))) => self.clients[who].id = id,
                Answer::Sync(Ok(synced)) => self.judge_sync(who, &synced),
                Answer::Commit(answers) if answers[0].1.is_ok() => {
                    let (group, offset) = self.commits[&request];
                    let last = self.seen.committed.entry(group).or_default();
                    *last = offset.max(*last);
                }
                _ => {}
            }
        }
        self.judge_state();
    }

    fn judge_join(&mut self, who: usize, joined: Joined) {
        let group = self.clients[who].group;
        let generation = self.seen.generations.entry(group).or_default();
        assert!(joined.generation >= *generation, "generation {} after {generation}", joined.generation);
        *generation = joined.generation;
        if joined.leader == joined.member {
            let leader = self.seen.leaders.entry((group, joined.generation)).or_insert_with(|| joined.member.clone());
            if self.clients[who].instance.is_none() {
                assert_eq!(*leader, joined.member, "two leaders of generation {}", joined.generation);
            }
        }
        let client = &mut self.clients[who];
        client.leads = joined.leader == joined.member && !joined.skip_assignment;
        client.members = joined.members.iter().map(|(id, ..)| id.clone()).collect();
        (client.id, client.generation) = (joined.member, joined.generation);
    }

    /// A part is of the generation that the member is in.
    fn judge_sync(&self, who: usize, synced: &Synced) {
        let text = String::from_utf8(synced.assignment.to_vec()).unwrap();
        if let Some((generation, _)) = text.split_once(':') {
            let latest = self.seen.generations[&self.clients[who].group];
            assert_eq!(generation.parse::<i32>().unwrap(), latest, "a part of another generation");
        }
    }

    fn judge_state(&mut self) {
        for (index, name) in GROUPS.iter().enumerate() {
            let Some(group) = self.bench.coordinator.describe(name) else {
                // A group that is forgotten begins anew, and nobody is left of the one before.
                self.seen.generations.remove(&index);
                self.seen.leaders.retain(|(of, _), _| *of != index);
                continue;
            };
            let named: Vec<_> = group.members.iter().filter_map(|member| member.instance.as_ref()).collect();
            let distinct: BTreeSet<_> = named.iter().collect();
            assert_eq!(named.len(), distinct.len(), "two members with one instance id");
            assert!(group.members.len() <= 5);
            if let Some(last) = self.seen.committed.get(&index) {
                let fetched = self.bench.coordinator.fetch(name, Some(&[AT]), false);
                let found = fetched[0].1.as_ref().unwrap().as_ref().map_or(0, |committed| committed.offset.0);
                assert!(found >= *last, "{name} was at {last}, and is at {found}");
            }
        }
    }

    /// Faults end; everybody who waits is answered, and the coordinator comes to rest.
    fn finish(&mut self) {
        self.bench.held = false;
        self.bench.step(Input::Tick);
        self.bench.wait(1_000_000);
        let open: Vec<_> = self.asked.keys().filter(|request| !self.bench.answers.contains_key(request)).collect();
        assert!(open.is_empty(), "never answered: {open:?}");
        for name in GROUPS {
            if let Some(group) = self.bench.coordinator.describe(name) {
                assert_eq!((group.state, group.members.len()), ("Empty", 0), "silent members stay");
            }
        }
        assert_eq!(self.bench.coordinator.next_deadline_ms(), None);
        let kept: BTreeSet<_> = self.bench.log.iter().map(|(record, _)| record.key()).collect();
        assert!(kept.len() <= 2 * GROUPS.len(), "keys are few, so that compaction helps");
        let newest = self.bench.log.iter().rev().find(|(record, _)| matches!(record, GroupRecord::Group { .. }));
        let value = newest.and_then(|(record, _)| record.value());
        assert!(value.is_none_or(|value| value.len() < 1_000), "an empty group has a small record");
    }
}

#[test]
fn walks_keep_every_promise() {
    let first = std::env::var("BATON_SEED").ok().and_then(|seed| seed.parse().ok());
    let seeds = first.map_or(0..3_000, |seed| seed..seed + 1);
    for seed in seeds {
        let outcome = std::panic::catch_unwind(|| {
            let mut walk = Walk::new(seed);
            for _ in 0..150 {
                walk.step();
            }
            walk.finish();
        });
        assert!(outcome.is_ok(), "BATON_SEED={seed} cargo test -p baton-core walks_keep_every_promise");
    }
}
