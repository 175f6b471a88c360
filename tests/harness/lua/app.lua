-- What the tests' writers need inside an instance; init.lua loads it as its APP.
local ffi = require('ffi')

local app = {}

-- An init script that evaluates this file once more finds the names declared.
pcall(ffi.cdef, [[
struct harness_timespec { long seconds; long nanoseconds; };
int harness_clock_gettime(int clock, struct harness_timespec *time) __asm__("clock_gettime");
]])

local spec = ffi.new('struct harness_timespec')

-- Nanoseconds on the host's CLOCK_BOOTTIME, which all its processes read alike. A story may set back what
-- clock.monotonic64() reads, as a suspended machine does.
function host_now()
    assert(ffi.C.harness_clock_gettime(7, spec) == 0, 'CLOCK_BOOTTIME cannot be read')
    return spec.seconds * 1000000000ULL + spec.nanoseconds
end

-- Runs once in a replica set's life, on the instance where it is born.
function app.bootstrap()
    box.schema.user.create('harness', { password = os.getenv('HARNESS_PASSWORD') })
    box.schema.user.grant('harness', 'super')
    app.create_spaces()
end

function app.create_spaces()
    local journal = box.schema.space.create('journal', { if_not_exists = true })
    journal:format({
        { 'writer', 'string' },
        { 'seq', 'unsigned' },
        { 'instance', 'string' },
        { 'term', 'unsigned' },
    })
    journal:create_index('primary', { parts = { 'writer', 'seq' }, if_not_exists = true })
    -- Temporary: neither logged nor replicated, and writable while the instance is read-only.
    local ballast = box.schema.space.create('ballast', { temporary = true, if_not_exists = true })
    ballast:create_index('primary', { parts = { { 1, 'unsigned' } }, if_not_exists = true })
end

-- The guard's table, or an empty one without a guard.
local function guard()
    local found = rawget(_G, 'tarsec_guard')
    return type(found) == 'table' and found or {}
end

-- What the guard says, or nil without a guard.
local function ask_guard(name)
    local value = guard()[name]
    if type(value) == 'function' then value = value() end
    return tonumber(value)
end

-- Whether the guard stands down for a pause: no lease bounds a write then.
local function is_unbound()
    local state = guard().state
    return type(state) == 'table' and state.stood_down == true
end

-- One write. Term and deadline are read in the same turn of the event loop in which the write begins, that is,
-- in which the instance decides whether it is read-only: a fence takes the deadline away while the write is on its
-- way to the disk, where it may still arrive in time.
-- Returns term, begin and end on the host's clock [ns], remaining lease at the end [ns] (nil without a guard
-- and in a pause), lsn.
function journal_write(writer, seq)
    local began = host_now()
    local term, deadline = ask_guard('term'), ask_guard('deadline')
    local unbound = is_unbound()
    box.space.journal:insert({ writer, seq, os.getenv('INSTANCE_NAME') or '', term or 0 })
    local ended = host_now()
    -- A lease that was lengthened meanwhile covers the write too; a lease of another term does not.
    local later = ask_guard('deadline')
    if deadline and later and later > deadline and ask_guard('term') == term then deadline = later end
    if unbound or is_unbound() then deadline = nil end
    return term, began, ended, deadline and deadline - tonumber(ended), box.info.lsn
end

-- Grows the resident memory by about `megabytes`; returns the bytes that the arena then holds.
function ballast_fill(megabytes)
    local ballast = box.space.ballast
    local first = ballast:len()
    -- Measured: rows of 60 KiB fill 3 GiB in 5 to 6 s, rows of 512 KiB in 7 to 11 s.
    local block = string.rep('x', 60 * 1024 - 64)
    for number = first + 1, first + math.ceil(megabytes * 1024 / 60) do
        ballast:replace({ number, block })
        if number % 500 == 0 then require('fiber').yield() end
    end
    return box.slab.info().arena_used
end

function app.start()
    local extra = os.getenv('EXTRA_LUA')
    if extra ~= nil and extra ~= '' then assert(loadstring(extra))() end
    app_is_ready = true
end

return app
