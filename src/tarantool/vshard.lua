-- tarsec's hand on vshard: sets the master flags of this instance's own vshard configuration to what the locks say, and
-- says what the configuration is. Each agent does that for its own instance alone.
--
-- One global table, `tarsec_vshard`; the agent evaluates this file and `vshard_apply.lua` at every attach. Everything
-- in this one is pure: tables in, tables out, nothing of vshard needed. The code that looks and applies is in the
-- other.

local VERSION = 3

local digest = require('digest')
local json = require('json')
local uri_parser = require('uri')
local yaml = require('yaml')

local previous = rawget(_G, 'tarsec_vshard')
if previous ~= nil and previous.version == VERSION then
    return true
end

local vshard = {version = VERSION}
-- State that outlives an agent, and this version of the file.
for _, key in ipairs(previous ~= nil and {'known', 'config', 'last'} or {}) do
    vshard[key] = previous[key]
end

-- Fields that autovshard's form has and vshard's has not.
local OURS = {address = true, master_weight = true, switchover_delay = true}
local REPLICASET = {replicas = true, weight = true, lock = true, master = true, rebalancer = true, uuid = true}
local REPLICA = {uri = true, listen = true, name = true, zone = true, master = true, rebalancer = true, uuid = true}
-- Box options that box.cfg does not show before they are set.
local BOX = {
    listen = true, replication = true, instance_uuid = true, replicaset_uuid = true, read_only = true, log = true,
    custom_proc_title = true, pid_file = true, background = true, username = true, work_dir = true, vinyl_dir = true,
    snapshot_period = true, log_nonblock = true, instance_name = true, replicaset_name = true,
}
-- Settings that must be the same everywhere. Settings that only newer releases of vshard know, and their defaults, are
-- no difference between two instances, and neither are masters, zones, passwords and box options.
local COMPARED = {
    'bucket_count', 'shard_index', 'rebalancer_disbalance_threshold', 'rebalancer_max_receiving', 'identification_mode',
}

-- `user:password@` does not belong to an address.
local function address_of(uri)
    uri = tostring(type(uri) == 'table' and (uri.uri or uri[1]) or uri)
    return (uri:gsub('^.*@', ''))
end

-- Whether what stands before the '@' is a login to Tarantool, which decodes nothing: a '/' or '?' there makes its parser
-- take the user for a host, other characters make it refuse the whole.
local function carries_login(uri)
    if not uri:find('@', 1, true) then
        return true
    end
    local parsed = uri_parser.parse(uri)
    return parsed ~= nil and parsed.login ~= nil
end

local function sorted_keys(map)
    local keys = {}
    for key in pairs(map) do
        table.insert(keys, key)
    end
    table.sort(keys, function(a, b) return tostring(a) < tostring(b) end)
    return keys
end

-- The same text for the same content, whatever the order of the maps.
local function canonical(value)
    if type(value) ~= 'table' then
        return json.encode(value)
    end
    local parts = {}
    for _, key in ipairs(sorted_keys(value)) do
        table.insert(parts, tostring(key) .. ':' .. canonical(value[key]))
    end
    return '{' .. table.concat(parts, ',') .. '}'
end

vshard.canonical = canonical

-- A fingerprint of a vshard configuration.
function vshard.print_of(cfg)
    local content = {sharding = {}}
    for _, key in ipairs(COMPARED) do
        content[key] = cfg[key]
    end
    if content.identification_mode == 'uuid_as_key' then
        content.identification_mode = nil
    end
    for id, replicaset in pairs(cfg.sharding or {}) do
        local replicas = {}
        for replica_id, replica in pairs(replicaset.replicas or {}) do
            replicas[replica_id] = {address = address_of(replica.uri), name = replica.name, zone = replica.zone}
        end
        content.sharding[id] = {
            replicas = replicas,
            weight = replicaset.weight or 1,
            lock = replicaset.lock or nil,
            master = replicaset.master,
        }
    end
    return digest.sha256_hex(canonical(content)):sub(1, 16)
end

-- The replica set of that UUID, which newer releases may know by its name.
local function find(sharding, uuid, name)
    if sharding[uuid] ~= nil then
        return uuid
    end
    if name ~= nil and sharding[name] ~= nil then
        return name
    end
    for id, entry in pairs(sharding) do
        if type(entry) == 'table' and entry.uuid == uuid then
            return id
        end
    end
end

-- A configuration with the masters that the locks name: `masters` is replica set UUID → {instance, instance_name,
-- replicaset_name}; an `instance` of '' means nobody. Replica sets that it does not mention stay as they are, and so do
-- those whose masters vshard finds by itself. Returns the new configuration, whether a flag has changed, and what could
-- not be done, in words.
function vshard.patch(cfg, masters)
    local new, changed, problems = table.deepcopy(cfg), false, {}
    for _, uuid in ipairs(sorted_keys(masters)) do
        local wanted = masters[uuid]
        local id = find(new.sharding, uuid, wanted.replicaset_name)
        local replicaset = id and new.sharding[id]
        if replicaset ~= nil and replicaset.master ~= 'auto' then
            local master = wanted.instance ~= '' and find(replicaset.replicas, wanted.instance, wanted.instance_name)
            if wanted.instance ~= '' and master == nil then
                table.insert(problems, ('%s, master of replica set %s, is not in the vshard configuration'):format(
                    wanted.instance, uuid))
            else
                for replica_id, replica in pairs(replicaset.replicas) do
                    local flag = replica_id == master or nil
                    changed = changed or (replica.master or nil) ~= flag
                    replica.master = flag
                end
            end
        end
    end
    return new, changed, problems
end

-- Text of a central configuration, YAML or JSON, as a table; or nil and why not.
function vshard.decode(text)
    local ok, cfg
    if text:match('^%s*{') then
        ok, cfg = pcall(json.decode, text)
    else
        ok, cfg = pcall(yaml.decode, text)
    end
    if not ok then
        return nil, 'it is neither YAML nor JSON: ' .. tostring(cfg)
    end
    if type(cfg) ~= 'table' or type(cfg.sharding) ~= 'table' then
        return nil, "it is no vshard configuration: there is no map 'sharding'"
    end
    return cfg
end

local function unknown(what, key)
    return ("unknown option '%s' %s"):format(tostring(key), what)
end

local function is_box_option(key, box_cfg)
    return BOX[key] or box_cfg[key] ~= nil
end

local function numeric(what, key, value)
    if value ~= nil and (type(value) ~= 'number' or value ~= value or value < 0) then
        return ('%s of %s must be a number that is not negative'):format(key, what)
    end
end

local function replica_of(id, given, login, box_cfg)
    if type(given) ~= 'table' then
        return nil, ('instance %s must be a map'):format(tostring(id))
    end
    local what = 'instance ' .. tostring(id)
    local replica = {}
    for key, value in pairs(given) do
        if REPLICA[key] then
            replica[key] = value
        elseif not OURS[key] and not is_box_option(key, box_cfg) then
            return nil, unknown('of ' .. what, key)
        end
    end
    local wrong = numeric(what, 'master_weight', given.master_weight)
        or numeric(what, 'switchover_delay', given.switchover_delay)
    if wrong ~= nil then
        return nil, wrong
    end
    if replica.uri == nil then
        replica.uri = given.address
    elseif given.address ~= nil then
        return nil, what .. ' has both uri and address'
    end
    if type(replica.uri) == 'string' and not replica.uri:find('@', 1, true) and login.user ~= nil then
        replica.uri = ('%s:%s@%s'):format(login.user, login.password or '', replica.uri)
    end
    if type(replica.uri) == 'string' and not carries_login(replica.uri) then
        return nil, ("the uri of %s has something before its '@' that no URI of Tarantool carries"):format(what)
            .. "; allowed are letters, digits, - . _ ~ ! $ & ' ( ) * + , ; = and % before two hexadecimal digits"
    end
    -- Flags are the locks' business.
    replica.master = nil
    return replica
end

-- A configuration as vshard wants it, made of a configuration as operators write it: autovshard's fields are
-- translated, box options left out. `extract` is vshard's own: it keeps what this release knows. Returns the
-- configuration and, by instance, our own fields ({weight, delay}); or nil and what is wrong.
function vshard.central(given, login, box_cfg, extract)
    local cfg, preferences = {}, {}
    for key, value in pairs(given) do
        cfg[key] = value
    end
    cfg.sharding = {}
    for id, replicaset in pairs(given.sharding) do
        if type(replicaset) ~= 'table' or type(replicaset.replicas) ~= 'table' then
            return nil, ("replica set %s must be a map with a map 'replicas'"):format(tostring(id))
        end
        local new = {replicas = {}}
        for key, value in pairs(replicaset) do
            if not REPLICASET[key] then
                return nil, unknown('of replica set ' .. tostring(id), key)
            end
            new[key] = new[key] or value
        end
        new.replicas = {}
        for replica_id, replica in pairs(replicaset.replicas) do
            local own, wrong = replica_of(replica_id, replica, login, box_cfg)
            if own == nil then
                return nil, wrong
            end
            new.replicas[replica_id] = own
            if replica.master_weight ~= nil then
                preferences[replica_id] = {weight = replica.master_weight, delay = replica.switchover_delay or 0}
            end
        end
        cfg.sharding[id] = new
    end
    local known = extract(cfg)
    for key in pairs(cfg) do
        if known[key] == nil and not is_box_option(key, box_cfg) then
            return nil, unknown('for this release of vshard', key)
        end
    end
    return known, preferences
end

-- The value for `replication` when the replica set's own instances change: instances that are gone are left out, new
-- ones added, and whatever else stands there stays. nil: nothing changes.
function vshard.peers(replication, before, after)
    local old, new, entries, changed = {}, {}, {}, false
    for _, replica in pairs(before or {}) do
        old[address_of(replica.uri)] = true
    end
    for _, replica in pairs(after) do
        new[address_of(replica.uri)] = replica.uri
    end
    for _, uri in pairs(type(replication) == 'table' and replication or {replication}) do
        local address = address_of(uri)
        if old[address] and not new[address] then
            changed = true
        else
            table.insert(entries, uri)
            new[address] = nil
        end
    end
    for _, address in ipairs(sorted_keys(new)) do
        if not old[address] then
            table.insert(entries, new[address])
            changed = true
        end
    end
    return changed and entries or nil
end

-- An instance never changes its replica set. Returns what is wrong about that between two configurations; nil: nothing.
function vshard.moved(old, new)
    local homes = {}
    for id, replicaset in pairs(old.sharding) do
        for replica_id in pairs(replicaset.replicas) do
            homes[replica_id] = id
        end
    end
    for id, replicaset in pairs(new.sharding) do
        for _, replica_id in ipairs(sorted_keys(replicaset.replicas)) do
            if homes[replica_id] ~= nil and homes[replica_id] ~= id then
                return ('instance %s belongs to replica set %s, not to %s'):format(replica_id, homes[replica_id], id)
            end
        end
    end
end

-- Whether two configurations name the same masters.
function vshard.same_flags(a, b)
    for id, replicaset in pairs(a.sharding) do
        local other = b.sharding[id]
        for replica_id, replica in pairs(replicaset.replicas) do
            local twin = other and other.replicas[replica_id]
            if twin == nil or (replica.master or nil) ~= (twin.master or nil) then
                return false
            end
        end
    end
    return true
end

-- Puts the masters of one configuration into another, where both know the instance.
function vshard.keep_flags(cfg, old)
    for id, replicaset in pairs(cfg.sharding) do
        local other = old.sharding[id]
        for replica_id, replica in pairs(replicaset.replicas) do
            local twin = other and other.replicas[replica_id]
            if replicaset.master ~= 'auto' then
                replica.master = twin and twin.master or nil
            end
        end
    end
    return cfg
end

rawset(_G, 'tarsec_vshard', vshard)
return true
