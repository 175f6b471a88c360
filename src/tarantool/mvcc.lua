-- A fence ends the transactions that are open, where memtx has its transaction manager. Evaluated after writes.lua.
--
-- With memtx_use_mvcc_engine a transaction may yield. On 2.11, and on 3.x before the mending of tarantool/tarantool#9937, a
-- transaction that wrote before the fence commits after it, however much later, while box.info.ro is true (seen on
-- 2.11.9); and the barrier does not wait for it, because it is not in the WAL's queue yet. So each writing transaction
-- reads one row of the guard's local space, and the fence's barrier writes that row. The transaction manager then aborts
-- every transaction that has read it and has not begun to commit; what has begun is in the queue before the barrier. Vinyl
-- aborts such transactions by itself.

local guard = rawget(_G, 'tarsec_guard')
if guard.mvcc ~= nil or not box.cfg.memtx_use_mvcc_engine then
    return true
end

local ffi = require('ffi')

-- It may be declared already.
pcall(ffi.cdef, 'int64_t box_txn_id(void);')

local C = ffi.C
local session_type, su = box.session.type, box.session.su
local BARRIER_SPACE = '_tarsec_barrier'
-- The barrier's own row is another one.
local OPEN_ROW = 2

local function read_row()
    local space = box.space[BARRIER_SPACE]
    return space ~= nil and space.index[0] ~= nil and space.index[0]:get(OPEN_ROW)
end

-- The transaction that has read it last: rows of one transaction follow each other.
local reader = -1

local function on_write()
    local txn = tonumber(C.box_txn_id())
    -- Rows from elsewhere are nobody's to acknowledge here.
    if txn ~= reader and session_type() ~= 'applier' then
        -- The writer's user has no right to that space, and needs none.
        su('admin', read_row)
        reader = txn
    end
end

-- No transaction may read from one engine and write to another.
local watch = guard.writes.watch(on_write, function(space)
    return space.engine == 'memtx'
end)

local mvcc = {arm = watch.arm, disarm = watch.disarm}

-- Aborts what is open, before it yields; returns behind all commits in flight whether that has succeeded, and with it the
-- barrier has passed. A deletion needs no memory; whether the row is there or not, a transaction that looked for it has
-- read it.
function mvcc.end_open(space, epoch)
    return pcall(space.replace, space, {OPEN_ROW, epoch}) or pcall(space.delete, space, OPEN_ROW)
end

-- Found out here rather than when it is needed.
C.box_txn_id()
guard.mvcc = mvcc
return true
