-- Shows an agent which process this instance is. Nobody but a process itself can change the name of its main thread
-- (proc(5), /proc/pid/comm), and everybody on the machine can read it. Evaluated after guard.lua.

local guard = rawget(_G, 'tarsec_guard')
if guard.show_name ~= nil then
    return true
end

local ffi = require('ffi')
local fiber = require('fiber')

-- It may be declared already.
pcall(ffi.cdef, 'int prctl(int option, ...);')

-- prctl(2): of the calling thread, and all of Lua runs in the main one.
local PR_SET_NAME, PR_GET_NAME, LEN = 15, 16, 16
-- An agent that dies in between leaves its name here no longer than that.
local PATIENCE_S = 5

local function name()
    local buffer = ffi.new('char[?]', LEN)
    return ffi.C.prctl(PR_GET_NAME, buffer) == 0 and ffi.string(buffer) or nil
end

local function set_name(new)
    assert(ffi.C.prctl(PR_SET_NAME, ffi.cast('const char *', new)) == 0, 'prctl failed')
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
