-- A fence ends the transactions that are open, where memtx has its transaction manager. Evaluated after writes.lua.
--
-- With memtx_use_mvcc_engine a transaction may yield. On 2.11, and on 3.x before the mending of tarantool/tarantool#9937, a
-- transaction that wrote before the fence commits after it, however much later, while box.info.ro is true (seen on
-- 2.11.9); and the barrier does not wait for it, because it is not in the WAL's queue yet. So each writing transaction
-- reads one row of a space of the guard's, and the fence writes that row. The transaction manager then aborts every
-- transaction that has read it and has not begun to commit; what has begun is in the queue before the barrier. The space
-- is temporary, so that the fence's write goes neither to the WAL nor into the queue of synchronous transactions. Vinyl
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
local OPEN_SPACE = '_tarsec_open'
local ROW = 1

local function open_index()
    local space = box.space[OPEN_SPACE]
    return space ~= nil and space.index[0] or nil
end

local function read_row()
    local index = open_index()
    if index == nil then
        return false
    end
    index:get(ROW)
    return true
end

-- The transaction that has read it last: rows of one transaction follow each other.
local reader = -1

local function on_write()
    local txn = tonumber(C.box_txn_id())
    -- Rows from other members are not acknowledged here.
    if txn ~= reader and session_type() ~= 'applier' then
        -- The writer's user has no right to that space, and needs none.
        if su('admin', read_row) then
            reader = txn
        end
    end
end

-- No transaction may read from one engine and write to another, so only memtx spaces are watched.
local watch = guard.writes.watch(on_write, function(space)
    return space.engine == 'memtx'
end)

local mvcc = {arm = watch.arm, disarm = watch.disarm}

-- Called where the instance is writable; the other members get the space by replication, empty.
function mvcc.create_space()
    if box.info.ro then
        return
    end
    if open_index() == nil then
        local space = box.schema.space.create(OPEN_SPACE, {temporary = true, if_not_exists = true})
        space:create_index('primary', {if_not_exists = true})
    end
    -- The row is there beforehand: a fence that finds no memory for it can still delete it.
    if open_index():get(ROW) == nil then
        box.space[OPEN_SPACE]:replace({ROW, 0})
    end
end

function mvcc.has_space()
    return open_index() ~= nil and open_index():get(ROW) ~= nil
end

-- The epoch of the fence that has ended what was open.
local ended_epoch = nil

-- While the instance is read-only no transaction begins to write. The statements are those of all transactions that are
-- open.
local function has_none_open()
    local ok, open = pcall(function() return box.stat.memtx.tx().txn.statements.total end)
    return ok and open == 0
end

local function write_row()
    local state, space = guard.state, box.space[OPEN_SPACE]
    if ended_epoch == state.epoch then
        return true
    end
    if open_index() == nil then
        -- No transaction has read anything. A transaction of before the guard may have written all the same, and be open.
        return has_none_open(), 'transactions of a time before the guard may be open'
    end
    local ok, err = pcall(space.replace, space, {ROW, 0})
    if not ok then
        -- A deletion needs no memory, and ends nothing where the row is missing.
        local _, row = pcall(space.delete, space, ROW)
        ok = row ~= nil and type(row) ~= 'string' and box.tuple.is(row)
    end
    if ok then
        ended_epoch = state.epoch
    end
    return ok, err
end

-- Aborts the transactions that have written and not begun to commit; false and why where that failed. Does not yield.
function mvcc.end_open()
    return su('admin', write_row)
end

-- A missing function is found out here rather than when it is needed.
C.box_txn_id()
guard.mvcc = mvcc
return true
