-- Shows an agent which process this instance is. Only a process itself can change the name of its main thread (proc(5),
-- /proc/pid/comm), and every process on the machine can read it. Evaluated after guard.lua.

local guard = rawget(_G, 'tarsec_guard')
if guard.show_name ~= nil then
    return true
end

local ffi = require('ffi')
local fiber = require('fiber')

-- A name of our own: the application may have declared prctl otherwise, or may yet. A guard before may have declared
-- it.
pcall(ffi.cdef, [[
int tarsec_prctl(int option, unsigned long, unsigned long, unsigned long, unsigned long) __asm__("prctl");
]])

-- prctl(2) is about the calling thread, and all of Lua runs in the main one.
local PR_SET_NAME, PR_GET_NAME, LEN = 15, 16, 16
-- An agent that dies in between leaves its name here no longer than that.
local PATIENCE_S = 5

local function prctl(option, buffer)
    return ffi.C.tarsec_prctl(option, ffi.cast('uintptr_t', ffi.cast('void *', buffer)), 0, 0, 0)
end

local function name()
    local buffer = ffi.new('char[?]', LEN)
    return prctl(PR_GET_NAME, buffer) == 0 and ffi.string(buffer) or nil
end

local function set_name(new)
    -- The text must live until the call is over.
    local buffer = ffi.new('char[?]', #new + 1, new)
    assert(prctl(PR_SET_NAME, buffer) == 0, 'prctl failed')
end

-- The name shown now, and the one it hides.
local shown, own_name

function guard.hide_name()
    if shown ~= nil then
        set_name(own_name)
        shown = nil
    end
    return true
end

function guard.show_name(new)
    own_name = shown ~= nil and own_name or name()
    set_name(new)
    shown = new
    fiber.create(function()
        fiber.sleep(PATIENCE_S)
        if shown == new then
            guard.hide_name()
        end
    end)
    return true
end

return true
