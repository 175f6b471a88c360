-- Runs a function within every write that a successor ought to have. Evaluated after guard.lua, for what rests on it.

local guard = rawget(_G, 'tarsec_guard')
if guard.writes ~= nil then
    return true
end

local log = require('log')

local on_commit = box.on_commit

local writes = {}

-- Whether a space can hold a write that a successor ought to have. Temporary and local spaces are writable on every
-- replica and never replicated, the guard's own among them. System spaces count: a late truncation or a late change of
-- the schema is a late write.
local function is_replicated(space)
    return space ~= nil and not space.temporary and not space.is_local
        and space.engine ~= 'sysview' and space.engine ~= 'blackhole' and space.engine ~= 'service'
end

local function has(triggers, trigger)
    for _, known in pairs(triggers) do
        if known == trigger then
            return true
        end
    end
    return false
end

local function each_space(f)
    for id, space in pairs(box.space) do
        if type(id) == 'number' then
            f(space)
        end
    end
end

-- A watch that is not armed yet. `on_write` runs in each write to a replicated space for which `is_wanted` says so. A
-- deletion that finds nothing runs nothing, and changes nothing either.
function writes.watch(on_write, is_wanted)
    local watch = {}

    local function arm(space)
        if is_replicated(space) and is_wanted(space) and not has(space:on_replace(), on_write) then
            space:on_replace(on_write)
        end
    end

    -- A space that was just created gets its trigger as soon as it exists for good. Rows that its own transaction put
    -- into it are seen all the same, because its row in _space was.
    local function arm_created(_, new)
        if new ~= nil then
            local id = new[1]
            on_commit(function()
                -- An error here would end the process.
                local ok, err = pcall(function() arm(box.space[id]) end)
                if not ok then
                    log.error('tarsec: writes to space %s are not watched: %s', id, err)
                end
            end)
        end
    end

    function watch.arm()
        each_space(arm)
        local _space = box.space._space
        if not has(_space:on_replace(), arm_created) then
            _space:on_replace(arm_created)
        end
    end

    function watch.disarm()
        each_space(function(space)
            if has(space:on_replace(), on_write) then
                space:on_replace(nil, on_write)
            end
        end)
        local _space = box.space._space
        if has(_space:on_replace(), arm_created) then
            _space:on_replace(nil, arm_created)
        end
    end

    return watch
end

guard.writes = writes
return true
