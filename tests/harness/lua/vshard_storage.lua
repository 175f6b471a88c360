-- The vshard part of a storage's init.lua, run behind init.lua itself. Settings come from the environment:
--   VSHARD_ROOT       where vshard's sources are
--   VSHARD_TOPOLOGY   a JSON file with the configuration
local fio = require('fio')
local json = require('json')

local file = fio.open(os.getenv('VSHARD_TOPOLOGY'), {'O_RDONLY'})
if file == nil then
    -- The cluster's other replica set is not there yet.
    return
end
local cfg = json.decode(file:read(1024 * 1024))
file:close()

local root = os.getenv('VSHARD_ROOT')
package.path = ('%s/?.lua;%s/?/init.lua;%s'):format(root, root, package.path)
vshard = require('vshard')

-- Values that box.cfg has already, so that vshard changes nothing of it. The agents decide which instance is master,
-- unless the configuration has flags, as a static cluster's does.
local is_flagged = false
for _, replicaset in pairs(cfg.sharding) do
    local own = replicaset.replicas[box.info.uuid]
    is_flagged = is_flagged or own ~= nil and own.master == true
end
if is_flagged then
    box.cfg{read_only = false}
end
cfg.listen = box.cfg.listen
cfg.replication = box.cfg.replication
cfg.read_only = not is_flagged
if os.getenv('VSHARD_UNCONFIGURED') == nil then
    vshard.storage.cfg(cfg, box.info.uuid)
end

-- Once in the cluster's life, on each replica set's first master.
function shard_create()
    local space = box.schema.space.create('sharded', {if_not_exists = true})
    space:format({
        {'writer', 'string'}, {'seq', 'unsigned'}, {'bucket_id', 'unsigned'}, {'instance', 'string'}, {'term', 'unsigned'},
    })
    space:create_index('primary', {parts = {'writer', 'seq'}, if_not_exists = true})
    space:create_index('bucket_id', {parts = {'bucket_id'}, unique = false, if_not_exists = true})
end

-- One write that came through a router. The lease is read in the turn in which the write begins.
function shard_write(writer, seq, bucket)
    local term = tarsec_guard and tarsec_guard.term() or 0
    box.space.sharded:insert({writer, seq, bucket, os.getenv('INSTANCE_NAME'), term})
    return {instance = os.getenv('INSTANCE_NAME'), term = term, ended = tonumber(host_now())}
end

-- The rows that this replica set's master has: keys with their bucket, buckets by status.
function shard_census()
    local keys = setmetatable({}, {__serialize = 'seq'})
    local active = setmetatable({}, {__serialize = 'seq'})
    local moving = 0
    for _, bucket in box.space._bucket:pairs() do
        if bucket.status == 'active' or bucket.status == 'pinned' then
            table.insert(active, bucket.id)
        else
            moving = moving + 1
        end
    end
    local here = {}
    for _, id in ipairs(active) do
        here[id] = true
    end
    for _, row in box.space.sharded:pairs() do
        if here[row.bucket_id] then
            table.insert(keys, row.writer .. '/' .. tostring(row.seq))
        end
    end
    return {keys = keys, active = active, moving = moving}
end
