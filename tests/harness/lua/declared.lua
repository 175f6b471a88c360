-- The application of instances that Tarantool 3's declarative configuration starts (app.file): what init.lua does for the
-- others, apart from what the configuration says itself. The first master creates the spaces.
local log = require('log')

-- Each reload runs it again.
if rawget(_G, 'app_is_ready') then return end

local app = dofile(os.getenv('APP'))

box.watch('box.status', function(_, status)
    if status.is_ro == false and (box.space.journal == nil or box.space.ballast == nil) then
        local ok, why = pcall(app.create_spaces)
        if not ok then log.warn('spaces are left to the next master: %s', why) end
    end
end)
app.start()
