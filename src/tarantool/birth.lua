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
    local function is_closed()
        return box.info.ro and rawget(_G, 'tarsec_guard') == nil and box.space._cluster:len() == 1
    end
    if order == 'open' and is_closed() then box.cfg{read_only = false} end
    return said(is_closed() and 'closed' or 'born', info.replicaset and info.replicaset.uuid or info.cluster.uuid)
end)
