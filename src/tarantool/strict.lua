-- GUARD=strict: every write is looked at twice, when it begins and when it has landed in the WAL.
--
-- The guard's fiber fences when the lease ends, but a process that was frozen may run writes that were queued in it
-- before any fiber of its own gets the processor. Code that runs within each write cannot come too late: a trigger that
-- refuses a write past the deadline, and a trigger behind the WAL and before the acknowledgement that kills the process
-- rather than let a late write be acknowledged. Evaluated after writes.lua, only where it is asked for.

local guard = rawget(_G, 'tarsec_guard')
if guard.strict ~= nil then
    return true
end

local ffi = require('ffi')
local time = require('tarsec.time')

-- Both may be declared already.
pcall(ffi.cdef, 'int kill(int pid, int sig);')
pcall(ffi.cdef, 'int64_t box_txn_id(void);')

local C = ffi.C
local state = guard.state
local times = state.times
local now, session_type, on_commit = time.now, box.session.type, box.on_commit
local pid = box.info.pid

local SIGKILL = 9
-- Clients know this code, and some of them know these words.
local READ_ONLY = "Can't modify data because this instance is in read-only mode. tarsec: "

-- Not os.exit(): the code that it runs, and the threads that go on meanwhile, may still acknowledge.
local function kill_this_process()
    C.kill(pid, SIGKILL)
end

-- What the writes of one reign have in common. A commit counts by the lease under which it began, also when the
-- instance was fenced meanwhile, or fenced and promoted again.
local function begin_reign()
    local reign = {epoch = state.epoch, ends = times.deadline}
    function reign.check()
        local goes_on = reign.epoch == state.epoch
        -- In a pause no lease bounds the instance.
        if goes_on and state.stood_down then
            return
        end
        local ends = goes_on and times.deadline or reign.ends
        if now() >= ends then
            kill_this_process()
        end
    end
    return reign
end

local reign = begin_reign()
-- The transaction that was registered last: rows of one transaction follow each other.
local checked = -1

local function refuse()
    local why = state.leased and 'its lease ended, and what was queued comes too late' or 'no lease is running'
    box.error({code = box.error.READONLY, reason = READ_ONLY .. why})
end

-- Whether another guard has come since: these triggers stay silent until they are removed.
local function is_over()
    local current = rawget(_G, 'tarsec_guard')
    return current ~= guard and type(current) == 'table' and current.state ~= nil
end

local function check_write()
    -- Rows from other members are not acknowledged here; in a pause there is no lease.
    if is_over() or state.stood_down or session_type() == 'applier' then
        return
    end
    if not state.leased or now() >= times.deadline then
        refuse()
    end
    if reign.epoch ~= state.epoch then
        reign = begin_reign()
    end
    reign.ends = times.deadline
    local txn = tonumber(C.box_txn_id())
    if txn ~= checked then
        checked = txn
        on_commit(reign.check)
    end
end

local watch = guard.writes.watch(check_write, function()
    return true
end)
local strict = {check_write = check_write, disarm = watch.disarm}

function strict.arm()
    -- A process that may not signal itself is found out here rather than when it is needed.
    assert(C.kill(pid, 0) == 0, 'this process cannot signal itself')
    C.box_txn_id()
    watch.arm()
end

guard.strict = strict
return true
