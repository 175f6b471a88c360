-- What GUARD=strict adds to a write: nanoseconds of the transaction thread for each row, with it and without.
-- Arguments: the guard's sources, what strict adds to them last. Run where no agent is.
local clock = require('clock')

local WRITES, ROUNDS = 10000, 10

for _, source in ipairs({ ... }) do assert(loadstring(source))() end
local guard = tarsec_guard

local function lengthen()
    local deadline = clock.monotonic64() + 60000000000ULL
    local word = guard.state.leased and guard.grant or guard.promote
    assert(word('bench', 1, deadline, 0, 0).refused == nil)
end

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
        for _, strict in ipairs({ true, false }) do
            guard.attach('bench', strict)
            lengthen()
            best[strict] = math.min(best[strict] or math.huge, measure(space, rows))
        end
    end
    return best[false], best[true]
end

local results = setmetatable({}, { __serialize = 'seq' })
guard.attach('bench', false)
lengthen()
box.session.su('admin', function()
    for _, engine in ipairs({ 'memtx', 'vinyl' }) do
        local space = box.schema.space.create('bench_' .. engine, { engine = engine })
        space:create_index('primary')
        for _, rows in ipairs({ 1, 100 }) do
            local without, with = compare(space, rows)
            table.insert(results, { engine, rows, without, with })
        end
    end
end)
return results
