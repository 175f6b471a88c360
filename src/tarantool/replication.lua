-- Where this instance replicates from, as far as that is its agent's or its guard's. Evaluated after platform.lua and before
-- guard.lua, whose require('tarsec.replication') finds it. What it keeps stands in the guard's state.

local clock = require('clock')
local log = require('log')
local platform = require('tarsec.platform')

local replication = {}

local function sources()
    local present = box.cfg.replication
    if type(present) == 'table' then
        return present
    end
    return present ~= nil and {present} or {}
end

-- Whether replication is pointed at that address with another login than this one.
local function has_other_login(uri, name)
    local present = sources()
    local only = #present == 1 and present[1]
    return type(only) == 'string' and only ~= uri and only:gsub('^.-@', '') == name
end

-- Replicate from this URI alone, or from nobody. `again`: with this login where it was another. Whatever else has been set
-- since is somebody's intention.
function replication.follow(state, uri, name, again)
    if again and not has_other_login(uri, name) then
        return
    end
    platform.replicate_from(uri ~= '' and {uri} or {})
    state.follows, state.pointed_at = name, uri
end

-- Whom it was told to follow; nil where that is no longer so because a reload of the declarative configuration, which knows
-- nothing of agents, has set other peers.
function replication.follows(state)
    if state.pointed_at == nil or platform.declared() == nil then
        return state.follows
    end
    local present = sources()
    local first = state.pointed_at ~= '' and state.pointed_at or nil
    return present[1] == first and #present <= 1 and state.follows or nil
end

-- Tarantool makes an instance an orphan, which is read-only, while a change of `replication` is tried (up to 2.10, and under
-- `legacy`), and afterwards where it is not in step with as many peers as are asked for: also with one that has died since,
-- so that it may stay an orphan for ever. A master under its lease is whom the others are to be in step with.
function replication.free_master(state)
    if not (state.leased and clock.monotonic64() < state.deadline and platform.is_orphan()) then
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
