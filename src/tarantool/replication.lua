-- Where this instance replicates from, as far as that is its agent's or its guard's. Evaluated after time.lua and before
-- guard.lua, whose require('tarsec.replication') finds it. What it keeps stands in the guard's state.

local log = require('log')
local uri_parser = require('uri')
local platform = require('tarsec.platform')
local time = require('tarsec.time')

local replication = {}

local function sources()
    local present = box.cfg.replication
    if type(present) == 'table' and present.uri == nil then
        return present
    end
    return present ~= nil and {present} or {}
end

-- `host:port` (an IPv6 address in brackets) or `unix/:` and a path, without login and parameters; nil: it names no port.
local function address_of(source)
    if type(source) == 'table' then
        source = source.uri or source[1]
    end
    local parsed = source ~= nil and uri_parser.parse(tostring(source))
    if not parsed or parsed.service == nil then
        return nil
    end
    local form = parsed.unix and 'unix/:%s' or parsed.ipv6 and '[%s]:%s' or '%s:%s'
    if parsed.unix then
        return form:format(parsed.unix)
    end
    return form:format(parsed.host or 'localhost', parsed.service)
end

local function addresses_of(uris, except)
    local found = {}
    for _, source in ipairs(uris) do
        local address = address_of(source)
        if address ~= nil and not except[address] then
            found[address] = true
        end
    end
    return found
end

-- Whether box.cfg.replication is what the agent ordered (REPLICATION=follow), and not what somebody else has set since.
local function is_pointed(state)
    if state.pointed_at == nil then
        return false
    end
    local present = sources()
    local first = state.pointed_at ~= '' and state.pointed_at or nil
    return present[1] == first and #present <= 1
end

-- The answer below, and what it was made of: to parse three addresses takes 20 microseconds.
local known = {}

-- Where others are by the instance's own configuration: its box.cfg.replication as whoever configures it has set that
-- last, and the cluster's configuration in YAML. Not what came from Consul by the agent's hand.
function replication.configured(state)
    local present, declared = box.cfg.replication, platform.declared_uris()
    if known.list ~= nil and known.present == present and known.declared == declared and known.state == state then
        return known.list
    end
    if not state.pointing and not is_pointed(state) then
        state.configured = addresses_of(sources(), state.from_consul or {})
    end
    local all = addresses_of(declared, {})
    for address in pairs(state.configured or {}) do
        all[address] = true
    end
    local list = setmetatable({}, {__serialize = 'seq'})
    for address in pairs(all) do
        table.insert(list, address)
    end
    table.sort(list)
    if not state.pointing then
        known = {present = present, declared = declared, state = state, list = list}
    end
    return list
end

-- Replicates from these, some of which may come from a configuration in Consul (vshard_apply.lua).
function replication.add(state, uris)
    state.from_consul = state.from_consul or {}
    local present = addresses_of(sources(), {})
    for address in pairs(addresses_of(uris, present)) do
        state.from_consul[address] = true
    end
    platform.replicate_from(uris)
end

-- Whether replication is pointed at that address with another login than this one.
local function has_other_login(uri, name)
    local present = sources()
    local only = #present == 1 and present[1]
    return type(only) == 'string' and only ~= uri and only:gsub('^.-@', '') == name
end

-- Replicates from this URI alone, or from none. `again`: takes this login where it had another. A setting that somebody
-- has changed since is that person's intention, and stays.
function replication.follow(state, uri, name, again)
    if again and not has_other_login(uri, name) then
        return
    end
    -- Of the last moment in which it is not the agent's. The change yields, and half of it is neither's.
    replication.configured(state)
    state.pointing = true
    local ok, err = pcall(platform.replicate_from, uri ~= '' and {uri} or {})
    if ok then
        state.follows, state.pointed_at = name, uri
    end
    state.pointing = nil
    if not ok then
        error(err, 0)
    end
end

-- The upstream that its agent told it to follow; nil where a reload of the declarative configuration, which knows
-- nothing of agents, has set other peers since.
function replication.follows(state)
    if state.pointed_at == nil or platform.declared() == nil then
        return state.follows
    end
    return is_pointed(state) and state.follows or nil
end

-- Tarantool makes an instance an orphan, which is read-only, while a change of `replication` is tried (up to 2.10, and
-- under `legacy`). It does so afterwards, too, where the instance is not in step with as many peers as are asked for,
-- also with a peer that has died since, so that the instance may stay an orphan for ever. But the others are to be in
-- step with a master under its lease, not it with them.
function replication.free_master(state)
    if not (state.leased and time.now() < state.times.deadline and platform.is_orphan()) then
        return
    end
    local ok, err = pcall(platform.end_orphanhood)
    if ok then
        log.warn('tarsec: the master was an orphan after a change of box.cfg.replication, and is not any more')
    else
        log.error('tarsec: the master is an orphan: %s', err)
    end
end

package.loaded['tarsec.replication'] = replication
return true
