-- What the guard needs of the database where Tarantool's versions differ: one function for each need, chosen by what the
-- instance has, never by its version's number. Evaluated before guard.lua and vshard.lua, whose
-- require('tarsec.platform') finds it. It keeps nothing, so a later version simply takes its place.

local fiber = require('fiber')

local platform = {}

-- Up to 2.10 require('box.internal') finds the same table, since 2.11 nothing.
local internal = rawget(box, 'internal')

-- Where box.cfg keeps its values: in itself up to 2.10. Since 2.11 box.cfg is an empty table before another one, and a
-- field that is set in the empty one makes every later box.cfg{} fail ("length of proxy table is not zero").
local function values()
    local meta = getmetatable(box.cfg)
    local behind = type(meta) == 'table' and meta.__index
    if next(box.cfg) == nil and type(behind) == 'table' then
        return behind
    end
    return box.cfg
end

-- Changes settings as box.cfg{} does in the end, without the lock that box.cfg{} takes first: a change of `replication`
-- holds that lock for up to replication_connect_timeout (2.9 s of 3 s measured on 2.6). Does not yield.
local function set(name, value)
    rawset(values(), name, value)
    internal['cfg_set_' .. name]()
end

-- What box.cfg.read_only says: 'unless_bootstrap' (since 3.7.2) is read-only once the instance runs.
function platform.is_set_read_only()
    return box.cfg.read_only and true or false
end

-- Switches read_only. The setter does not yield, so what the guard checked in the line before still holds.
function platform.set_read_only(value)
    local before = box.cfg.read_only
    local ok = pcall(set, 'read_only', value)
    if not ok or (value and not box.info.ro) then
        -- Somebody has taken the setter away since the guard was installed. Without the old value box.cfg{} would see no
        -- difference and do nothing.
        rawset(values(), 'read_only', before)
        box.cfg{read_only = value}
    end
end

-- Runs `f` under other settings. A setting that somebody else has changed meanwhile is left as it is.
function platform.with_settings(changed, f)
    local before = {}
    for name in pairs(changed) do
        before[name] = box.cfg[name]
    end
    local ok, err = pcall(function()
        for name, value in pairs(changed) do
            set(name, value)
        end
        f()
    end)
    for name, value in pairs(changed) do
        if box.cfg[name] == value then
            set(name, before[name])
        end
    end
    if not ok then
        error(err, 0)
    end
end

-- Replicates from these URIs alone, without waiting for any of them and without ever becoming an orphan (0.2 to 2 ms
-- with an address that swallows everything). Since 2.11 only the bootstrap strategy `legacy` waits for a quorum of the
-- operator's choice; the other strategies wait for every peer, for as long as replication_connect_timeout.
function platform.replicate_from(uris)
    local settings = {replication_connect_quorum = 0}
    if box.cfg.bootstrap_strategy ~= nil then
        settings.bootstrap_strategy = 'legacy'
    end
    platform.with_settings(settings, function()
        box.cfg{replication = uris}
    end)
end

-- Whether the instance is read-only though its settings do not say so. Before 2.10 it does not say why, and only an
-- orphan is.
function platform.is_orphan()
    local info = box.info
    return info.ro and not platform.is_set_read_only() and (info.ro_reason or 'orphan') == 'orphan'
end

-- Makes an orphan a member like any other, which Tarantool does where its quorum is zero. Does not yield.
function platform.end_orphanhood()
    local function ask_nobody()
        platform.with_settings({replication_connect_quorum = 0}, function() end)
    end
    if box.cfg.bootstrap_strategy == nil then
        return ask_nobody()
    end
    -- Only `legacy` looks at that quorum.
    platform.with_settings({bootstrap_strategy = 'legacy'}, ask_nobody)
end

-- Calls `f` whenever box.info.status or box.info.ro has changed, where the instance tells so (since 2.10).
function platform.on_status(f)
    if box.watch ~= nil then
        box.watch('box.status', f)
    end
end

-- Whether these words of an error (or nil) refuse a user's login. An unknown user is told so before 2.11 alone.
function platform.refuses_login(words)
    words = words ~= nil and tostring(words) or ''
    return words:find('Incorrect password supplied for user', 1, true) ~= nil
        or words:find('User not found or supplied credentials are invalid', 1, true) ~= nil
        or words:find("^User '.*' is not found") ~= nil
end

-- The owner of the queue of synchronous transactions (0: nobody); nil: this version does not say (before 2.10).
function platform.queue_owner()
    local queue = box.info.synchro and box.info.synchro.queue
    return queue and (queue.owner or 0)
end

function platform.has_synchronous_space()
    for id, space in pairs(box.space) do
        if type(id) == 'number' and space.is_sync then
            return true
        end
    end
    return false
end

-- The same for every probe: the spaces may be many, so they are looked at again only after the schema has changed.
local last_look = {}

local function had_synchronous_space()
    local version = box.info.schema_version or box.internal.schema_version()
    if last_look.version ~= version then
        last_look = {version = version, found = platform.has_synchronous_space()}
    end
    return last_look.found
end

-- The agent's user may not read _cluster.
local function members()
    local count = 0
    for _ in pairs(box.info.replication) do
        count = count + 1
    end
    return count
end

-- As src/box/box.cc's box_eval_replication_synchro_quorum(): a number, or since 2.6.1 a formula of N, the members in _cluster.
local function evaluated(setting)
    if type(setting) ~= 'string' then
        return setting
    end
    local ok, value = pcall(function()
        return setfenv(loadstring('return ' .. setting), {N = members(), math = math})()
    end)
    return ok and math.floor(value) or nil
end

-- How many members must have a synchronous row before its client is told so; 0 where there can be no such rows. Where the
-- queue has an owner, a transaction may be synchronous without any synchronous space.
function platform.quorum()
    local owner = platform.queue_owner()
    if not had_synchronous_space() and (owner == nil or owner == 0) then
        return 0
    end
    local synchro = box.info.synchro
    return synchro ~= nil and synchro.quorum or evaluated(box.cfg.replication_synchro_quorum)
end

-- Whether the queue is this instance's, so that it may be writable. An owner that was started again, or that has heard of a
-- higher Raft term since, stays read-only for the reason 'synchro' until it has promoted itself anew.
function platform.owns_queue()
    return platform.queue_owner() == box.info.id and box.info.ro_reason ~= 'synchro'
end

-- Whether synchronous transactions of this instance wait for their quorum. Before 2.10 the WAL's queue is behind them.
function platform.own_rows_wait()
    local queue = box.info.synchro and box.info.synchro.queue
    return queue ~= nil and queue.owner == box.info.id and queue.len > 0
end

-- How often a claim that is under way is looked at. Nothing tells when the queue changes hands.
local CLAIM_LOOK_S = 0.001
-- From 2.10 to 3.6 box.ctl.promote() first waits for twice replication_synchro_timeout (5 s by default) for the last
-- owner's confirmations, also of an owner that is dead. This is half of the time in which confirmations under way arrive.
local CONFIRMATIONS_S = 0.05

-- The claim that is under way: a second call of box.ctl.promote() beside it fails.
local running

local function start_claim()
    local claim = {}
    claim.fiber = fiber.create(function()
        local ok, err = pcall(box.ctl.promote)
        claim.done, claim.failed = true, not ok and err or nil
        running = nil
    end)
    if not claim.done then
        running = claim
    end
    return claim
end

-- Whether a claim is under way, which may still write to the WAL.
function platform.is_claiming()
    return running ~= nil
end

-- Gives the claim up in an instance that is fenced: the queue is another instance's to claim.
function platform.end_claim()
    if running ~= nil then
        running.fiber:cancel()
    end
end

-- Makes the queue this instance's within that time, or raises an error. box.ctl.promote() waits for the quorum of the
-- last row and fails without it, so that nothing acknowledged is lost. Since 3.7 it then goes on to wait until the
-- instance is writable, which it will not be before it has returned: so the queue's owner is believed, not the return.
-- A claim that has not ended in time goes on, and the next caller waits for that one.
function platform.claim_queue(patience_s)
    local claim = running
    if claim == nil then
        -- The first wait takes the value before it yields, so no other fiber sees it, and the wait for the quorum takes
        -- the operator's.
        platform.with_settings({replication_synchro_timeout = CONFIRMATIONS_S}, function()
            claim = start_claim()
        end)
    end
    local give_up_at = fiber.clock() + patience_s
    while not platform.owns_queue() do
        if claim.failed ~= nil then
            error(claim.failed, 0)
        end
        if claim.done or fiber.clock() >= give_up_at then
            error('the queue still belongs to ' .. (platform.queue_owner() == 0 and 'nobody' or 'instance ' .. platform.queue_owner()), 0)
        end
        fiber.sleep(CLAIM_LOOK_S)
    end
end

-- Tarantool 3's declarative configuration. Where there is none, require() searches directories each time.
local has_config, config = pcall(require, 'config')
has_config = has_config and type(config) == 'table' and config.get ~= nil

-- Fails where the instance was not configured that way, and where its version does not know the option.
local function option(path)
    local got, value = pcall(config.get, config, path)
    return got and value ~= nil and value or nil
end

-- What `failover.replicasets` says of this instance in its replica set.
local function read_failover_section(said, name)
    local section = option({'failover', 'replicasets', said.replicaset}) or {}
    local priority = section.priority and section.priority[name]
    said.synchro_mode = section.synchro_mode == true
    said.priority = priority and math.floor(priority)
    for _, learner in ipairs(section.learners or {}) do
        said.learner = said.learner or learner == name
    end
end

-- The answer below, and the configuration from which it was read: each reload applies a new table.
local known, known_for

-- The configuration that isolates the instance, from the moment in which it does so. Until all of it is applied, get()
-- tells of the one before.
local isolating

local function with_isolation(said)
    if isolating ~= nil and isolating == rawget(config, '_configdata') then
        said.isolated = true
    end
    return said
end

-- What the declarative configuration says that matters here; nil: there is none. Asked with every word, since a reload may
-- change it; to read all of it takes half a millisecond.
function platform.declared()
    local applied = has_config and rawget(config, '_configdata_applied')
    if applied and applied == known_for then
        return with_isolation(known)
    end
    local failover = has_config and option('replication.failover')
    if not failover then
        return nil
    end
    local info = box.info
    local said = {
        failover = failover,
        isolated = option('isolated') == true,
        replicaset = info.replicaset and info.replicaset.name,
    }
    -- A new replica set's names come a moment after its first write.
    if said.replicaset ~= nil and info.name ~= nil then
        read_failover_section(said, info.name)
        known, known_for = said, applied
    end
    return with_isolation(said)
end

-- The addresses at which that configuration has the instances of this one's replica set accept each other, and the
-- configuration from which they were read.
local known_uris, known_uris_for = {}, nil

local function read_uris()
    local own, uris = box.info.replicaset.name, {}
    for name, instance in pairs(config:instances()) do
        local uri = instance.replicaset_name == own and config:instance_uri('peer', {instance = name})
        if uri then
            table.insert(uris, uri.uri)
        end
    end
    return uris
end

-- None where there is no such configuration, or its version cannot tell (before 3.1).
function platform.declared_uris()
    local applied = has_config and rawget(config, '_configdata_applied')
    if applied and applied ~= known_uris_for and box.info.replicaset ~= nil and box.info.replicaset.name ~= nil then
        local got, uris = pcall(read_uris)
        known_uris, known_uris_for = got and uris or {}, applied
    end
    return known_uris
end

-- Whether the configuration is being applied for the first time, so that what it says of modules may not be so yet.
function platform.is_starting()
    local got, info = pcall(function() return config:info() end)
    return got and info.status == 'startup_in_progress'
end

-- What decides about read_only besides the guard.
function platform.rule()
    return {election_mode = box.cfg.election_mode, declared = platform.declared()}
end

-- Whether the master has to be named as the instance from which new members join. That is so where the configuration
-- leaves leaders to others (bootstrap_strategy `supervised` or `native` under a supervised failover), maybe since a
-- reload: there the name does not move along with the master's role, and once the named instance is gone no member can
-- join.
function platform.is_to_lead_joins()
    local declared = box.cfg.bootstrap_strategy == 'supervised' and platform.declared()
    return declared and declared.failover == 'supervised'
end

-- Names this instance, which is writable, as the one from which new members join.
function platform.lead_joins()
    local row = box.space._schema:get({'bootstrap_leader_uuid'})
    if row == nil or row[2] ~= box.info.uuid then
        box.ctl.make_bootstrap_leader()
    end
end

-- Calls `before` ahead of the connections' end in an instance that its configuration isolates (3.3 and later). The
-- configuration's module drops them in a fiber of its own, so no other fiber waits meanwhile.
function platform.before_isolation(before)
    local internal = type(box.iproto) == 'table' and box.iproto.internal
    if not internal or type(internal.drop_connections) ~= 'function' then
        return
    end
    local drop = internal.tarsec_drop_connections or internal.drop_connections
    internal.tarsec_drop_connections = drop
    internal.drop_connections = function(...)
        isolating = has_config and rawget(config, '_configdata') or nil
        pcall(before)
        return drop(...)
    end
end

-- What the guard needs and this instance does not have, in words; nil: nothing.
function platform.lacks()
    local needs = {
        {'box.internal.cfg_set_read_only, to switch read_only without waiting',
            type(internal) == 'table' and type(internal.cfg_set_read_only) == 'function'},
        {'a table of settings behind box.cfg that has read_only', rawget(values(), 'read_only') ~= nil},
        {'box.ctl.wait_rw, to wake when somebody makes it writable', type(box.ctl.wait_rw) == 'function'},
        {'box.ctl.promote, to own the queue of synchronous transactions',
            platform.queue_owner() == nil or type(box.ctl.promote) == 'function'},
    }
    local lacking = {}
    for _, need in ipairs(needs) do
        if not need[2] then
            table.insert(lacking, need[1])
        end
    end
    return #lacking > 0 and table.concat(lacking, '; ') or nil
end

package.loaded['tarsec.platform'] = platform
return true
