-- The queue of synchronous transactions: a promotion takes it over. Evaluated after guard.lua.
--
-- Every row that waits in the queue here is confirmed and none is rolled back, whichever members have it: the
-- predecessor may have acknowledged it on the strength of our own copy, and its confirmation died with it. A client
-- whose row was not acknowledged was told nothing, or that the outcome is unknown. Raft's leaders do the same with what
-- is in their log.

local guard = rawget(_G, 'tarsec_guard')
if guard.take_synchro_queue ~= nil then
    return true
end

local log = require('log')
local barrier = require('tarsec.barrier')
local platform = require('tarsec.platform')

-- On 2.6 the queue is waited for for twice this time, in which confirmations under way arrive and the last rows land in
-- the WAL: a row that has not landed by then is rolled back.
local CLEARING_TIMEOUT_S = 0.05
-- A claim that takes longer is given up, and asked for anew: just before the guard gives the promotion up.
local CLAIM_PATIENCE_S = 0.45

-- 2.6 does not say whether rows wait in the queue, but while another instance's do, no local write is accepted, not
-- even to a local space.
local function holds_rows_of_another()
    local ok, err = guard.write_nothing()
    return not ok and type(err) == 'cdata' and err.code == box.error.UNCOMMITTED_FOREIGN_SYNC_TXNS
end

-- 2.6.0 confirms rows that as many instances have as the quorum asks for and rolls the rest back, acknowledged or not;
-- a member that is not connected yet, or has not told yet what it has, counts as a member that has nothing. So the
-- quorum is one while the queue is cleared. Neither setting is touched while rows of our own wait: it would end their
-- wait, too.
local function clear_queue()
    if not platform.has_synchronous_space() then
        return
    end
    local settings = {replication_synchro_timeout = CLEARING_TIMEOUT_S}
    if barrier.exists() then
        if not holds_rows_of_another() then
            return
        end
        settings.replication_synchro_quorum = 1
        log.info('tarsec: confirming the synchronous rows of the master before')
    end
    platform.with_settings(settings, box.ctl.clear_synchro_queue)
end

-- Whether the instance would have to claim the queue to write to its synchronous spaces. From 2.10 on the queue has an
-- owner, and only the owner's synchronous rows are accepted; box.ctl.demote() and the first synchronous space leave it
-- without an owner.
function guard.lacks_queue()
    local owner = platform.queue_owner()
    if owner == 0 then
        return platform.has_synchronous_space()
    end
    return owner ~= nil and not platform.owns_queue()
end

-- Before 2.10 once for each term: an instance that is promoted again in its own term has the queue, and rows of its own
-- may wait there. Later versions say whose the queue is.
function guard.take_synchro_queue(term)
    if platform.queue_owner() ~= nil then
        if guard.lacks_queue() then
            platform.claim_queue(CLAIM_PATIENCE_S)
        end
    elseif guard.state.queue_term ~= term then
        if box.ctl.clear_synchro_queue ~= nil then
            clear_queue()
        end
        guard.state.queue_term = term
    end
end

return true
