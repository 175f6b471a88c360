-- Plays a list of words to the guard in this instance, whose clock stands still but for `advance`, and says after each
-- what was answered and what the guard keeps.
local ops = ...
local fiber = require('fiber')

-- Whether everything that goes on by itself has come to rest: the fencing fiber and the barrier.
local function rests()
    local state = tarsec_guard.state
    local over = state.leased and tarsec_guard.now() >= tarsec_guard.deadline()
    local by_hand = not state.leased and not (box.info.ro and box.cfg.read_only)
    local failed = story.full and state.barrier_failure ~= nil and state.barrier_failure.epoch == state.epoch
    local landing = not state.leased and state.barrier_epoch ~= state.epoch and not failed
    return (state.stood_down or not (over or by_hand)) and not landing
end

local function settle()
    tarsec_guard.changed:broadcast()
    for _ = 1, 2000 do
        if rests() then
            return
        end
        fiber.sleep(0.001)
    end
end

local function promote(op)
    return tarsec_guard.promote(op.agent, op.term, op.deadline, op.fenced_term, op.guard_age, op.t0)
end

local words = {
    attach = function(op) return tarsec_guard.attach(op.agent, false) end,
    probe = function(op) return tarsec_guard.probe(op.agent) end,
    remember = function(op) return tarsec_guard.remember(op.agent, op.session) end,
    promote = promote,
    grant = function(op) return tarsec_guard.grant(op.agent, op.term, op.deadline) end,
    fence = function(op) return tarsec_guard.fence(op.agent, 'its agent said so') end,
    observe = function(op) return tarsec_guard.observe(op.agent, op.term) end,
    stand_down = function(op) return tarsec_guard.stand_down(op.agent, op.down) end,
    promise = function(op) return tarsec_guard.promise(op.to, op.term, op.lasting, op.asked) end,
    by_hand = function()
        box.cfg{read_only = false}
        return {}
    end,
    -- From now on a barrier comes back before it has reached the WAL, or is written again.
    memory = function(op)
        story.write_nothing = story.write_nothing or tarsec_guard.write_nothing
        story.full = op.full
        tarsec_guard.write_nothing = op.full and function() return false, 'no memory' end or story.write_nothing
        return {}
    end,
    advance = function(op)
        story.now = story.now + op.ns
        return {}
    end,
    -- A promotion that waits in the queue of synchronous transactions until it is let go on.
    begin_promotion = function(op)
        story.gate, story.done = fiber.channel(1), nil
        fiber.create(function() story.done = promote(op) end)
        if story.done ~= nil then
            story.gate = nil
        end
        return story.done or {waits = true}
    end,
    end_promotion = function()
        story.gate:put(true)
        story.gate = nil
        while story.done == nil do
            fiber.sleep(0.001)
        end
        return story.done
    end,
}

local answers = {}
for _, op in ipairs(ops) do
    local answer = words[op.word](op)
    settle()
    table.insert(answers, {
        refused = answer.refused,
        superseded_by = answer.superseded_by,
        waits = answer.waits,
        read_only = box.info.ro,
        guard = tarsec_guard.probe(tarsec_guard.state.agent).probe.guard,
    })
end
return answers
