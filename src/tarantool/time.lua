-- The clock by which leases and promises run, and what a guard keeps of its times. Evaluated after platform.lua and before
-- look.lua; the other files' require('tarsec.time') finds it.
--
-- CLOCK_BOOTTIME goes on while the machine is suspended. CLOCK_MONOTONIC, which clock.monotonic64() reads, stands still
-- meanwhile: an instance that wakes up would believe that its lease still runs. Both cost the same, for both are read
-- without a system call (vdso(7)).

local clock = require('clock')
local ffi = require('ffi')

-- Names of our own: the application may have declared timespec or clock_gettime, or may yet. A guard before may have
-- declared these.
pcall(ffi.cdef, [[
struct tarsec_timespec { long seconds; long nanoseconds; };
int tarsec_clock_gettime(int clock, struct tarsec_timespec *time) __asm__("clock_gettime");
]])

-- clock_gettime(2), Linux.
local CLOCK_BOOTTIME = 7
local NS_PER_S = 1000000000ULL

local time = {}

local function boottime_reader()
    local C, spec = ffi.C, ffi.new('struct tarsec_timespec')
    local function read()
        -- A write that cannot be judged is not to be accepted: this error refuses it.
        if C.tarsec_clock_gettime(CLOCK_BOOTTIME, spec) ~= 0 then
            error('tarsec: CLOCK_BOOTTIME cannot be read', 0)
        end
        return spec.seconds * NS_PER_S + spec.nanoseconds
    end
    read()
    return read
end

local has_boottime, read = false, nil
if ffi.os == 'Linux' then
    has_boottime, read = pcall(boottime_reader)
end

-- What time.now() reads, for the agent: `monotonic` is its word that a suspended machine goes unnoticed here.
time.CLOCK = has_boottime and 'boottime' or 'monotonic'

-- In nanoseconds. Does not yield.
time.now = has_boottime and read or clock.monotonic64

-- What a guard before version 12 kept by clock.monotonic64(), in the state itself.
local function since_monotonic(state)
    -- In this order the difference is never too small.
    local monotonic = clock.monotonic64()
    local ahead = time.now() - monotonic
    local function later(at)
        return at ~= nil and at + ahead or nil
    end
    local promise = state.promise
    return {
        clock = time.CLOCK,
        -- As it is: on a machine that was suspended since it started, the other clock is behind, and nobody knows whether
        -- this lease was running meanwhile. So it counts as over there, and the guard fences.
        deadline = state.deadline or 0ULL,
        -- What forbids a promotion must not end earlier.
        born = later(state.born) or time.now(),
        promised_at = later(state.promised_at),
        promise = promise and {to = promise.to, term = promise.term, until_ns = later(promise.until_ns)},
        fenced_at = later(state.fenced_at),
        writable_at = later(state.writable_at),
    }
end

-- The times of a guard with that state, whichever guard kept it before:
--   deadline     until when the instance may be writable
--   born         since when promises would be remembered
--   promise      {to, term, until_ns}: no promotion here meanwhile, for that instance is master (R6)
--   promised_at  when it last promised something to another: no lease rests on a reading from before (R3, R6)
--   fenced_at    when it last turned read-only by a fence
--   writable_at  when a promotion last made it writable
-- They stand apart from the state so that a guard before version 12, which may come after this one, does not take them
-- for times of its clock. It finds a guard that no agent owns, that was just born and whose lease is over: it fences.
function time.times_of(state)
    -- A guard before version 12 that came in between gave the state an age, and kept the rest there, too.
    local times = state.born == nil and state.times or nil
    if times ~= nil and times.clock ~= time.CLOCK then
        -- Nothing tells one clock from the other in them: as if the process had just been started.
        times = {clock = time.CLOCK, deadline = 0ULL, born = time.now()}
    end
    if times == nil then
        times, state.agent = since_monotonic(state), nil
    end
    state.times = times
    -- `deadline` goes on bounding commits that are in flight under the triggers of such a guard, until the next fence.
    state.deadline = state.deadline or 0ULL
    state.owner, state.born, state.promise, state.promised_at = nil, nil, nil, nil
    state.fenced_at, state.writable_at = nil, nil
    return state.times
end

package.loaded['tarsec.time'] = time
return true
