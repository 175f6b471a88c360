-- When the instance turned read-only, by whatever hand, and that it is being stopped. Evaluated after guard.lua, which
-- asks.

local guard = rawget(_G, 'tarsec_guard')
if guard.notes_moments then
    return true
end

local fiber = require('fiber')
local time = require('tarsec.time')

local function keep_noting()
    fiber.name('tarsec_moments')
    while rawget(_G, 'tarsec_guard') == guard do
        box.ctl.wait_ro()
        guard.read_only_since = time.now()
        box.ctl.wait_rw()
    end
end

-- An operator who kills this fiber ends it: what it notes is for the history alone.
fiber.new(pcall, keep_noting)
box.ctl.on_shutdown(function()
    guard.is_stopping = true
end)

guard.notes_moments = true
return true
