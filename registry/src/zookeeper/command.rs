//! A request on its way to the library, and how it is carried out.

use bytes::Bytes;
use tokio::sync::oneshot;
use tokio::time::Instant;
use zookeeper_client as zk;

use super::errors;
use crate::api::{CreateMode, Created, MultiError, Op, OpResult, RegistryError, SessionId, Stat};
use crate::events::EventSender;

type Reply<T, E = RegistryError> = oneshot::Sender<Result<T, E>>;

const PERSISTENT: zk::CreateOptions<'static> = zk::CreateMode::Persistent.with_acls(zk::Acls::anyone_all());
const EPHEMERAL: zk::CreateOptions<'static> = zk::CreateMode::Ephemeral.with_acls(zk::Acls::anyone_all());
const EPHEMERAL_SEQUENTIAL: zk::CreateOptions<'static> =
    zk::CreateMode::EphemeralSequential.with_acls(zk::Acls::anyone_all());

pub struct Command {
    pub request: Request,
    /// After this the caller has been told that the outcome is unknown.
    pub gives_up: Instant,
}

pub enum Request {
    Create { path: String, data: Bytes, mode: CreateMode, reply: Reply<Created> },
    Get { path: String, reply: Reply<(Bytes, Stat)> },
    Exists { path: String, reply: Reply<Option<Stat>> },
    Set { path: String, data: Bytes, version: Option<i32>, reply: Reply<Stat> },
    Delete { path: String, version: Option<i32>, reply: Reply<()> },
    Children { path: String, reply: Reply<Vec<String>> },
    Multi { ops: Vec<Op>, reply: Reply<Vec<OpResult>, MultiError> },
    Sync { path: String, reply: Reply<()> },
    Watch { path: String, recursive: bool, events: EventSender, reply: Reply<()> },
}

/// Carries out one request. The library sends when its function is called, so the order of the
/// first polls of these futures is the order on the wire. A reply that nobody awaits is dropped.
pub async fn execute(client: zk::Client, request: Request) {
    match request {
        Request::Create { path, data, mode, reply } => {
            let _ = reply.send(create(&client, path, &data, mode).await);
        }
        Request::Get { path, reply } => {
            let got = client.get_data(&path).await;
            let got = got.map(|(data, stat)| (Bytes::from(data), stat_of(&stat)));
            let _ = reply.send(got.map_err(|e| errors::of_request(&path, &e)));
        }
        Request::Exists { path, reply } => {
            let found = client.check_stat(&path).await;
            let found = found.map(|stat| stat.as_ref().map(stat_of));
            let _ = reply.send(found.map_err(|e| errors::of_request(&path, &e)));
        }
        Request::Set { path, data, version, reply } => {
            let set = client.set_data(&path, &data, version).await;
            let set = set.map(|stat| stat_of(&stat));
            let _ = reply.send(set.map_err(|e| errors::of_request(&path, &e)));
        }
        Request::Delete { path, version, reply } => {
            let deleted = client.delete(&path, version).await;
            let _ = reply.send(deleted.map_err(|e| errors::of_request(&path, &e)));
        }
        Request::Children { path, reply } => {
            let names = client.list_children(&path).await.map(|mut names| {
                names.sort_unstable();
                names
            });
            let _ = reply.send(names.map_err(|e| errors::of_request(&path, &e)));
        }
        Request::Multi { ops, reply } => {
            let _ = reply.send(multi(&client, &ops).await);
        }
        Request::Sync { path, reply } => {
            let synced = client.sync(&path).await;
            let _ = reply.send(synced.map_err(|e| errors::of_request(&path, &e)));
        }
        // The driver keeps watches across sessions and never hands them on.
        Request::Watch { reply, .. } => {
            let _ = reply.send(Err(RegistryError::Closed));
        }
    }
}

async fn create(client: &zk::Client, path: String, data: &[u8], mode: CreateMode) -> Result<Created, RegistryError> {
    let created = client.create(&path, data, options(mode)).await;
    let (stat, sequence) = created.map_err(|e| errors::of_request(&path, &e))?;
    let stat = stat_of(&stat);
    Ok(match mode {
        CreateMode::EphemeralSequential => Created { path: format!("{path}{sequence}"), stat },
        CreateMode::Persistent | CreateMode::Ephemeral => Created { path, stat },
    })
}

async fn multi(client: &zk::Client, ops: &[Op]) -> Result<Vec<OpResult>, MultiError> {
    let mut writer = client.new_multi_writer();
    for (index, op) in ops.iter().enumerate() {
        add(&mut writer, op).map_err(|error| MultiError {
            index: Some(index),
            error: errors::of_request(errors::path_of(op), &error),
        })?;
    }
    let results = writer.commit().await.map_err(|error| errors::of_multi(ops, &error))?;
    results.into_iter().map(result_of).collect()
}

fn add(writer: &mut zk::MultiWriter<'_>, op: &Op) -> Result<(), zk::Error> {
    match op {
        // −1 asks only that the node exists.
        Op::Check { path, version } => writer.add_check_version(path, version.unwrap_or(-1)),
        Op::Create { path, data, mode } => writer.add_create(path, data, options(*mode)),
        Op::Set { path, data, version } => writer.add_set_data(path, data, *version),
        Op::Delete { path, version } => writer.add_delete(path, *version),
    }
}

fn result_of(result: zk::MultiWriteResult) -> Result<OpResult, MultiError> {
    Ok(match result {
        zk::MultiWriteResult::Check => OpResult::Checked,
        zk::MultiWriteResult::Delete => OpResult::Deleted,
        zk::MultiWriteResult::Create { path, .. } => OpResult::Created { path },
        zk::MultiWriteResult::SetData { stat } => OpResult::Set { version: stat.version },
        other => return Err(RegistryError::Unknown(format!("an answer {other:?}")).into()),
    })
}

fn options(mode: CreateMode) -> &'static zk::CreateOptions<'static> {
    match mode {
        CreateMode::Persistent => &PERSISTENT,
        CreateMode::Ephemeral => &EPHEMERAL,
        CreateMode::EphemeralSequential => &EPHEMERAL_SEQUENTIAL,
    }
}

fn stat_of(stat: &zk::Stat) -> Stat {
    Stat {
        version: stat.version,
        czxid: stat.czxid,
        mzxid: stat.mzxid,
        ephemeral_owner: SessionId(stat.ephemeral_owner),
        num_children: stat.num_children,
    }
}
