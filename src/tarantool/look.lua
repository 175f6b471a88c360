-- What an instance says of itself to the agent beside it, apart from what its guard says. Evaluated after time.lua and
-- before guard.lua, whose require('tarsec.look') finds it. It keeps nothing.

local fio = require('fio')
local platform = require('tarsec.platform')
local time = require('tarsec.time')

local look = {}

local function upstream_of(replica)
    local upstream = replica.upstream
    if upstream == nil then
        return nil
    end
    return {
        status = upstream.status,
        peer = upstream.peer and tostring(upstream.peer) or nil,
        lag_s = upstream.lag and tonumber(upstream.lag) or nil,
        idle_s = upstream.idle and tonumber(upstream.idle) or nil,
        message = upstream.message and tostring(upstream.message) or nil,
        locked_out = platform.refuses_login(upstream.message),
    }
end

function look.vclock_of(vclock)
    local result = setmetatable({}, {__serialize = 'map'})
    for id, lsn in pairs(vclock or {}) do
        -- Component 0 counts local writes, the barrier's among them: no other instance ever gets them.
        if id ~= 0 then
            result[tostring(id)] = lsn
        end
    end
    return result
end

local function replication_of(info)
    local result = setmetatable({}, {__serialize = 'seq'})
    for _, replica in pairs(info.replication) do
        local downstream = replica.downstream
        table.insert(result, {
            id = replica.id,
            uuid = replica.uuid,
            upstream = upstream_of(replica),
            downstream_status = downstream and downstream.status or nil,
            downstream_vclock = downstream and downstream.vclock and look.vclock_of(downstream.vclock) or nil,
        })
    end
    return result
end

local function read_line(path)
    local file = fio.open(path, {'O_RDONLY'})
    if file == nil then
        return nil
    end
    local text = file:read(64)
    file:close()
    return text and text:match('^%S+') or nil
end

-- What never changes while the process lives.
local identity = {
    pid = box.info.pid,
    pid_namespace = fio.readlink('/proc/self/ns/pid'),
    boot_id = read_line('/proc/sys/kernel/random/boot_id'),
    version = box.info.version,
}

-- What vshard.lua says, where the agent has put that beside this guard. It must not keep the guard from its answer.
local function vshard_look()
    local vshard = rawget(_G, 'tarsec_vshard')
    local ok, look = pcall(function() return vshard ~= nil and vshard.look() or nil end)
    return ok and look or nil
end

-- The probe, without the guard's part.
function look.at_instance()
    local info, rule = box.info, platform.rule()
    return {
        now = time.now(),
        uuid = info.uuid,
        replicaset_uuid = (info.replicaset and info.replicaset.uuid) or info.cluster.uuid,
        ro = info.ro,
        ro_reason = info.ro_reason,
        read_only = platform.is_set_read_only(),
        status = info.status,
        vclock = look.vclock_of(info.vclock),
        -- An anonymous replica has no id.
        id = info.id ~= nil and info.id or 0,
        replication = replication_of(info),
        election_mode = rule.election_mode,
        quorum = platform.quorum(),
        pid = identity.pid,
        pid_namespace = identity.pid_namespace,
        boot_id = identity.boot_id,
        version = identity.version,
        declared = rule.declared,
        name = info.name,
        vshard = vshard_look(),
    }
end

package.loaded['tarsec.look'] = look
return true
