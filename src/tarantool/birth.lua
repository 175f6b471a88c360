return (function(order)
    local data = require('config')._configdata
    local set, name = data._replicaset_name, data:names().instance_name
    local function said(state, uuid)
        return ('tarsec/%s/%s/%s/%s'):format(state, set, name, uuid or '-')
    end
    if type(box.cfg) == 'function' then return said('loading') end
    local info = box.info
    if info.status == 'loading' then
        local fio = require('fio')
        local may = box.cfg.bootstrap_strategy == 'supervised' and not box.cfg.replication_anon
            and #fio.glob(fio.pathjoin(box.cfg.memtx_dir, '*.snap')) == 0
            and data:get('replication.failover', {use_default = true}) == 'supervised'
        for _, learner in pairs(data:get({'failover', 'replicasets', set, 'learners'}) or {}) do
            may = may and learner ~= name
        end
        if may and order == 'lead' and rawget(_G, 'tarsec_named_leader') == nil then
            rawset(_G, 'tarsec_named_leader', true)
            box.ctl.make_bootstrap_leader({graceful = true})
        end
        return said(may and 'unborn' or 'loading')
    end
    local function is_alone()
        return rawget(_G, 'tarsec_guard') == nil and box.space._cluster:len() == 1
    end
    if order == 'open' and is_alone() and box.info.ro then
        box.cfg{read_only = false}
        local fiber = require('fiber')
        local users = data:get('credentials.users', {use_default = true}) or {}
        local function has_users()
            for user in pairs(users) do
                if box.space._user.index.name:get(user) == nil then return false end
            end
            return true
        end
        fiber.create(function()
            while rawget(_G, 'tarsec_guard') == nil and not has_users() do fiber.sleep(0.05) end
            fiber.sleep(1)
            if rawget(_G, 'tarsec_guard') == nil then box.cfg{read_only = true} end
        end)
    end
    return said(is_alone() and 'closed' or 'born', info.replicaset and info.replicaset.uuid or info.cluster.uuid)
end)
