-- What vshard is like in this instance, and how a configuration is applied to it. Evaluated after `vshard.lua`, which has
-- everything that is pure.

local clock = require('clock')
local digest = require('digest')
local fiber = require('fiber')
local log = require('log')
local platform = require('tarsec.platform')

local vshard = rawget(_G, 'tarsec_vshard')
if vshard.apply ~= nil then
    return true
end

local function sorted_keys(map)
    local keys = {}
    for key in pairs(map) do
        table.insert(keys, key)
    end
    table.sort(keys)
    return keys
end

local function module_of(name)
    local module = package.loaded['vshard.' .. name]
    return type(module) == 'table' and module or nil
end

local function storage()
    local module = module_of('storage')
    local internal = module and module.internal
    return internal and internal.current_cfg and module or nil
end

-- By name; releases before named routers have the static one alone.
local function routers()
    local module = module_of('router')
    local internal = module and module.internal or {}
    local found = {}
    for name, router in pairs(internal.routers or {}) do
        found[name] = router
    end
    if internal.static_router ~= nil then
        found['_static_router'] = internal.static_router
    end
    for name, router in pairs(found) do
        if router.current_cfg == nil then
            found[name] = nil
        end
    end
    return found
end

-- vshard's own settings alone, from a configuration that may hold box options, too.
local function own_settings(cfg)
    local lcfg = require('vshard.cfg')
    if lcfg.extract_vshard ~= nil then
        return lcfg.extract_vshard(cfg)
    end
    return (lcfg.split(cfg))
end

local function is_up(replica)
    local conn = replica ~= nil and replica.conn or nil
    return conn ~= nil and conn:is_connected()
end

local function routes_of(name, router)
    local routes = {
        name = name,
        known_buckets = router.known_bucket_count,
        buckets = router.total_bucket_count,
        masters = setmetatable({}, {__serialize = 'map'}),
        unreachable = setmetatable({}, {__serialize = 'seq'}),
    }
    for id, replicaset in pairs(router.replicasets or {}) do
        local master = replicaset.master
        routes.masters[tostring(id)] = master and tostring(master.id or master.uuid) or ''
        if not is_up(master) then
            table.insert(routes.unreachable, tostring(id))
        end
    end
    table.sort(routes.unreachable)
    return routes
end

vshard.seen = {}
local prints = setmetatable({}, {__mode = 'k'})

local function print_once(cfg)
    if prints[cfg] == nil then
        prints[cfg] = vshard.print_of(cfg)
    end
    return prints[cfg]
end

local function is_loaded()
    return module_of('storage') ~= nil or module_of('router') ~= nil
end

-- Only a storage has this space; after a restart it is there before its configuration is.
local function was_storage()
    return type(box.cfg) == 'table' and box.space._bucket ~= nil
end

-- What kind of instance this is.
function vshard.role()
    return {
        storage = storage() ~= nil or was_storage(),
        router = next(routers()) ~= nil,
        loaded = is_loaded(),
    }
end

-- The configuration was last set by somebody else: an `init.lua`, an operator.
local function is_foreign(module, found)
    if module ~= nil and module.internal.current_cfg ~= vshard.seen.storage then
        return true
    end
    for name, router in pairs(found) do
        if router.current_cfg ~= vshard.seen[name] then
            return true
        end
    end
    return false
end

local function note_seen()
    vshard.seen = setmetatable({}, {__mode = 'v'})
    local module = storage()
    vshard.seen.storage = module and module.internal.current_cfg
    for name, router in pairs(routers()) do
        vshard.seen[name] = router.current_cfg
    end
end

local function describe_config(id)
    local config = vshard.config
    if config == nil then
        return nil
    end
    local own, weights = {}, setmetatable({}, {__serialize = 'map'})
    for _, replicaset in pairs(vshard.known and vshard.known.cfg.sharding or {}) do
        if replicaset.replicas[id] ~= nil then
            own = vshard.known.preferences[id] or own
            for replica_id in pairs(replicaset.replicas) do
                weights[replica_id] = (vshard.known.preferences[replica_id] or {}).weight
            end
        end
    end
    return {index = config.index, refused = config.refused, weight = own.weight, delay_s = own.delay, weights = weights}
end

-- Whether an instance in these replica sets refuses the login with which vshard connects to it.
local function is_locked_out(replicasets)
    for _, replicaset in pairs(replicasets or {}) do
        for _, replica in pairs(replicaset.replicas or {}) do
            if replica.conn ~= nil and not is_up(replica) and platform.refuses_login(replica.conn.error) then
                return true
            end
        end
    end
    return false
end

-- Everything about vshard here; nil without it. Cheap: the fingerprint is made once for each configuration.
function vshard.look()
    local module, found = storage(), routers()
    if module == nil and next(found) == nil and vshard.config == nil then
        return nil
    end
    local cfg = module and module.internal.current_cfg
    local replica = module and module.internal.this_replica or {}
    local replicaset = module and module.internal.this_replicaset or {}
    local result = {
        storage = module ~= nil,
        version = is_loaded() and tostring(require('vshard.consts').VERSION or 'before 0.1.19') or nil,
        routers = setmetatable({}, {__serialize = 'seq'}),
        last = vshard.last,
        foreign = is_foreign(module, found),
        flagged = replicaset.master ~= nil and replicaset.master == replica,
        auto = replicaset.is_master_auto or replicaset.is_auto_master or false,
        locked_out = module ~= nil and is_locked_out(module.internal.replicasets),
        config = describe_config(replica.id or replica.uuid or box.info.uuid),
        instance_name = box.info.name,
        replicaset_name = box.info.replicaset and box.info.replicaset.name,
    }
    for _, name in ipairs(sorted_keys(found)) do
        cfg = cfg or found[name].current_cfg
        table.insert(result.routers, routes_of(name, found[name]))
        result.locked_out = result.locked_out or is_locked_out(found[name].replicasets)
    end
    result.fingerprint = cfg and print_once(cfg)
    return result
end

local function words_of(err)
    if type(err) == 'table' and err.message ~= nil then
        return tostring(err.message), err.code
    end
    return tostring(err)
end

-- vshard checks a configuration in a copy; here that happens before anything is touched.
local function check(cfg, old)
    local ok, err = pcall(require('vshard.cfg').check, cfg, old)
    if not ok then
        return (tostring(err):gsub('^.-:%d+: ', ''))
    end
end

-- The configuration to start from: the central one where there is one, else the present one.
local function base_of(wanted, old, is_storage)
    local known = vshard.known
    if known == nil then
        return own_settings(old)
    end
    local cfg = table.deepcopy(known.cfg)
    if old ~= nil then
        -- Flags of replica sets that no lock names stay what they are.
        vshard.keep_flags(cfg, old)
    end
    if is_storage then
        cfg.zone, cfg.weights = nil, nil
    elseif old ~= nil then
        cfg.zone, cfg.weights = old.zone, cfg.weights or old.weights
    end
    return cfg
end

local function is_writable_by_right()
    local guard = rawget(_G, 'tarsec_guard')
    return guard ~= nil and guard.state.leased and not box.info.ro
end

local function own_ids(cfg, internal)
    local named = cfg.identification_mode == 'name_as_key'
    local id = named and box.info.name or box.info.uuid
    if internal ~= nil and internal.this_replica ~= nil then
        id = internal.this_replica.id or internal.this_replica.uuid or id
    end
    for replicaset_id, replicaset in pairs(cfg.sharding) do
        if replicaset.replicas[id] ~= nil then
            return id, replicaset_id
        end
    end
    return id
end

local function follow_peers(old, cfg, replicaset_id)
    local before = old and old.sharding[replicaset_id] and old.sharding[replicaset_id].replicas
    local entries = vshard.peers(box.cfg.replication, before, cfg.sharding[replicaset_id].replicas)
    if entries ~= nil then
        log.info('tarsec: the replica set has other instances, replicating from all of them')
        local guard = rawget(_G, 'tarsec_guard')
        if guard ~= nil then
            require('tarsec.replication').add(guard.state, entries)
        else
            platform.replicate_from(entries)
        end
    end
end

-- vshard's own demotion waits for replicas and makes the instance writable again when a later step fails, unless its
-- present configuration has a `read_only` of its own. Releases from 0.1.25 on do not remember it, so it is put there
-- for as long as the call takes.
local function call_storage(module, cfg, id)
    local old = module.internal.current_cfg
    local hidden = old ~= nil and old.read_only == nil
    if hidden then
        old.read_only = box.cfg.read_only
    end
    local ok, err = pcall(module.cfg, cfg, id)
    if hidden then
        old.read_only = nil
    end
    if not ok then
        error(err, 0)
    end
end

local function apply_storage(wanted, report)
    local module = module_of('storage')
    local internal = module and module.internal
    local old = internal and internal.current_cfg
    if wanted.is_router or (old == nil and vshard.known == nil) then
        return
    end
    if module == nil then
        module = require('vshard').storage
        internal = module.internal
    end
    local base = base_of(wanted, old, true)
    local id, replicaset_id = own_ids(base, internal)
    if replicaset_id == nil then
        -- The central configuration does not name this instance: it is left alone, but for the masters.
        report.absent = true
        if old == nil then
            return
        end
        base = own_settings(old)
        id, replicaset_id = own_ids(base, internal)
    end
    local cfg, changed, problems = vshard.patch(base, wanted.masters)
    for _, problem in ipairs(problems) do
        table.insert(report.problems, problem)
    end
    local is_new = old == nil
        or (vshard.known ~= nil and not report.absent and vshard.known.applied ~= internal.current_cfg)
    if not changed and not is_new and not report.again and vshard.storage_failed == nil then
        return
    end
    if is_new then
        local wrong = check(cfg, old)
        if wrong ~= nil then
            error({message = wrong, refused = true}, 0)
        end
        if not wanted.follows then
            follow_peers(old, cfg, replicaset_id)
        end
    end
    -- Waits for a fiber that is inside box.cfg{} now. From here to vshard's own call nothing yields, so that what is
    -- read here is still so there: a fence in between would otherwise be undone for a moment.
    box.cfg({})
    local may_write = is_writable_by_right()
    local own = cfg.sharding[replicaset_id].replicas[id]
    local is_auto = cfg.sharding[replicaset_id].master == 'auto'
    local flag = own.master or false
    local was = internal.this_replicaset ~= nil and internal.this_replicaset.master == internal.this_replica
    if flag ~= was and flag ~= may_write and not is_auto then
        error(flag and 'the instance is not writable, so it does not become master in vshard'
            or 'the instance is writable, so it does not cease to be master in vshard', 0)
    end
    -- Values that box.cfg has already are no change. The instance is never made writable but under a lease.
    cfg.read_only = not may_write
    cfg.listen = box.cfg.listen
    cfg.replication = box.cfg.replication or {}
    -- From 0.1.25 on an instance's own entry goes before these.
    own.read_only, own.replication = nil, nil
    own.listen = own.listen and box.cfg.listen
    vshard.storage_failed = true
    call_storage(module, cfg, id)
    vshard.storage_failed = nil
    report.storage = true
    if vshard.known ~= nil and not report.absent then
        vshard.known.applied = internal.current_cfg
    end
end

local function shares_replicaset(a, b)
    for id in pairs(a.sharding) do
        if b.sharding[id] ~= nil then
            return true
        end
    end
    return false
end

-- A router waits up to half a second for each master that it cannot reach, and meanwhile nothing changes. So such a
-- master is not named to it before it can be reached.
local function leave_out_unreachable(router, cfg, report)
    for id, replicaset in pairs(cfg.sharding) do
        local known = (router.replicasets or {})[id]
        for replica_id, replica in pairs(replicaset.replicas) do
            local connected = known ~= nil and known.replicas[replica_id]
            if replica.master and connected and not is_up(connected) then
                replica.master = nil
                table.insert(report.left_out, tostring(id))
            end
        end
    end
end

local function apply_router(name, router, wanted, report)
    local old = router.current_cfg
    local own = vshard.known ~= nil and (name == '_static_router' or shares_replicaset(vshard.known.cfg, old))
    local base = own and base_of(wanted, old, false) or own_settings(old)
    local cfg, changed, problems = vshard.patch(base, wanted.masters)
    for _, problem in ipairs(problems) do
        table.insert(report.problems, problem)
    end
    local is_new = own and vshard.known.routers[name] ~= vshard.known.text
    if changed or is_new or report.again then
        leave_out_unreachable(router, cfg, report)
    end
    if not is_new and not report.again and vshard.same_flags(cfg, old) then
        return
    end
    if is_new then
        local wrong = check(cfg, old)
        if wrong ~= nil then
            error({message = wrong, refused = true}, 0)
        end
    end
    router:cfg(cfg)
    report.routers = report.routers + 1
    if own then
        vshard.known.routers[name] = vshard.known.text
    end
end

local function first_router(wanted, report)
    local cfg, _, problems = vshard.patch(vshard.known.cfg, wanted.masters)
    local wrong = check(cfg)
    if wrong ~= nil then
        error({message = wrong, refused = true}, 0)
    end
    require('vshard').router.cfg(cfg)
    vshard.known.routers['_static_router'] = vshard.known.text
    report.routers, report.problems = 1, problems
end

-- Checks a central configuration against everything here. Nothing of it is applied yet.
local function understand(wanted)
    local given, wrong = vshard.decode(wanted.config)
    if given == nil then
        error(wrong, 0)
    end
    pcall(require, 'vshard')
    if not pcall(require, 'vshard.cfg') then
        error('vshard cannot be loaded here', 0)
    end
    local cfg, preferences = vshard.central(given, wanted.login or {}, box.cfg, own_settings)
    if cfg == nil then
        error(preferences, 0)
    end
    local present = storage()
    local _, router = next(routers())
    local old = present and present.internal.current_cfg or router and router.current_cfg
    wrong = check(cfg, old) or old ~= nil and vshard.moved(old, cfg) or nil
    if wrong ~= nil then
        error(wrong, 0)
    end
    return cfg, preferences
end

-- A central configuration is taken over as a whole or not at all: the agent finds what is wrong with it before anything
-- of it is applied, and the configuration before stays.
local function take_config(wanted)
    if wanted.config == nil then
        return
    end
    local login = wanted.login or {}
    local text = digest.sha256_hex(('%s\n%s\n%s'):format(login.user, login.password, wanted.config))
    if vshard.config ~= nil and vshard.config.text == text then
        vshard.config.index = wanted.config_index
        return
    end
    local config = {text = text, index = wanted.config_index}
    local ok, cfg, preferences = pcall(understand, wanted)
    if ok then
        vshard.known = {text = text, cfg = cfg, preferences = preferences, routers = {}}
    else
        config.refused = tostring(cfg)
        log.error('tarsec: the vshard configuration in Consul is refused, the one before stays: %s', config.refused)
    end
    vshard.config = config
end

local function apply(wanted)
    local began = clock.monotonic()
    local report = {
        sequence = wanted.sequence, problems = setmetatable({}, {__serialize = 'seq'}), routers = 0,
        left_out = setmetatable({}, {__serialize = 'seq'}), again = wanted.again,
    }
    local ok, err = pcall(function()
        take_config(wanted)
        apply_storage(wanted, report)
        local failed
        for name, router in pairs(routers()) do
            -- A router that fails must not keep the others from their masters.
            local done, why = pcall(apply_router, name, router, wanted, report)
            failed = failed or (not done and why or nil)
        end
        if next(routers()) == nil and wanted.is_router and vshard.known ~= nil then
            first_router(wanted, report)
        end
        if failed ~= nil then
            error(failed, 0)
        end
        note_seen()
    end)
    if not ok then
        report.failed, report.code = words_of(err)
        if type(err) == 'table' and err.refused and vshard.config ~= nil then
            vshard.config.refused = report.failed
        end
    end
    report.again = nil
    report.took_ms = math.ceil((clock.monotonic() - began) * 1000)
    return report
end

-- Sets masters, and a central configuration where there is one, in a fiber of its own: fibers run as admin, whichever
-- user asked for it. Waits for at most `patience_s`; work that has not ended by then says so in `look().last` once it
-- has.
function vshard.apply(wanted, patience_s)
    local guard = rawget(_G, 'tarsec_guard')
    if wanted.owner ~= nil and guard ~= nil and guard.state.agent ~= wanted.owner then
        return {busy = false, superseded_by = guard.state.agent}
    end
    if vshard.applying then
        return {busy = true, vshard = vshard.look()}
    end
    vshard.applying = true
    local done = fiber.channel(1)
    fiber.create(function()
        fiber.name('tarsec_vshard')
        local ok, report = pcall(apply, wanted)
        vshard.last = ok and report
            or {sequence = wanted.sequence, failed = tostring(report), problems = {}, routers = 0, left_out = {}}
        vshard.applying = false
        done:put(true, 0)
    end)
    local ended = done:get(patience_s)
    return {busy = ended == nil, vshard = vshard.look()}
end

return true
