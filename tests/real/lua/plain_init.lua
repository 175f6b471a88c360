-- A replica set as it is often set up: one instance is writable at its very first start, and the others join it. No
-- member is registered beforehand, so an instance that joins needs a writable master.
local fio = require('fio')

local function setting(name)
    local value = os.getenv(name)
    return value or error(name .. ' is not set', 0)
end

local first = setting('BOOTSTRAP') == 'true' and #fio.glob(fio.pathjoin(setting('WORK_DIR'), '*.snap')) == 0
local uris = {}
for _, address in setting('PEERS'):gmatch('([%x-]+)=([^,%s]+)') do
    table.insert(uris, ('replicator:%s@%s'):format(setting('REPLICATION_PASSWORD'), address))
end
fio.mktree(setting('WORK_DIR'))

box.cfg({
    listen = setting('LISTEN'),
    instance_uuid = setting('INSTANCE_UUID'),
    replicaset_uuid = setting('REPLICASET_UUID'),
    work_dir = setting('WORK_DIR'),
    memtx_memory = tonumber(setting('MEMTX_MEMORY')),
    read_only = not first,
    replication = uris,
    replication_timeout = 1,
    replication_connect_timeout = first and 1 or 30,
    replication_connect_quorum = 1,
})
if first then
    box.schema.user.create('replicator', {password = setting('REPLICATION_PASSWORD')})
    box.schema.user.grant('replicator', 'replication')
    local app = dofile(setting('APP'))
    app.bootstrap()
    -- The agent's user comes last: with its first look the agent makes the instance read-only.
    box.schema.user.create(setting('AGENT_USER'), {password = setting('AGENT_PASSWORD')})
    box.schema.user.grant(setting('AGENT_USER'), 'execute', 'universe')
end
local app = dofile(setting('APP'))
if app.start then
    app.start()
end
