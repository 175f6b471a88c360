-- init.lua for a Tarantool instance whose master role tarsec decides.
--
-- It promises three things:
--   * the instance always starts read-only; only tarsec's agent makes it writable;
--   * the replica set is born once: a replica set that already lives somewhere is joined, never born again,
--     even when the first instance comes back with an empty disk;
--   * a restart never waits for a peer that is dead.
--
-- Settings come from the environment:
--   INSTANCE_NAME, INSTANCE_UUID, REPLICASET_UUID   who we are
--   LISTEN                                          host:port or a socket's path
--   PEERS                                           every member, ours included: uuid=host:port,uuid=host:port,…
--   BOOTSTRAP=true                                  on exactly one member: the one the replica set is born on;
--                                                   take it away once that has happened, lest an instance with
--                                                   an empty disk that reaches no peer be born a second time
--   REPLICATION_USER, REPLICATION_PASSWORD          for the members among themselves
--   AGENT_USER, AGENT_PASSWORD                      for tarsec
--   ANONYMOUS=true                                  an anonymous replica of PEERS
--   WORK_DIR, MEMTX_MEMORY                          data directory, bytes of memory
--   MEMTX_MVCC=true                                 memtx's transaction manager (2.6.1 and later)
--   APP                                             a Lua file that returns {bootstrap = function, start = function}
--                                                   (optional)
local fio = require('fio')
local fiber = require('fiber')
local log = require('log')
local netbox = require('net.box')

local function setting(name, default)
    local value = os.getenv(name)
    if value == nil or value == '' then
        if default == nil then error(name .. ' is not set', 0) end
        return default
    end
    return value
end

local replication_user = setting('REPLICATION_USER', 'replicator')
local replication_password = setting('REPLICATION_PASSWORD')
local own_uuid = setting('INSTANCE_UUID')
local work_dir = setting('WORK_DIR', '.')

local function uri_of(address)
    return ('%s:%s@%s'):format(replication_user, replication_password, address)
end

local members, everyone, others = {}, {}, {}
for uuid, address in setting('PEERS'):gmatch('([%x-]+)=([^,%s]+)') do
    table.insert(members, uuid)
    table.insert(everyone, uri_of(address))
    if uuid ~= own_uuid then table.insert(others, uri_of(address)) end
end

local options = {
    listen = setting('LISTEN'),
    instance_uuid = own_uuid,
    replicaset_uuid = setting('REPLICASET_UUID'),
    work_dir = work_dir,
    memtx_memory = tonumber(setting('MEMTX_MEMORY', 256 * 1024 * 1024)),
    read_only = true,
    -- A peer that is cut off is noticed after four of these; a lost link is tried again after one.
    replication_timeout = tonumber(setting('REPLICATION_TIMEOUT', '1')),
    -- 0: never wait for peers and never become an orphan. How far behind a candidate is, tarsec weighs.
    replication_connect_quorum = 0,
    replication_connect_timeout = 1,
    -- Rows that only an ex-master has must not be able to stop replication by a duplicate key.
    replication_skip_conflict = setting('REPLICATION_SKIP_CONFLICT', 'false') == 'true',
}

if setting('ANONYMOUS', 'false') == 'true' then options.replication_anon = true end

-- 2.6.0 does not know it.
if setting('MEMTX_MVCC', 'false') == 'true' then options.memtx_use_mvcc_engine = true end

-- Peers that let the replication user in: that user exists only where the replica set already lives.
local function living_peers()
    local living = {}
    for _, uri in ipairs(others) do
        local connection = netbox.connect(uri, { connect_timeout = 1 })
        if connection.state == 'active' then table.insert(living, uri) end
        connection:close()
    end
    return living
end

local function create_users()
    box.schema.user.create(replication_user, { password = replication_password, if_not_exists = true })
    box.schema.user.grant(replication_user, 'replication', nil, nil, { if_not_exists = true })
    -- All that tarsec needs: to run its guard and its probe.
    local agent = setting('AGENT_USER', 'tarsec')
    box.schema.user.create(agent, { password = setting('AGENT_PASSWORD'), if_not_exists = true })
    box.schema.user.grant(agent, 'execute', 'universe', nil, { if_not_exists = true })
end

-- Members whose UUIDs are known beforehand can join, and join again, while no instance is writable.
local function register_members()
    local known, last = {}, 0
    for _, row in box.space._cluster:pairs() do
        known[row[2]] = true
        last = math.max(last, row[1])
    end
    for _, uuid in ipairs(members) do
        if not known[uuid] then
            last = last + 1
            box.space._cluster:insert({ last, uuid })
        end
    end
end

local app_path = setting('APP', '')
local app = app_path ~= '' and dofile(app_path) or {}

local function give_birth()
    log.info('no data here and no living peer: this is where the replica set is born')
    options.read_only = false
    options.replication = {}
    box.cfg(options)
    box.once('tarsec-init', function()
        -- In this order: no member can join before there is a user, a member that joined half-way would register
        -- itself, and the agent makes the instance read-only as soon as it is let in.
        register_members()
        if app.bootstrap then app.bootstrap() end
        create_users()
    end)
    box.cfg({ read_only = true })
end

local function join(living)
    log.info('no data here: joining the replica set through %d living peer(s)', #living)
    options.replication = living
    options.replication_connect_quorum = #living
    options.replication_connect_timeout = 30
    box.cfg(options)
    box.cfg({ replication_connect_quorum = 0, replication_connect_timeout = 1 })
end

fio.mktree(work_dir)
if #fio.glob(fio.pathjoin(work_dir, '*.snap')) > 0 then
    options.replication = everyone
    box.cfg(options)
else
    local living = living_peers()
    local designated = setting('BOOTSTRAP', 'false') == 'true'
    while #living == 0 and not designated do
        fiber.sleep(0.02)
        living = living_peers()
    end
    if #living == 0 then give_birth() else join(living) end
    box.cfg({ replication = everyone })
end

if app.start then app.start() end
log.info('%s is ready and read-only', setting('INSTANCE_NAME', own_uuid))
