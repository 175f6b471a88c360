-- Cases for the pure part of vshard.lua, with configurations shaped like those of all releases of vshard. Returns the
-- names of the cases that ran; raises what a case found wrong.
local vshard = tarsec_vshard
local json = require('json')

local RS1, RS2 = 'aaaaaaaa-0000-0000-0000-000000000000', 'bbbbbbbb-0000-0000-0000-000000000000'
local A1, A2 = 'aaaaaaaa-0000-0000-0000-000000000001', 'aaaaaaaa-0000-0000-0000-000000000002'
local B1, B2 = 'bbbbbbbb-0000-0000-0000-000000000001', 'bbbbbbbb-0000-0000-0000-000000000002'

local function equal(found, wanted, what)
    local a, b = vshard.canonical(found), vshard.canonical(wanted)
    if a ~= b then
        error(('%s: found %s, wanted %s'):format(what, a, b), 0)
    end
end

-- As `storage.internal.current_cfg` up to 0.1.24: box options beside vshard's own.
local function old_storage()
    return {
        listen = 3301, memtx_memory = 1024, read_only = false, bucket_count = 100, shard_index = 'bucket_id',
        rebalancer_disbalance_threshold = 1, rebalancer_max_receiving = 100, sync_timeout = 1,
        collect_lua_garbage = false,
        sharding = {
            [RS1] = {weight = 1, replicas = {
                [A1] = {uri = 'storage:secret@h1:3301', name = 'a1', master = true},
                [A2] = {uri = 'storage:secret@h2:3301', name = 'a2'},
            }},
            [RS2] = {weight = 1, replicas = {
                [B1] = {uri = 'storage:secret@h3:3301', name = 'b1', master = true},
                [B2] = {uri = 'storage:secret@h4:3301', name = 'b2', master = false},
            }},
        },
    }
end

-- The same from 0.1.25 on: vshard's own options alone, more of them.
local function new_storage()
    local cfg = old_storage()
    cfg.listen, cfg.memtx_memory, cfg.read_only, cfg.collect_lua_garbage = nil, nil, nil, nil
    cfg.box_cfg_mode, cfg.identification_mode, cfg.rebalancer_mode = 'auto', 'uuid_as_key', 'auto'
    return cfg
end

local function router()
    local cfg = new_storage()
    cfg.zone, cfg.weights = 1, {[1] = {[2] = 1}}
    return cfg
end

local function named()
    return {
        bucket_count = 100, identification_mode = 'name_as_key',
        sharding = {
            first = {uuid = RS1, replicas = {one = {uri = 'h1:3301', uuid = A1, master = true}, two = {uri = 'h2:3301'}}},
            second = {replicas = {three = {uri = 'h3:3301', master = true}, four = {uri = 'h4:3301'}}},
        },
    }
end

local function master_of(cfg, id)
    local found = {}
    for replica_id, replica in pairs(cfg.sharding[id].replicas) do
        if replica.master then
            table.insert(found, replica_id)
        end
    end
    return found
end

local function extract(known)
    return function(cfg)
        local own = {}
        for key, value in pairs(cfg) do
            own[key] = known[key] and value or nil
        end
        return own
    end
end

local KNOWN = {
    sharding = true, bucket_count = true, rebalancer_max_receiving = true, rebalancer_disbalance_threshold = true,
    zone = true, weights = true, sync_timeout = true,
}

local cases = {}

function cases.the_flag_moves_to_whom_the_lock_names_and_nothing_else_changes()
    for _, shape in ipairs({old_storage, new_storage, router}) do
        local cfg = shape()
        local new, changed, problems = vshard.patch(cfg, {[RS1] = {instance = A2}})
        equal(changed, true, 'changed')
        equal(problems, {}, 'problems')
        equal(master_of(new, RS1), {A2}, 'its master')
        equal(master_of(new, RS2), {B1}, 'the other')
        equal(master_of(cfg, RS1), {A1}, 'the one given')
        new.sharding[RS1].replicas[A1].master, new.sharding[RS1].replicas[A2].master = true, nil
        equal(vshard.print_of(new), vshard.print_of(shape()), 'the rest')
        equal(new.zone, shape().zone, 'zone')
    end
end

function cases.a_configuration_that_says_it_already_is_no_change()
    local _, changed = vshard.patch(new_storage(), {[RS1] = {instance = A1}, [RS2] = {instance = B1}})
    equal(changed, false, 'changed')
end

function cases.nobody_is_master_where_the_lock_says_so()
    local new, changed = vshard.patch(new_storage(), {[RS2] = {instance = ''}})
    equal(changed, true, 'changed')
    equal(master_of(new, RS2), {}, 'masters')
end

function cases.a_master_that_the_configuration_does_not_know_changes_nothing_and_is_said()
    local new, changed, problems = vshard.patch(new_storage(), {[RS1] = {instance = 'stranger'}})
    equal(changed, false, 'changed')
    equal(master_of(new, RS1), {A1}, 'its master')
    equal(#problems, 1, 'problems')
end

function cases.replica_sets_of_other_clusters_are_nobodys_business()
    local _, changed, problems = vshard.patch(new_storage(), {['cccc'] = {instance = 'stranger'}})
    equal(changed, false, 'changed')
    equal(problems, {}, 'problems')
end

function cases.masters_that_vshard_finds_itself_are_left_to_it()
    local cfg = new_storage()
    cfg.sharding[RS1].master = 'auto'
    cfg.sharding[RS1].replicas[A1].master = nil
    local new, changed = vshard.patch(cfg, {[RS1] = {instance = A2}, [RS2] = {instance = B2}})
    equal(changed, true, 'changed')
    equal(master_of(new, RS1), {}, 'auto')
    equal(master_of(new, RS2), {B2}, 'the other')
end

function cases.names_stand_for_uuids()
    local masters = {
        [RS1] = {instance = A2, instance_name = 'two', replicaset_name = 'first'},
        [RS2] = {instance = B2, instance_name = 'four', replicaset_name = 'second'},
    }
    local new, changed, problems = vshard.patch(named(), masters)
    equal(changed, true, 'changed')
    equal(problems, {}, 'problems')
    equal(master_of(new, 'first'), {'two'}, 'first')
    equal(master_of(new, 'second'), {'four'}, 'second')
    new = vshard.patch(named(), {[RS1] = {instance = A1}})
    equal(master_of(new, 'first'), {'one'}, 'by uuid field')
end

function cases.a_fingerprint_knows_neither_order_nor_master_nor_password_nor_box_options()
    local base = vshard.print_of(old_storage())
    equal(vshard.print_of(new_storage()), base, 'shape')
    equal(vshard.print_of(router()), base, 'router')
    local cfg = old_storage()
    cfg.sharding[RS1].replicas[A1].uri = 'other:word@h1:3301'
    cfg.sharding[RS1].replicas[A1].master = nil
    equal(vshard.print_of(cfg), base, 'password and master')
    local text = json.encode(new_storage())
    equal(vshard.print_of(json.decode(text)), base, 'order')
end

function cases.a_fingerprint_shows_every_difference_that_matters()
    local base = vshard.print_of(new_storage())
    local changes = {
        function(cfg) cfg.bucket_count = 200 end,
        function(cfg) cfg.sharding[RS1].weight = 2 end,
        function(cfg) cfg.sharding[RS1].lock = true end,
        function(cfg) cfg.sharding[RS1].master = 'auto' end,
        function(cfg) cfg.sharding[RS1].replicas[A1].uri = 'h9:3301' end,
        function(cfg) cfg.sharding[RS2].replicas[B2] = nil end,
        function(cfg) cfg.sharding['cccc'] = {replicas = {}} end,
        function(cfg) cfg.rebalancer_max_receiving = 7 end,
    }
    for index, change in ipairs(changes) do
        local cfg = new_storage()
        change(cfg)
        if vshard.print_of(cfg) == base then
            error('difference ' .. index .. ' does not show', 0)
        end
    end
end

local AUTOVSHARD = [[
---
rebalancer_max_receiving: 10
bucket_count: 100
memtx_memory: 1024
sharding:
    aaaaaaaa-0000-0000-0000-000000000000:
        weight: 10
        replicas:
            aaaaaaaa-0000-0000-0000-000000000001:
                master_weight: 99
                switchover_delay: 10
                address: h1:3301
                name: a1
                master: true
            aaaaaaaa-0000-0000-0000-000000000002:
                master_weight: 20
                address: h2:3301
                name: a2
                master: false
]]

function cases.autovshards_form_is_understood()
    local given = vshard.decode(AUTOVSHARD)
    local login = {user = 'storage', password = 'secret'}
    local cfg, preferences = vshard.central(given, login, {memtx_memory = 1}, extract(KNOWN))
    local replica = cfg.sharding[RS1].replicas[A1]
    equal(replica, {uri = 'storage:secret@h1:3301', name = 'a1'}, 'instance')
    equal(cfg.memtx_memory, nil, 'box option')
    equal(cfg.sharding[RS1].weight, 10, 'weight')
    equal(preferences[A1], {weight = 99, delay = 10}, 'preference')
    equal(preferences[A2], {weight = 20, delay = 0}, 'preference without delay')
end

function cases.json_and_vshards_own_form_are_understood()
    local text = json.encode({bucket_count = 100, sharding = old_storage().sharding})
    local given = vshard.decode(text)
    local cfg, preferences = vshard.central(given, {user = 'other', password = 'x'}, {}, extract(KNOWN))
    equal(cfg.sharding[RS1].replicas[A1].uri, 'storage:secret@h1:3301', 'a login of its own stays')
    equal(master_of(cfg, RS1), {}, 'flags are the locks')
    equal(next(preferences), nil, 'preferences')
end

function cases.every_mistake_is_refused_with_a_reason()
    local function refused(words, text)
        local given, wrong = vshard.decode(text)
        if given ~= nil then
            given, wrong = vshard.central(given, {}, {}, extract(KNOWN))
        end
        equal(given, nil, words)
        if not tostring(wrong):find(words, 1, true) then
            error(('%s: found %s'):format(words, wrong), 0)
        end
    end
    refused('neither YAML nor JSON', 'sharding: [')
    refused('neither YAML nor JSON', '{"sharding": ')
    refused("no map 'sharding'", 'just words')
    refused("no map 'sharding'", '')
    refused("no map 'sharding'", 'bucket_count: 1')
    refused("no map 'sharding'", 'sharding: 1')
    refused("unknown option 'bucket_cuont'", 'bucket_cuont: 1\nsharding: {}')
    refused("with a map 'replicas'", 'sharding: {rs: {weight: 1}}')
    refused("with a map 'replicas'", 'sharding: {rs: 1}')
    refused("unknown option 'wieght' of replica set rs", 'sharding: {rs: {wieght: 1, replicas: {}}}')
    refused('instance a must be a map', 'sharding: {rs: {replicas: {a: 1}}}')
    refused("unknown option 'adress' of instance a", 'sharding: {rs: {replicas: {a: {adress: h}}}}')
    refused('both uri and address', 'sharding: {rs: {replicas: {a: {address: h, uri: h}}}}')
    refused('master_weight of instance a', 'sharding: {rs: {replicas: {a: {address: h, master_weight: much}}}}')
    for _, login in ipairs({'u:p@ss', 'u:p:w', 'u:a/b', 'u:a?b', 'u:a#b', 'u:a b', 'u:100%', 'u ser:p'}) do
        refused("before its '@' that no URI", ("sharding: {rs: {replicas: {a: {uri: '%s@h:1'}}}}"):format(login))
    end
    refused('switchover_delay of instance a', 'sharding: {rs: {replicas: {a: {address: h, switchover_delay: -1}}}}')
end

function cases.replication_gains_who_is_new_and_loses_who_is_gone()
    local function replica(host) return {uri = 'u:p@' .. host} end
    local before = {a = replica('h1:1'), b = replica('h2:1')}
    local present = {'r:s@h1:1', 'r:s@h2:1', 'r:s@elsewhere:1'}
    equal(vshard.peers(present, before, before), nil, 'no change')
    equal(vshard.peers(present, before, {a = replica('h1:1'), b = replica('h2:1'), c = replica('h3:1')}),
        {'r:s@h1:1', 'r:s@h2:1', 'r:s@elsewhere:1', 'u:p@h3:1'}, 'a new one')
    equal(vshard.peers(present, before, {a = replica('h1:1')}), {'r:s@h1:1', 'r:s@elsewhere:1'}, 'one that is gone')
    equal(vshard.peers('r:s@h1:1', {a = replica('h1:1')}, before), {'r:s@h1:1', 'u:p@h2:1'}, 'a text')
    equal(vshard.peers(nil, nil, {a = replica('h1:1')}), {'u:p@h1:1'}, 'nothing before')
end

function cases.an_instance_that_changes_its_replica_set_is_noticed()
    local new = new_storage()
    equal(vshard.moved(old_storage(), new), nil, 'the same')
    new.sharding[RS2].replicas[A2], new.sharding[RS1].replicas[A2] = new.sharding[RS1].replicas[A2], nil
    equal(vshard.moved(old_storage(), new), ('instance %s belongs to replica set %s, not to %s'):format(A2, RS1, RS2),
        'moved')
end

function cases.flags_that_no_lock_names_are_kept()
    local central = vshard.decode(AUTOVSHARD)
    local cfg = vshard.central(central, {}, {memtx_memory = 1}, extract(KNOWN))
    equal(master_of(vshard.keep_flags(cfg, old_storage()), RS1), {A1}, 'kept')
    equal(vshard.same_flags(old_storage(), new_storage()), true, 'the same')
    equal(vshard.same_flags(old_storage(), (vshard.patch(old_storage(), {[RS1] = {instance = A2}}))), false, 'others')
end

local ran = {}
for name, case in pairs(cases) do
    local ok, err = pcall(case)
    if not ok then
        error(name .. ': ' .. tostring(err), 0)
    end
    table.insert(ran, name)
end
table.sort(ran)
return ran
