-- One of three instances whose master tarsec chooses.
--
--   * It always starts read-only; only the agent makes it writable.
--   * The replica set is born once, on the instance with BOOTSTRAP=true, and only while no peer that
--     already lives answers. Take BOOTSTRAP away afterwards: an instance that comes back with an empty
--     disk and reaches nobody would be born a second time.
--   * A restart never waits for a peer that is dead.
local fio = require('fio')
local fiber = require('fiber')
local log = require('log')
local netbox = require('net.box')

local function setting(name, default)
    local value = os.getenv(name)
    if value ~= nil and value ~= '' then return value end
    if default == nil then error(name .. ' is not set', 0) end
    return default
end

local own_uuid = setting('INSTANCE_UUID')
local replication_password = setting('REPLICATION_PASSWORD')
local work_dir = setting('WORK_DIR', '/data')

local members, everyone, others = {}, {}, {}
for uuid, address in setting('PEERS'):gmatch('([%x-]+)=([^,%s]+)') do
    local uri = ('replicator:%s@%s'):format(replication_password, address)
    table.insert(members, uuid)
    table.insert(everyone, uri)
    if uuid ~= own_uuid then table.insert(others, uri) end
end

local options = {
    listen = setting('LISTEN', '0.0.0.0:3301'),
    instance_uuid = own_uuid,
    replicaset_uuid = setting('REPLICASET_UUID'),
    work_dir = work_dir,
    read_only = true,
    replication_timeout = 1,
    -- 0: never wait for peers and never become an orphan.
    replication_connect_quorum = 0,
    replication_connect_timeout = 1,
}

-- The replication user exists only where the replica set already lives, so whoever lets it in is a peer.
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
    box.schema.user.create('replicator', { password = replication_password, if_not_exists = true })
    box.schema.user.grant('replicator', 'replication', nil, nil, { if_not_exists = true })
    -- All that tarsec needs: to run its guard and its probe.
    box.schema.user.create('tarsec', { password = setting('AGENT_PASSWORD'), if_not_exists = true })
    box.schema.user.grant('tarsec', 'execute', 'universe', nil, { if_not_exists = true })
end

-- Members that are known beforehand can join while nobody is writable.
local function register_members()
    for id, uuid in ipairs(members) do
        if #box.space._cluster.index.uuid:select({ uuid }) == 0 then
            while box.space._cluster:get({ id }) ~= nil do id = id + 1 end
            box.space._cluster:insert({ id, uuid })
        end
    end
end

local function give_birth()
    log.info('no data here and no living peer: the replica set is born')
    options.read_only = false
    box.cfg(options)
    box.once('tarsec-init', function()
        -- In this order: nobody can join before there is a user, and the agent makes the instance read-only as soon as
        -- it is let in.
        register_members()
        box.schema.space.create('example'):create_index('primary')
        create_users()
    end)
    box.cfg({ read_only = true })
end

local function join(living)
    log.info('no data here: joining through %d living peer(s)', #living)
    options.replication = living
    options.replication_connect_quorum = 1
    options.replication_connect_timeout = 30
    box.cfg(options)
    box.cfg({ replication_connect_quorum = 0, replication_connect_timeout = 1 })
end

fio.mktree(work_dir)
if #fio.glob(fio.pathjoin(work_dir, '*.snap')) > 0 then
    options.replication = everyone
    box.cfg(options)
else
    local designated = setting('BOOTSTRAP', 'false') == 'true'
    local living = living_peers()
    while #living == 0 and not designated do
        fiber.sleep(0.2)
        living = living_peers()
    end
    if #living == 0 then give_birth() else join(living) end
    box.cfg({ replication = everyone })
end
log.info('ready and read-only')
