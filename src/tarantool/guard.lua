-- tarsec's guard: keeps this instance read-only except under a lease, whatever becomes of the agent.
--
-- What differs between Tarantool's versions stands in platform.lua, what the instance says of itself in look.lua, what
-- a guard promises in promises.lua, its clock in time.lua, its barrier in barrier.lua, the instance's upstreams in
-- replication.lua; these are evaluated first.
-- One global table, `tarsec_guard`. The agent evaluates this file at every attach; a guard of the same version
-- stays as it is, an older one hands its state over. All times are those of time.lua, never fiber.clock(), which stands
-- still within a turn of the event loop.

local VERSION = 13

local fiber = require('fiber')
local log = require('log')
local barrier = require('tarsec.barrier')
local look = require('tarsec.look')
local platform = require('tarsec.platform')
local promises = require('tarsec.promises')
local replication = require('tarsec.replication')
local time = require('tarsec.time')

if type(box.cfg) == 'function' then
    error('tarsec: box.cfg{} has not been called yet')
end

local previous = rawget(_G, 'tarsec_guard')
if previous ~= nil and previous.version == VERSION then
    return true
end
-- The triggers of the guard before; the agent that attaches next says whether new ones take their place.
if previous ~= nil and previous.strict ~= nil then
    previous.strict.disarm()
end

-- State that outlives an agent, and this version of the file.
local state = previous ~= nil and previous.state or {
    agent = nil,         -- the agent that attached last, and owns this guard
    session = nil,       -- its Consul session, for the agent that comes after it
    term = 0,            -- the highest term this instance was ever asked to serve or was told of; a number
    agent_term = 0,      -- the highest that its own agent named
    leased = false,      -- promoted and not fenced since
    epoch = 0,           -- grows with every promotion and fence: a barrier counts for its own epoch only
    promoting = 0,       -- promotions that have yielded and will go on
    barrier_epoch = -1,  -- the epoch whose last commits are known to have landed
    dirty = not box.info.ro, -- writable at some time that it knows of, so that there may be commits to wait for
    fences = 0,          -- times the guard itself made the instance read-only
    unleased = 0,        -- of these: because somebody made it writable without a lease
    last_fence = nil,    -- why
    stood_down = false,  -- a pause: neither the lease's end nor another hand concerns this guard until it stands up
    base = nil,          -- the vclock in the moment of the first promotion in its term: {term, vclock}
}
-- A guard of before had heard of its term by its agent, or within the same reach. A long integer would be no number of Lua.
state.term = tonumber(state.term)
state.agent_term = state.agent_term or state.term
local times = time.times_of(state)

-- `outlived`: triggers of the guard before, which go once this one's are there.
local guard = {version = VERSION, state = state, outlived = previous and previous.mvcc, write_nothing = barrier.write_nothing}

-- How long the fencing fiber sleeps at most while nothing can happen.
local IDLE_S = 0.5
-- And while a lease runs: fibers sleep by a clock that stands still while the machine is suspended.
local LEASED_NAP_S = 0.05
-- The longest a fence waits for its barrier; the fiber behind it goes on.
local BARRIER_PATIENCE_S = 5
-- The longest a promotion waits for the synchronous queue: less than any deadline that an agent sets for it.
local QUEUE_PATIENCE_S = 0.5
-- How often the queue is looked at for rows that wait for their quorum. Nothing tells when the last one is over.
local QUEUE_LOOK_S = 0.005
-- With GUARD=strict a commit that lands after the lease kills the process, so that the fence comes earlier than the
-- lease's end by what a commit in flight takes to land on a disk that is busy.
local LANDING_S = 0.1
-- No lease is longer (a minute, and something for the way): a deadline beyond that comes from another clock.
local LEASE_MAX_NS = 61 * 1000000000ULL

local function left_s()
    local now = time.now()
    if now >= times.deadline then
        return 0
    end
    return tonumber(times.deadline - now) / 1e9
end

-- New fibers run as admin, whichever user's request started them, so the agent's user needs no right to this space.
local function as_admin(f)
    local done = fiber.channel(1)
    fiber.create(function()
        local ok, result = pcall(f)
        done:put({ok = ok, result = result})
    end)
    local ok, answer = pcall(done.get, done, QUEUE_PATIENCE_S) -- raises where the caller's fiber is cancelled
    return ok and answer or nil
end

-- Triggers on every space, where the instance or its agent asks for them: mvcc.lua and strict.lua have been evaluated
-- before. They go again with a guard of another version or another agent's GUARD.
function guard.set_triggers(strict)
    if guard.mvcc == nil and guard.strict == nil then
        return
    end
    local done = as_admin(function()
        if guard.mvcc ~= nil then
            guard.mvcc.arm()
        end
        if guard.outlived ~= nil then
            guard.outlived.disarm()
            guard.outlived = nil
        end
        if strict then
            guard.strict.arm()
        elseif guard.strict ~= nil then
            guard.strict.disarm()
        end
    end)
    if done == nil or not done.ok then
        error('tarsec: could not set the triggers that GUARD=' .. (strict and 'strict' or 'lease') .. ' needs: '
            .. tostring(done and done.result or 'no answer'), 0)
    end
    guard.is_strict = strict
    guard.changed:broadcast()
end

-- Why there can be no barrier now; nil: there is no need, or one is under way and may hang.
local function barrier_failure()
    if state.leased or guard.passing or state.barrier_epoch == state.epoch then
        return nil
    end
    if not barrier.exists() then
        return ('there is no space %s'):format(barrier.SPACE)
    end
    local failure = state.barrier_failure
    return failure and failure.epoch == state.epoch and failure.why or nil
end

-- Passes behind everything in the WAL's queue, and behind the instance's own synchronous transactions, which are not
-- over before their quorum has confirmed them or their time is up. Transactions that waited for room in their queue
-- join the WAL's only then, so the loop goes round until it waited for nothing.
local function pass_queues(epoch)
    while true do
        local ok, err = guard.write_nothing()
        -- A write that the WAL refused has come back behind everything before it, too.
        if not ok and not (type(err) == 'cdata' and err.code == box.error.WAL_IO) then
            return false, err
        end
        local waited = false
        while state.dirty and state.epoch == epoch and platform.own_rows_wait() do
            waited = true
            fiber.sleep(QUEUE_LOOK_S)
        end
        if not waited then
            return true
        end
    end
end

local function pass_barrier()
    local epoch = state.epoch
    local ok, err = true
    if guard.mvcc ~= nil then
        -- Nothing has passed while transactions may be open, whatever can be written beside them.
        ok, err = guard.mvcc.end_open()
    end
    if ok then
        ok, err = pass_queues(epoch)
    end
    if not ok then
        local why = 'could not write the barrier: ' .. tostring(err)
        local known = state.barrier_failure
        if known == nil or known.epoch ~= epoch or known.why ~= why then
            log.error('tarsec: %s', why)
        end
        state.barrier_failure = {epoch = epoch, why = why}
        return
    end
    if box.info.ro and not state.leased and state.epoch == epoch then
        state.barrier_epoch = epoch
    end
end

local function create_spaces()
    if guard.mvcc ~= nil then
        guard.mvcc.create_space()
    end
    if not box.info.ro and platform.is_to_lead_joins() then
        platform.lead_joins()
        state.named_term = state.term
    end
end

-- `complete`: until an agent has attached, files that a fence needs may not have been evaluated yet (mvcc.lua).
local function has_landed()
    return guard.complete == true and not state.leased and state.barrier_epoch == state.epoch
end

-- The moment since when nothing can be written: a reload of the configuration, or a hand, may have made it read-only
-- first.
local function read_only_since()
    local since = guard.read_only_since
    local is_of_now = box.info.ro and since ~= nil and (times.writable_at == nil or since > times.writable_at)
    return is_of_now and since or time.now()
end

local function fence(why)
    times.fenced_at = (state.leased or not box.info.ro) and read_only_since() or times.fenced_at
    state.leased = false
    state.stood_down = false
    times.deadline = 0ULL
    state.deadline = 0ULL
    -- A promotion that has yielded sees that its epoch is over.
    state.epoch = state.epoch + 1
    platform.end_claim()
    if box.info.ro and platform.is_set_read_only() then
        if state.barrier_epoch == state.epoch - 1 then
            -- Nothing was written since the last barrier.
            state.barrier_epoch = state.epoch
        end
    else
        platform.set_read_only(true)
        state.dirty = true
        state.fences = state.fences + 1
        state.last_fence = why
        log.warn('tarsec: fenced, read-only from now on: %s', why)
    end
    -- In the turn of the switch, so that none of them commits after it.
    if guard.mvcc ~= nil then
        guard.mvcc.end_open()
    end
end

local function needs_barrier()
    return guard.complete and not state.leased and state.barrier_epoch ~= state.epoch and barrier.exists()
end

-- In a fiber of its own: behind a disk that hangs, the barrier would keep the fencing fiber from the next lease's end.
local function start_barrier()
    if needs_barrier() and not guard.passing then
        guard.passing = true
        fiber.create(function()
            local ok, err = pcall(pass_barrier)
            guard.passing = false
            guard.changed:broadcast()
            if not ok then
                log.error('tarsec: the barrier stumbled: %s', err)
            end
        end)
    end
end

-- The first promotion makes them, and where its memory is used up every grant tries again.
local function start_spaces()
    local named = state.named_term == state.term or not platform.is_to_lead_joins()
    if (guard.mvcc == nil or guard.mvcc.has_space()) and named then
        return
    end
    fiber.create(function()
        local ok, err = pcall(create_spaces)
        local why = not ok and ('could not create the spaces of the guard: %s'):format(tostring(err)) or nil
        if why ~= nil and why ~= state.space_failure then
            log.error('tarsec: %s', why)
        end
        state.space_failure = why
    end)
end

-- One turn of the fencing fiber.
local function watch()
    if state.stood_down then
        guard.changed:wait(IDLE_S)
        return
    end
    if state.leased then
        local seconds = left_s() - (guard.is_strict and LANDING_S or 0)
        if seconds <= 0 then
            fence('its lease ended')
        else
            replication.free_master(state)
            guard.changed:wait(math.min(seconds, LEASED_NAP_S))
            return
        end
    elseif not (box.info.ro and platform.is_set_read_only()) then
        state.unleased = state.unleased + 1
        fence('somebody made it writable without a lease')
    end
    start_barrier()
    -- Wakes at once when the instance turns writable, by whatever hand.
    pcall(box.ctl.wait_rw, IDLE_S)
    -- An operator who kills this fiber, or stops the instance, is not to be waited out.
    fiber.testcancel()
end

local function probe()
    replication.free_master(state)
    local word = look.at_instance()
    word.configured = replication.configured(state)
    word.guard = {
        session = state.session,
        -- As an integer on the wire, however long.
        term = 0ULL + state.term,
        deadline = times.deadline,
        clock = time.CLOCK,
        leased = state.leased,
        landed = has_landed(),
        -- A promotion that has yielded may still go on.
        promoting = state.promoting > 0 or platform.is_claiming(),
        barrier = barrier.exists(),
        barrier_failure = barrier_failure(),
        follows = replication.follows(state),
        fences = state.fences,
        unleased = state.unleased,
        last_fence = state.last_fence,
        fenced_ago_ns = times.fenced_at and time.now() - times.fenced_at,
        writable_ago_ns = state.leased and times.writable_at and time.now() - times.writable_at or nil,
        promise = promises.now(times),
        age_ns = promises.age_ns(times),
        stood_down = state.stood_down or false,
        base = state.base and state.base.term == state.term and state.base.vclock or nil,
    }
    return word
end

-- Every reply carries the whole probe, so that each word exchanged with the guard also refreshes what is known.
local function answer(agent, act)
    guard.keep_watching()
    if state.agent == nil then
        error('tarsec: no agent has attached to this guard yet', 0)
    end
    if state.agent ~= agent then
        return {superseded_by = state.agent}
    end
    local refused = act and act()
    local word = {refused = refused, probe = probe()}
    guard.answered:broadcast()
    return word
end

-- The agent that attached last owns the guard, and its settings count.
function guard.attach(agent, strict)
    state.agent = agent
    return answer(agent, function()
        guard.set_triggers(strict == true)
        guard.complete = true
        start_barrier()
    end)
end

function guard.probe(agent)
    return answer(agent)
end

-- The agent has its session written down before it takes the lock with it. Should that agent die in between, the next
-- one knows whose lock that is.
function guard.remember(agent, session)
    return answer(agent, function()
        state.session = session
    end)
end

local function useless_deadline(deadline)
    local now = time.now()
    if now >= deadline then
        return 'that lease ended before word of it arrived'
    end
    if deadline > now + LEASE_MAX_NS then
        return 'no lease is that long: its deadline comes from another clock'
    end
end

-- May yield. Until it has ended the instance does not count as fenced.
local function take_queue(term)
    state.promoting = state.promoting + 1
    local done = as_admin(function()
        guard.taking = true
        local ok, err = pcall(guard.take_synchro_queue, term)
        guard.taking = false
        if not ok then
            error(err, 0)
        end
    end)
    state.promoting = state.promoting - 1
    local failed = done == nil or not done.ok
    return failed and 'could not take the synchronous queue: ' .. tostring(done and done.result or 'no answer') or nil
end

-- The queue is the master's, also where somebody gave it away meanwhile. The grant that looks waits for nothing of
-- this.
local function start_taking_queue(term)
    if guard.taking or not guard.lacks_queue() then
        return
    end
    log.warn('tarsec: the queue of synchronous transactions is not the master\'s, it is taken again')
    fiber.create(function()
        local failure = take_queue(term)
        if failure ~= nil then
            log.error('tarsec: %s', failure)
        end
    end)
end

-- `fenced_term`, `needed_age_ns`, `t0`: what bounds promises, see promises.lua.
function guard.promote(agent, term, deadline, fenced_term, needed_age_ns, t0)
    term = tonumber(term)
    return answer(agent, function()
        if term < state.term then
            return ('term %d is over, this instance has seen term %d'):format(term, state.term)
        end
        -- No promise is made while a promotion has yielded, so this need not be looked at again.
        local bound = promises.forbid_promotion(times, fenced_term or 0, needed_age_ns or 0, t0 or 0ULL)
        if bound ~= nil then
            return bound
        end
        local useless = useless_deadline(deadline)
        if useless ~= nil then
            return useless
        end
        if not (state.leased and not box.info.ro) then
            if guard.taking then
                return 'the synchronous queue is still being taken'
            end
            local epoch = state.epoch
            local failure = take_queue(term)
            if failure ~= nil then return failure end
            -- The claim may have waited: look again, and from here to the switch nothing yields.
            if state.agent ~= agent or term < state.term or state.epoch ~= epoch then
                return 'another word came while the synchronous queue was taken'
            end
            if time.now() >= deadline then
                return 'the lease ended while the synchronous queue was taken'
            end
            state.epoch = state.epoch + 1
        end
        if state.base == nil or state.base.term ~= term then
            state.base = {term = term, vclock = look.vclock_of(box.info.vclock)}
        end
        state.term, state.agent_term = term, term
        times.deadline = 0ULL + deadline
        state.leased = true
        state.dirty = true
        times.promise = nil
        local was_ro = box.info.ro
        platform.set_read_only(false)
        replication.free_master(state)
        times.writable_at = (was_ro or times.writable_at == nil) and time.now() or times.writable_at
        if box.info.ro then
            fence('its promotion had no effect')
            return 'it stays read-only: ' .. tostring(box.info.ro_reason or box.info.status)
        end
        guard.changed:broadcast()
        start_spaces()
    end)
end

-- Lengthens a lease that runs; never starts one.
function guard.grant(agent, term, deadline)
    term = tonumber(term)
    return answer(agent, function()
        if term ~= state.term then
            return ('the lease is for term %d, this instance is at term %d'):format(term, state.term)
        end
        if not state.leased then
            return 'no lease is running here'
        end
        local useless = useless_deadline(deadline)
        if useless ~= nil then
            return useless
        end
        if deadline > times.deadline then
            times.deadline = 0ULL + deadline
            guard.changed:broadcast()
        end
        start_spaces()
        start_taking_queue(term)
    end)
end

-- Makes the instance read-only and waits until its last commits have landed.
function guard.fence(agent, why)
    return answer(agent, function()
        fence(why)
        guard.changed:broadcast()
        start_barrier()
        local now = time.now()
        local give_up_at = now + BARRIER_PATIENCE_S * 1000000000ULL
        while needs_barrier() and barrier_failure() == nil and now < give_up_at do
            guard.changed:wait(tonumber(give_up_at - now) / 1e9)
            now = time.now()
        end
    end)
end

-- R6 and R3: asked by the agent of another instance, over a connection of its own; promises.lua says what is answered.
-- `vclock` is missing from the question of an agent of an earlier version. Does not yield.
function guard.promise(to, term, lasting_ns, asked, vclock)
    guard.keep_watching()
    return promises.answer(state, has_landed(), {
        to = to, term = term, lasting_ns = lasting_ns, asked = asked, vclock = vclock,
    })
end

-- A pause, and its end. A guard that stands up while no lease runs fences at once. Only a guard that its agent has
-- promoted stands down; whatever fences it for its agent ends that.
function guard.stand_down(agent, down)
    return answer(agent, function()
        if down and not state.leased then
            return 'it is not master here'
        end
        if not down and state.stood_down and left_s() == 0 then
            fence('its lease ended during a pause')
            start_barrier()
        end
        state.stood_down = down
        guard.changed:broadcast()
    end)
end

-- A term that another instance serves: nothing below it is ever served here again.
function guard.observe(agent, term)
    term = tonumber(term)
    return answer(agent, function()
        state.agent_term = math.max(state.agent_term, term)
        if term > state.term and not state.leased then
            state.term = term
        end
    end)
end

function guard.follow(agent, uri, name, again)
    return answer(agent, function()
        replication.follow(state, uri, name, again)
    end)
end

-- For an application that stamps its writes: the term under which this instance is writable, until when, and the time
-- now, in nanoseconds of the same clock. None of them yields.
function guard.term()
    return state.leased and state.term or nil
end

function guard.deadline()
    return times.deadline
end

function guard.now()
    return time.now()
end

guard.changed = fiber.cond()
platform.on_status(function() guard.changed:broadcast() end)
guard.answered = fiber.cond() -- its agent gets an answer

-- Fences until a later guard takes over. Code that removes the global, or kills this fiber, has not removed the rule.
local function keep_fencing()
    fiber.name('tarsec_guard')
    while true do
        local current = rawget(_G, 'tarsec_guard')
        if type(current) ~= 'table' or current.state == nil then
            rawset(_G, 'tarsec_guard', guard)
        elseif current ~= guard then
            return
        end
        local ok, err = pcall(watch)
        if not ok and guard.is_stopping then
            -- From 3.0 on an instance that stops waits for every fiber to end.
            fence('its instance is being stopped')
            return
        end
        if not ok then
            log.error('tarsec: the guard stumbled and goes on: %s', err)
            if not pcall(fiber.sleep, 0.01) then
                -- Killed: nothing in this fiber may wait any more.
                guard.keep_watching()
                return
            end
        end
    end
end

function guard.keep_watching()
    local watcher = guard.watcher
    if watcher == nil or watcher:status() == 'dead' or watcher:id() == fiber.self():id() then
        guard.watcher = fiber.new(keep_fencing)
    end
end

rawset(_G, 'tarsec_guard', guard)
guard.keep_watching()
return true
