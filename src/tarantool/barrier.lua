-- What a fence waits for: one entry in the WAL behind all commits in flight. Evaluated before guard.lua, whose
-- require('tarsec.barrier') finds it. It keeps nothing.

-- A local space: a write to it is allowed while read-only, is not replicated, and returns behind all commits in
-- flight, because the WAL is one queue.
local barrier = {SPACE = '_tarsec_barrier'}

-- A fence may have come between the space and its index, so both are looked for.
function barrier.exists()
    local space = box.space[barrier.SPACE]
    return space ~= nil and space.index[0] ~= nil
end

-- None can be made while read-only.
function barrier.create()
    if not barrier.exists() and not box.info.ro then
        local space = box.schema.space.create(barrier.SPACE, {is_local = true, if_not_exists = true})
        space:create_index('primary', {if_not_exists = true})
    end
end

local function keep_old(old)
    return old
end

-- A guard before this one may have left a trigger of its own there.
local function keeps_old(space)
    for _, trigger in pairs(space:before_replace()) do
        if trigger == keep_old then
            return true
        end
    end
    return false
end

-- One entry in the WAL that changes nothing and needs no memory for rows, so that it can be written when memtx_memory is
-- used up: the trigger makes a NOP of the statement. On 2.10 and later a NOP does not join the queue of synchronous
-- transactions. Any other write to a local space does where rows wait there, and then 3.8.0 takes no PROMOTE any more,
-- neither its own nor the next master's ("request lsn out of queue range").
function barrier.write_nothing()
    local space = box.space[barrier.SPACE]
    if not keeps_old(space) then
        space:before_replace(keep_old)
    end
    return pcall(space.replace, space, {1})
end

package.loaded['tarsec.barrier'] = barrier
return true
