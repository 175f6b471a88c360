-- Where this instance replicates from, as far as that is its agent's or its guard's. Evaluated after time.lua and before
-- guard.lua, whose require('tarsec.replication') finds it. What it keeps stands in the guard's state.

local log = require('log')
local platform = require('tarsec.platform')
local time = require('tarsec.time')

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

-- Replicates from this URI alone, or from none. `again`: takes this login where it had another. A setting that somebody
-- has changed since is that person's intention, and stays.
function replication.follow(state, uri, name, again)
    if again and not has_other_login(uri, name) then
        return
    end
    platform.replicate_from(uri ~= '' and {uri} or {})
    state.follows, state.pointed_at = name, uri
end

-- The upstream that its agent told it to follow; nil where a reload of the declarative configuration, which knows
-- nothing of agents, has set other peers since.
function replication.follows(state)
    if state.pointed_at == nil or platform.declared() == nil then
        return state.follows
    end
    local present = sources()
    local first = state.pointed_at ~= '' and state.pointed_at or nil
    return present[1] == first and #present <= 1 and state.follows or nil
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
