-- What the guard adds to a write: nanoseconds of the transaction thread for each row, without triggers, with those of
-- GUARD=lease (which has some where memtx has its transaction manager) and with those of GUARD=strict. Arguments: the
-- guard's sources, those of strict last. Run where no agent is.
local clock = require('clock')

local WRITES, ROUNDS = 10000, 10

for _, source in ipairs({ ... }) do assert(loadstring(source))() end
local guard = tarsec_guard

local function lengthen()
    local deadline = guard.now() + 60000000000ULL
    local word = guard.state.leased and guard.grant or guard.promote
    assert(word('bench', 1, deadline, 0, 0).refused == nil)
end

local arm = {
    lease = function() guard.attach('bench', false) end,
    strict = function() guard.attach('bench', true) end,
    none = function()
        guard.attach('bench', false)
        if guard.mvcc ~= nil then guard.mvcc.disarm() end
    end,
}

local function measure(space, rows)
    collectgarbage('collect')
    local start = clock.thread64()
    for first = 1, WRITES, rows do
        box.begin()
        for id = first, first + rows - 1 do space:replace({ id % 1000, id }) end
        box.commit()
    end
    return tonumber(clock.thread64() - start) / WRITES
end

-- The best of many rounds, in turns: whatever else the machine does only ever adds.
local function compare(space, rows)
    local best = {}
    for _ = 1, ROUNDS do
        for triggers, set in pairs(arm) do
            set()
            lengthen()
            best[triggers] = math.min(best[triggers] or math.huge, measure(space, rows))
        end
    end
    return best
end

local results = setmetatable({}, { __serialize = 'seq' })
guard.attach('bench', false)
lengthen()
box.session.su('admin', function()
    for _, engine in ipairs({ 'memtx', 'vinyl' }) do
        local space = box.schema.space.create('bench_' .. engine, { engine = engine })
        space:create_index('primary')
        for _, rows in ipairs({ 1, 100 }) do
            local best = compare(space, rows)
            table.insert(results, { engine, rows, best.none, best.lease, best.strict })
        end
    end
end)
return guard.mvcc ~= nil, results
