-- Tarantool 3's configuration may isolate an instance (`isolated: true`): it becomes read-only, and all its connections
-- are dropped. The agent loses its connection, too, could not tell that from an instance that hangs, and would kill it
-- once its lease is over. So the guard fences first, and the connections go once the agent knows. An answer that is on
-- its way goes with its connection. The first answer says that the instance is isolated, the second answers what the
-- agent does about it, and the agent's third word shows that it has had the second answer. Evaluated after guard.lua.

local guard = rawget(_G, 'tarsec_guard')
if guard.is_told_of_isolation then
    return true
end

local platform = require('tarsec.platform')

-- Within that time every agent asks, whatever its HEALTHCHECK_INTERVAL is. Where no agent is there, connections go that much
-- later.
local AGENT_PATIENCE_S = 5

platform.before_isolation(function()
    local current = rawget(_G, 'tarsec_guard')
    -- A guard that stands down for a pause fences nothing; the configuration has made the instance read-only.
    if not current.state.stood_down then
        current.fence(current.state.agent, 'its configuration isolates it')
    end
    for _ = 1, 3 do
        if not current.answered:wait(AGENT_PATIENCE_S) then return end
    end
end)

guard.is_told_of_isolation = true
return true
