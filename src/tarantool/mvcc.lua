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
    if index ~= nil then
        index:get(ROW)
    end
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

local mvcc = {disarm = watch.disarm}

-- Where the instance is writable, also creates the space; the other members get it by replication, empty.
function mvcc.arm()
    if not box.info.ro and open_index() == nil then
        local space = box.schema.space.create(OPEN_SPACE, {temporary = true, if_not_exists = true})
        space:create_index('primary', {if_not_exists = true})
    end
    watch.arm()
end

function mvcc.is_armed()
    return open_index() ~= nil
end

local function write_row()
    local space = box.space[OPEN_SPACE]
    if open_index() == nil or pcall(space.replace, space, {ROW, 0}) then
        return true
    end
    -- That needs no memory. Whether the row is there or not, a transaction that looked for it has read it.
    return pcall(space.delete, space, ROW)
end

-- Aborts the transactions that have written and not begun to commit; false and why where that failed. Does not yield.
function mvcc.end_open()
    return su('admin', write_row)
end

-- Found out here rather than when it is needed.
C.box_txn_id()
guard.mvcc = mvcc
return true
