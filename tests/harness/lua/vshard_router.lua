-- A vshard router's init.lua.
local fio = require('fio')
local json = require('json')

box.cfg({
    listen = os.getenv('LISTEN'),
    work_dir = os.getenv('WORK_DIR'),
    instance_uuid = os.getenv('INSTANCE_UUID'),
    memtx_memory = 32 * 1024 * 1024,
    log_format = 'plain',
})
box.once('router', function()
    box.schema.user.create('harness', {password = os.getenv('HARNESS_PASSWORD')})
    box.schema.user.grant('harness', 'super')
    box.schema.user.create(os.getenv('AGENT_USER'), {password = os.getenv('AGENT_PASSWORD')})
    box.schema.user.grant(os.getenv('AGENT_USER'), 'execute', 'universe')
end)

local root = os.getenv('VSHARD_ROOT')
package.path = ('%s/?.lua;%s/?/init.lua;%s'):format(root, root, package.path)
vshard = require('vshard')

local file = fio.open(os.getenv('VSHARD_TOPOLOGY'), {'O_RDONLY'})
vshard.router.cfg(json.decode(file:read(1024 * 1024)))
file:close()

local function words(err)
    return type(err) == 'table' and err.message or tostring(err)
end

-- One write to a bucket, wherever that is.
function router_write(writer, seq, bucket, timeout)
    local result, err = vshard.router.callrw(bucket, 'shard_write', {writer, seq, bucket}, {timeout = timeout})
    if result == nil then
        error(words(err), 0)
    end
    return result
end

function router_bootstrap()
    local ok, err = vshard.router.bootstrap({timeout = 10})
    return ok or words(err)
end

app_is_ready = true
