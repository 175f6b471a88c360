//! Replica sets: how instances are born together, and which of them is writable.

use std::collections::HashSet;
use std::ops::{Deref, Index};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::declaration::Declaration;
use super::instance::Instance;
use serde_json::Value;

use crate::error::{Error, Result, chain};
use crate::oracle::History;
use crate::process::{Recipe, Rights, is_root};
use crate::proxy::Proxy;
use crate::wait::eventually;
use crate::world::Shared;
use crate::writers::WritersBuilder;

const INIT_LUA: &str = include_str!("../../lua/init.lua");
const APP_LUA: &str = include_str!("../../lua/app.lua");

const MESH_TIMEOUT: Duration = Duration::from_secs(20);

/// What a replica set should be like.
#[derive(Debug, Clone)]
pub struct ReplicaSetOptions {
    instances: usize,
    memtx_memory: u64,
    linked: bool,
    init_lua: Option<PathBuf>,
    env: Vec<(String, String)>,
    extra_lua: String,
    unborn: bool,
    declared: Option<Value>,
    anonymous: bool,
    user: Option<u32>,
}

/// Instances that replicate from each other, indexed from 0; the set is born on number 0.
#[derive(Debug)]
pub struct ReplicaSet {
    uuid: String,
    instances: Vec<Instance>,
    declaration: Option<Declaration>,
    anonymous: Option<usize>,
    pub(crate) handle: tokio::runtime::Handle,
}

impl ReplicaSetOptions {
    /// So many instances with the defaults.
    #[must_use]
    pub fn of(instances: usize) -> Self {
        Self {
            instances,
            memtx_memory: 64 << 20,
            linked: false,
            init_lua: None,
            env: Vec::new(),
            extra_lua: String::new(),
            unborn: false,
            declared: None,
            anonymous: false,
            user: None,
        }
    }

    /// The instances run as this user, where the tests are root.
    #[must_use]
    pub fn user(mut self, user: u32) -> Self {
        self.user = Some(user);
        self
    }

    /// The last instance is an anonymous replica of the others.
    #[must_use]
    pub fn anonymous_last(mut self) -> Self {
        self.anonymous = true;
        self
    }

    /// Tarantool 3's declarative configuration in one file for all instances, `replication.failover: supervised`, with
    /// these values over the harness's own: see [`Declaration`].
    #[must_use]
    pub fn declared(mut self, over: Value) -> Self {
        self.declared = Some(over);
        self
    }

    /// Nothing is started: the story does that itself, with [`Instance::launch`].
    #[must_use]
    pub fn unborn(mut self) -> Self {
        self.unborn = true;
        self
    }

    /// `memtx_memory` in bytes; 64 MiB unless told otherwise.
    #[must_use]
    pub fn memtx_memory(mut self, bytes: u64) -> Self {
        self.memtx_memory = bytes;
        self
    }

    /// Leads each member's replication from each other one through a [`Proxy`]:
    /// [`ReplicaSet::link`].
    #[must_use]
    pub fn linked(mut self) -> Self {
        self.linked = true;
        self
    }

    /// Runs Lua at the end of every start.
    #[must_use]
    pub fn extra_lua(mut self, lua: &str) -> Self {
        self.extra_lua.push_str(lua);
        self.extra_lua.push('\n');
        self
    }

    /// An `init.lua` that makes the instance writable at every start, as it should not.
    #[must_use]
    pub fn writable_init(self) -> Self {
        self.extra_lua("box.cfg{read_only = false}")
    }

    /// Another `init.lua`, which must set up what the harness's own sets up.
    #[must_use]
    pub fn init_lua(mut self, path: impl Into<PathBuf>) -> Self {
        self.init_lua = Some(path.into());
        self
    }

    /// A variable for every instance.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }
}

impl ReplicaSet {
    pub(crate) async fn start(shared: &Shared, options: ReplicaSetOptions) -> Result<Self> {
        let letter = shared.next_set();
        let init = match &options.init_lua {
            Some(path) => path.clone(),
            None => shared.write("init.lua", INIT_LUA)?,
        };
        let app = shared.write("app.lua", APP_LUA)?;
        let mut declaration = None;
        let mut instances = Vec::new();
        let ports: Vec<u16> = (0..options.instances)
            .map(|_| shared.port())
            .collect::<Result<_>>()?;
        let uuid = make_uuid(ports.first().copied().unwrap_or_default(), 0);
        let members: Vec<(String, String)> = ports
            .iter()
            .map(|port| (make_uuid(*port, 1), format!("127.0.0.1:{port}")))
            .collect();
        if let Some(over) = &options.declared {
            declaration = Some(Declaration::new(shared, letter, &uuid, &members, over)?);
        }
        let anonymous = options.anonymous.then(|| members.len() - 1);
        let named = &members[..anonymous.unwrap_or(members.len())];
        for (index, (own_uuid, addr)) in members.iter().enumerate() {
            let name = format!("{letter}{index}");
            let links = if options.linked {
                links(shared, index, &members).await?
            } else {
                Vec::new()
            };
            let mut env = instance_env(&name, own_uuid, &uuid, addr, &peers(named, &links));
            env.push(("BOOTSTRAP".to_owned(), (index == 0).to_string()));
            let work_dir = shared.subdir(&name)?;
            let user = options.user.filter(|_| is_root());
            std::os::unix::fs::chown(&work_dir, user, user)
                .map_err(Error::io("give a directory to its user".to_owned()))?;
            env.push(("WORK_DIR".to_owned(), work_dir.display().to_string()));
            let is_anonymous = (anonymous == Some(index)).to_string();
            env.push(("ANONYMOUS".to_owned(), is_anonymous));
            env.push(("MEMTX_MEMORY".to_owned(), options.memtx_memory.to_string()));
            env.push(("APP".to_owned(), app.display().to_string()));
            env.push(("EXTRA_LUA".to_owned(), options.extra_lua.clone()));
            env.extend(options.env.iter().cloned());
            let recipe = Recipe {
                program: super::program::tarantool(),
                args: match &declaration {
                    Some(declaration) => declaration.args(&name),
                    None => vec![init.clone().into()],
                },
                env,
                dir: shared.dir.clone(),
            };
            let process = shared.process(&name, recipe);
            if let Some(user) = user {
                process.set_rights(Rights::User(user));
            }
            let (uuid, replicaset_uuid) = (own_uuid.clone(), uuid.clone());
            instances.push(Instance {
                index,
                name,
                uuid,
                replicaset_uuid,
                addr: addr.clone(),
                process,
                links,
            });
        }
        let set = Self {
            uuid,
            instances,
            declaration,
            anonymous,
            handle: shared.handle.clone(),
        };
        if !options.unborn {
            set.start_all().await?;
            set.leave_to_agents().await?;
        }
        Ok(set)
    }

    /// Starts the members that are not running and waits until all replicate from all.
    ///
    /// # Errors
    /// When one does not come up.
    pub async fn start_all(&self) -> Result<()> {
        for instance in self
            .iter()
            .filter(|instance| !instance.process.is_running())
        {
            instance.process.start()?;
        }
        for instance in self.iter() {
            instance.wait_ready().await?;
        }
        self.wait_for_mesh(MESH_TIMEOUT).await
    }

    /// By a declarative configuration the instance with the smallest name is born writable.
    async fn leave_to_agents(&self) -> Result<()> {
        if self.declaration.is_none() {
            return Ok(());
        }
        for instance in self.iter() {
            let what = format!("{} to have the spaces", instance.name);
            eventually(MESH_TIMEOUT, &what, async || {
                match instance.eval("return box.space.ballast ~= nil", &[]).await {
                    Ok(values) if values == [true] => Ok(()),
                    other => Err(format!("{other:?}")),
                }
            })
            .await?;
        }
        for index in self.writable().await {
            self[index].set_writable(false).await?;
        }
        Ok(())
    }

    /// The replica set's UUID.
    #[must_use]
    pub fn uuid(&self) -> &str {
        &self.uuid
    }

    /// The configuration's file, with [`ReplicaSetOptions::declared`].
    ///
    /// # Panics
    /// When the instances are configured otherwise.
    #[must_use]
    pub fn declaration(&self) -> &Declaration {
        let declaration = self.declaration.as_ref();
        declaration.unwrap_or_else(|| panic!("this replica set has no declarative configuration"))
    }

    /// The link over which member `follower` replicates from member `source`; see
    /// [`ReplicaSetOptions::linked`].
    #[must_use]
    pub fn link(&self, follower: usize, source: usize) -> Option<&Proxy> {
        self.instances.get(follower)?.link_to(source)
    }

    /// Waits until every running member follows every other running member, anonymous ones aside.
    ///
    /// # Errors
    /// [`Error::Timeout`].
    pub async fn wait_for_mesh(&self, deadline: Duration) -> Result<()> {
        let sources: Vec<usize> = self
            .iter()
            .filter(|instance| instance.process.is_running())
            .map(|instance| instance.index)
            .filter(|index| self.anonymous != Some(*index))
            .collect();
        eventually(deadline, "every member to follow every other", async || {
            for instance in self.iter().filter(|instance| instance.process.is_running()) {
                let seen = instance
                    .eval(FOLLOWED, &[])
                    .await
                    .map_err(|error| chain(&error))?;
                let followed = seen.first().and_then(Value::as_u64).unwrap_or(0);
                let others = sources.iter().filter(|index| **index != instance.index);
                if (followed as usize) < others.count() {
                    return Err(format!("{} follows {seen:?}", instance.name));
                }
            }
            Ok(())
        })
        .await
    }

    /// The members that are writable right now. Members that do not answer are not counted.
    pub async fn writable(&self) -> Vec<usize> {
        let mut writable = Vec::new();
        for (index, instance) in self.iter().enumerate() {
            // A frozen member must not hide the others' state for long.
            let asked =
                tokio::time::timeout(Duration::from_millis(200), instance.is_writable()).await;
            if asked.unwrap_or(false) {
                writable.push(index);
            }
        }
        writable
    }

    /// Waits until exactly one member is writable.
    ///
    /// # Errors
    /// [`Error::Timeout`], with the members that were writable at the last look.
    pub async fn wait_for_master(&self, deadline: Duration) -> Result<usize> {
        self.wait_for_only(deadline, "one writable member", |_| true)
            .await
    }

    /// Waits until exactly one member is writable, and not `old`.
    ///
    /// # Errors
    /// [`Error::Timeout`], with the members that were writable at the last look.
    pub async fn wait_for_new_master(&self, old: usize, deadline: Duration) -> Result<usize> {
        let what = format!("a writable member other than {}", self[old].name);
        self.wait_for_only(deadline, &what, |index| index != old)
            .await
    }

    /// Waits until no member is writable.
    ///
    /// # Errors
    /// [`Error::Timeout`], with the members that were writable at the last look.
    pub async fn wait_for_no_master(&self, deadline: Duration) -> Result<()> {
        eventually(deadline, "no writable member", async || {
            match self.writable().await.as_slice() {
                [] => Ok(()),
                some => Err(format!("writable: {some:?}")),
            }
        })
        .await
    }

    /// Asserts that the same member stays the only writable one for so long.
    ///
    /// # Errors
    /// [`Error::Malformed`], with the members that were writable instead.
    pub async fn stays_master(&self, index: usize, duration: Duration) -> Result<()> {
        let started = Instant::now();
        let mut seen = 0_usize;
        while started.elapsed() < duration {
            for (member, instance) in self.iter().enumerate() {
                // A member that is too slow to answer on a busy machine has said nothing against it.
                let Some(writable) = instance.says_writable().await else {
                    continue;
                };
                if writable != (member == index) {
                    let when = started.elapsed();
                    let what = if writable { "writable" } else { "read-only" };
                    return Err(Error::malformed(format!(
                        "member {member} says after {when:?} that it is {what}, though {index} was to stay master"
                    )));
                }
                seen += usize::from(writable);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        if seen == 0 {
            return Err(Error::malformed(format!(
                "member {index} never answered in {duration:?}"
            )));
        }
        Ok(())
    }

    async fn wait_for_only(
        &self,
        deadline: Duration,
        what: &str,
        fits: impl Fn(usize) -> bool,
    ) -> Result<usize> {
        eventually(deadline, what, async || {
            match self.writable().await.as_slice() {
                [only] if fits(*only) => Ok(*only),
                other => Err(format!("writable: {other:?}")),
            }
        })
        .await
    }

    /// The acknowledged writes of a history that a member does not have.
    ///
    /// # Errors
    /// When the member does not answer.
    pub async fn missing_writes(&self, index: usize, history: &History) -> Result<usize> {
        let mut missing = 0;
        for (instance, writer) in history.writers.iter().enumerate() {
            let rows = self[index].eval(SEQS, &[writer.as_str().into()]).await?;
            let rows = rows.first().and_then(Value::as_array).into_iter().flatten();
            let rows: HashSet<u64> = rows.filter_map(Value::as_u64).collect();
            let own = history
                .writes
                .iter()
                .filter(|write| write.instance == instance);
            missing += own
                .filter(|write| write.is_accepted() && !rows.contains(&write.seq))
                .count();
        }
        Ok(missing)
    }

    /// Waits until a member has every acknowledged write of a history; returns how many there are.
    ///
    /// # Errors
    /// [`Error::Timeout`], with how many are missing.
    pub async fn wait_for_all_writes(
        &self,
        index: usize,
        history: &History,
        deadline: Duration,
    ) -> Result<usize> {
        let what = format!("{} to have every acknowledged write", self[index].name);
        eventually(deadline, &what, async || {
            match self.missing_writes(index, history).await {
                Ok(0) => Ok(history
                    .writes
                    .iter()
                    .filter(|write| write.is_accepted())
                    .count()),
                Ok(missing) => Err(format!("{missing} are missing")),
                Err(error) => Err(chain(&error)),
            }
        })
        .await
    }

    /// Writers against every member at once.
    #[must_use]
    pub fn writers(&self) -> WritersBuilder {
        WritersBuilder::new(self)
    }
}

impl Index<usize> for ReplicaSet {
    type Output = Instance;

    fn index(&self, index: usize) -> &Instance {
        &self.instances[index]
    }
}

impl Deref for ReplicaSet {
    type Target = [Instance];

    fn deref(&self) -> &[Instance] {
        &self.instances
    }
}

async fn links(
    shared: &Shared,
    own: usize,
    members: &[(String, String)],
) -> Result<Vec<(usize, Proxy)>> {
    let mut links = Vec::new();
    for (index, (_, addr)) in members
        .iter()
        .enumerate()
        .filter(|(index, _)| *index != own)
    {
        links.push((
            index,
            Proxy::start_on(&shared.handle, shared.port()?, addr).await?,
        ));
    }
    Ok(links)
}

/// `uuid=address,…`, where the address of a linked member is the link's.
fn peers(members: &[(String, String)], links: &[(usize, Proxy)]) -> String {
    let via = |index: usize| {
        links
            .iter()
            .find(|(linked, _)| *linked == index)
            .map(|(_, link)| link.addr())
    };
    let entry = |(index, (uuid, addr)): (usize, &(String, String))| match via(index) {
        Some(link) => format!("{uuid}={link}"),
        None => format!("{uuid}={addr}"),
    };
    members
        .iter()
        .enumerate()
        .map(entry)
        .collect::<Vec<_>>()
        .join(",")
}

fn instance_env(
    name: &str,
    uuid: &str,
    set: &str,
    addr: &str,
    peers: &str,
) -> Vec<(String, String)> {
    let (agent, harness) = (Instance::agent_login(), Instance::login());
    [
        ("INSTANCE_NAME", name),
        ("INSTANCE_UUID", uuid),
        ("REPLICASET_UUID", set),
        ("LISTEN", addr),
        ("PEERS", peers),
        ("REPLICATION_PASSWORD", "replication-secret"),
        ("AGENT_USER", &agent.user),
        ("AGENT_PASSWORD", &agent.password),
        ("HARNESS_PASSWORD", &harness.password),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .to_vec()
}

/// A UUID that tells its reader the port.
pub(crate) fn make_uuid(port: u16, kind: u16) -> String {
    format!("{port:08}-{kind:04x}-4000-8000-{:012x}", std::process::id())
}

const FOLLOWED: &str = "
local followed, rest = 0, {}
for id, peer in pairs(box.info.replication) do
    if peer.upstream then
        if peer.upstream.status == 'follow' then followed = followed + 1
        else table.insert(rest, id .. ': ' .. peer.upstream.status .. ' ' .. (peer.upstream.message or '')) end
    end
end
return followed, table.concat(rest, '; ')
";

const SEQS: &str = "
local seqs = setmetatable({}, {__serialize = 'seq'})
for _, row in box.space.journal.index.primary:pairs(...) do table.insert(seqs, row[2]) end
return seqs
";
