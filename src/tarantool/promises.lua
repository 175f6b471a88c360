-- What the guard promises to others, and what such a promise forbids here (R6, R3 without a record). Evaluated after look.lua
-- and before guard.lua, whose require('tarsec.promises') finds it. It keeps nothing: the promise is among the guard's times.
-- Nothing here yields.

local look = require('tarsec.look')
local time = require('tarsec.time')

local promises = {}

-- No promise is longer: a lease and the margin of a successor, which must not count on this instance's clock.
local PROMISE_MAX_NS = 64 * 1000000000ULL
-- Which terms are believed, as core/src/words/term.rs has it: so far ahead of the highest that this instance's agent has named (it
-- says whom it sees serve). The agent knows no lower one, so it believes whatever the guard has promised, however often
-- somebody asked.
local TERMS_AHEAD = 2 ^ 32
local TERM_BELIEVED_MAX = 2 ^ 53 - 1 - TERMS_AHEAD
-- A UUID as text.
local UUID_LENGTH = 36

-- How long a promise to another instance still runs, in nanoseconds; nil: there is none.
local function left_ns_of(times)
    local promise = times.promise
    local now = time.now()
    if promise == nil or now >= promise.until_ns then
        return nil
    end
    return promise.until_ns - now
end

-- Since when promises would be remembered.
function promises.age_ns(times)
    return time.now() - times.born
end

function promises.now(times)
    local left_ns = left_ns_of(times)
    return left_ns and {to = times.promise.to, term = 0ULL + times.promise.term, left_ns = left_ns} or nil
end

-- Why there may be no promotion here; nil: no promise is in its way. Promises to holders of terms up to `fenced_term`
-- are void. `needed_age_ns`: for how long promises may last that this guard would not remember. `t0`: the reading of
-- this clock on which the lease rests.
function promises.forbid_promotion(times, fenced_term, needed_age_ns, t0)
    -- R6: another instance may be master on a promise of this guard, or on a promise that the guard forgot because its
    -- process is young.
    local left_ns = left_ns_of(times)
    if left_ns ~= nil and times.promise.to ~= box.info.uuid and times.promise.term > fenced_term then
        return ('it has promised %s, master of term %d, not to be promoted for %.3f s'):format(
            times.promise.to, tonumber(times.promise.term), tonumber(left_ns) / 1e9)
    end
    local age = promises.age_ns(times)
    if age < needed_age_ns then
        return ('its guard is %.3f s old and must be %.3f s old to know of all its promises'):format(
            tonumber(age) / 1e9, tonumber(needed_age_ns) / 1e9)
    end
    -- A lock step that was sent before another instance's agent asked this guard says nothing of what has happened
    -- since.
    if times.promised_at ~= nil and t0 < times.promised_at then
        return 'its lease rests on a reading from before this guard promised another not to be promoted'
    end
end

-- A whole number that a number of Lua holds exactly.
local function is_count(value)
    local number = (type(value) == 'number' or type(value) == 'cdata') and tonumber(value) or nil
    return number ~= nil and number >= 0 and number < 2 ^ 53 and number % 1 == 0
end

-- What is wrong with a question, as a word for its asker; nil: nothing. Whoever may call the guard may ask anything, and what
-- is asked here stays in the guard's state, from where its agent reads it.
local function is_no_question(question)
    if type(question.to) ~= 'string' or #question.to ~= UUID_LENGTH then
        return 'the first argument is no UUID of an instance'
    end
    if not is_count(question.term) or not is_count(question.lasting_ns) then
        return 'the term and the nanoseconds must be whole numbers below 2^53'
    end
    if question.asked ~= nil and type(question.asked) ~= 'table' then
        return 'the members that are asked must be a list'
    end
    if question.vclock ~= nil and type(question.vclock) ~= 'table' then
        return 'the vclock must be a map'
    end
end

-- Whether nobody can have counted to that term, for all that is known here.
local function is_out_of_reach(state, term)
    local limit = math.min(state.agent_term + TERMS_AHEAD, TERM_BELIEVED_MAX)
    return term > math.max(limit, state.agent_term + 1)
end

local function cannot_promise(state, to, term, lasting_ns)
    if to == box.info.uuid then
        return 'it is the one that asks'
    end
    if state.leased or state.promoting > 0 or not box.info.ro then
        return 'it is writable itself, or about to be'
    end
    if term < state.term then
        return ('term %d is over, it has seen term %d'):format(tonumber(term), tonumber(state.term))
    end
    local times = state.times
    if left_ns_of(times) ~= nil and times.promise.to ~= to and times.promise.term >= term then
        return ('it has promised that to %s, master of term %d'):format(times.promise.to, tonumber(times.promise.term))
    end
    if is_out_of_reach(state, term) then
        return ('nobody can have counted to term %d, it has seen term %d'):format(term, tonumber(state.term))
    end
    if lasting_ns > PROMISE_MAX_NS then
        return 'no lease is that long'
    end
end

-- R3: no record names the last master, and `asked` are all members that `to` could find. A member that is missing there
-- may have been it. `vclock` is what `to` has.
local function cannot_stand_for_all(landed, to, asked, vclock)
    if not landed then
        return 'its last commits may still land'
    end
    local among = {[to] = true}
    for _, uuid in pairs(asked) do
        among[uuid] = true
    end
    for _, peer in pairs(box.info.replication) do
        if not among[peer.uuid] then
            return ('it knows a member that was not asked: %s'):format(peer.uuid)
        end
    end
    -- An instance that is promoted without these rows might never get them, acknowledged as they may be.
    for id, lsn in pairs(vclock ~= nil and look.vclock_of(box.info.vclock) or {}) do
        if lsn > (vclock[id] or 0) then
            return ('it has rows of member %s that %s lacks'):format(id, to)
        end
    end
end

-- R6: asked by the agent of the master `to` when Consul cannot be written. The answer promises no promotion here for
-- `lasting_ns`, whatever becomes of this instance's agent. R3: asked likewise by the agent of `to`, which holds the
-- lock and found no record before its own; `asked` has the UUIDs of all members that it asks, `vclock` what `to` has.
-- `landed`: no commit of this instance is in flight any more.
function promises.answer(state, landed, question)
    local wrong = is_no_question(question)
    if wrong ~= nil then
        return {uuid = box.info.uuid, promised = false, refused = wrong}
    end
    local to, term, asked = question.to, tonumber(question.term), question.asked
    local refused = cannot_promise(state, to, term, question.lasting_ns)
    if refused == nil and asked ~= nil then
        refused = cannot_stand_for_all(landed, to, asked, question.vclock)
    end
    if refused ~= nil then
        return {uuid = box.info.uuid, promised = false, refused = refused}
    end
    local times = state.times
    local until_ns = time.now() + question.lasting_ns
    local known = times.promise
    if known ~= nil and known.to == to and known.until_ns > until_ns then
        until_ns = known.until_ns
    end
    times.promise = {to = to, term = term, until_ns = until_ns}
    times.promised_at = time.now()
    state.term = term
    return {uuid = box.info.uuid, promised = true, for_all = asked ~= nil or nil}
end

package.loaded['tarsec.promises'] = promises
return true
