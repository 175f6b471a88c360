-- What a fence waits for: one entry in the WAL behind all commits in flight. Evaluated before guard.lua, whose
-- require('tarsec.barrier') finds it. It keeps nothing.

-- A write to a local space is allowed while read-only, is not replicated, and returns behind all commits in flight,
-- because the WAL is one queue. Tarantool itself has made this space in every instance since 1.10
-- (src/box/lua/upgrade.lua), so there is a barrier before the guard could create a space, for which the instance would
-- have to be writable. Nothing is kept in it: its engine is `blackhole`. Vinyl writes there what it learns of deleted
-- tuples while it compacts.
local barrier = {SPACE = '_vinyl_deferred_delete'}

function barrier.exists()
    return box.space[barrier.SPACE] ~= nil
end

local function keep_old(old)
    return old
end

local function replace(space)
    space:before_replace(keep_old)
    local ok, err = pcall(space.replace, space, {0, 0, {}})
    space:before_replace(nil, keep_old)
    if not ok then
        error(err, 0)
    end
end

-- One entry in the WAL that changes nothing and needs no memory for rows, so that it can be written when memtx_memory
-- is used up: the trigger makes a NOP of the statement. The trigger is gone before anything yields, so that no
-- statement of vinyl's ever meets it. On 2.10 and later a NOP does not join the queue of synchronous transactions. Any
-- other write to a local space joins it where rows wait there, and then 3.8.0 takes no PROMOTE any more, neither its
-- own nor the next master's ("request lsn out of queue range").
function barrier.write_nothing()
    local space = box.space[barrier.SPACE]
    return pcall(box.atomic, replace, space)
end

package.loaded['tarsec.barrier'] = barrier
return true
