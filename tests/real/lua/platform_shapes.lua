-- Cases for platform.lua, with tables shaped like each version's `box`: what is there, what it returns, what it raises, as
-- seen on 2.6.0, 2.11.9 and 3.8.0; and the same questions to the instance that runs this. Arguments: platform.lua's
-- source. Returns the names of the cases that ran; raises what a case found wrong.
local source = ...
local fiber = require('fiber')

local function equal(found, wanted, what)
    if found ~= wanted then
        error(('%s: found %s, wanted %s'):format(what, tostring(found), tostring(wanted)), 0)
    end
end

-- platform.lua as it is evaluated where `box` is that table. `config`: Tarantool 3's module of that name.
local function platform_of(box, config)
    local loaded = {}
    local env = {box = box, package = {loaded = loaded}}
    function env.require(name)
        if name == 'config' then
            return config or error("module 'config' not found", 0)
        end
        return require(name)
    end
    assert(setfenv(assert(loadstring(source)), setmetatable(env, {__index = _G}))() == true)
    return loaded['tarsec.platform']
end

-- What all versions have: a setter that makes of box.cfg what box.info says, and says how often it was asked.
local function common(values)
    local box = {ctl = {wait_rw = function() end}, info = {id = 1, ro = false}, internal = {}, asked = 0}
    function box.internal.cfg_set_read_only()
        box.asked = box.asked + 1
        box.info.ro = box.cfg.read_only and true or false
    end
    box.values = values
    return box
end

-- 2.6: box.cfg holds its own values; the queue is cleared, and nobody owns it.
local function like_2_6()
    local box = common({read_only = false, replication_connect_quorum = 2})
    box.cfg = setmetatable(box.values, {
        __newindex = function() error('Attempt to modify a read-only table') end,
        __call = function(self, options) for name, value in pairs(options) do rawset(self, name, value) end end,
    })
    function box.internal.cfg_set_replication_connect_quorum() end
    return box
end

-- 2.11 and later: box.cfg is an empty table before the values, and refuses to be called once it is not empty.
local function like_2_11()
    local box = common({read_only = false, bootstrap_strategy = 'auto'})
    local proxy = {}
    box.cfg = setmetatable(proxy, {
        __index = box.values,
        __newindex = function() error('Attempt to modify a read-only table') end,
        __call = function(_, options)
            assert(next(proxy) == nil, 'length of proxy table is not zero')
            for name, value in pairs(options) do box.values[name] = value end
            box.strategy_at_call = box.values.bootstrap_strategy
        end,
    })
    box.internal.cfg_set_replication_connect_quorum = function() end
    box.internal.cfg_set_bootstrap_strategy = function() end
    box.internal.cfg_set_replication_synchro_timeout = function() end
    box.info.synchro = {queue = {owner = 0, len = 0}}
    function box.ctl.promote() box.info.synchro.queue.owner = box.info.id end
    return box
end

-- 3.7 and later: a promotion waits for the instance to become writable, and raises when it does not.
local function like_3_8()
    local box = like_2_11()
    function box.ctl.promote()
        box.info.synchro.queue.owner = box.info.id
        fiber.sleep(60)
        error('timed out', 0)
    end
    return box
end

local shapes = {['2.6'] = like_2_6, ['2.11'] = like_2_11, ['3.8'] = like_3_8}
local cases = {}

function cases.read_only_is_switched_and_box_cfg_stays_usable()
    for version, shape in pairs(shapes) do
        local box = shape()
        local platform = platform_of(box)
        equal(platform.lacks(), nil, version)
        platform.set_read_only(true)
        equal(box.info.ro, true, version)
        equal(platform.is_set_read_only(), true, version)
        equal(box.asked, 1, version)
        box.cfg{read_only = false}
        equal(platform.is_set_read_only(), false, version)
    end
end

function cases.unless_bootstrap_is_read_only()
    local box = like_3_8()
    box.values.read_only = 'unless_bootstrap'
    equal(platform_of(box).is_set_read_only(), true, 'the words')
end

function cases.a_setter_that_is_taken_away_later_leaves_box_cfg_itself()
    for version, shape in pairs(shapes) do
        local box = shape()
        local platform = platform_of(box)
        box.internal.cfg_set_read_only = nil
        platform.set_read_only(true)
        equal(box.cfg.read_only, true, version)
    end
end

function cases.replication_is_changed_without_waiting_and_settings_come_back()
    for version, shape in pairs(shapes) do
        local box = shape()
        platform_of(box).replicate_from({'a:1'})
        equal(box.cfg.replication[1], 'a:1', version)
        equal(box.cfg.replication_connect_quorum, version == '2.6' and 2 or nil, version)
        if version ~= '2.6' then
            equal(box.strategy_at_call, 'legacy', version)
            equal(box.cfg.bootstrap_strategy, 'auto', version)
        end
    end
end

function cases.the_queues_owner_is_believed()
    equal(platform_of(like_2_6()).queue_owner(), nil, '2.6 does not say')
    for _, version in pairs({'2.11', '3.8'}) do
        local box = shapes[version]()
        local platform = platform_of(box)
        equal(platform.queue_owner(), 0, version)
        platform.claim_queue(5)
        equal(platform.queue_owner(), 1, version)
    end
end

function cases.a_claim_that_changes_nothing_is_an_error()
    local box = like_2_11()
    box.info.synchro.queue.owner = 2
    box.ctl.promote = function() end
    local ok, err = pcall(platform_of(box).claim_queue, 5)
    equal(ok, false, 'a claim without an effect')
    equal(err, 'the queue still belongs to instance 2', 'its words')
    box.ctl.promote = function() error('no quorum', 0) end
    ok, err = pcall(platform_of(box).claim_queue, 5)
    equal(err, 'no quorum', 'the words of a claim that fails')
end

-- 2.11 waits for twice the timeout for confirmations of a dead owner, then for the quorum, for as long as it takes.
function cases.a_dead_owners_confirmations_are_not_waited_for_and_one_claim_is_under_way_at_a_time()
    local box = like_2_11()
    box.cfg{replication_synchro_timeout = 60}
    local values, has_quorum, calls = getmetatable(box.cfg).__index, false, 0
    box.info.synchro.queue.owner = 2
    function box.ctl.promote()
        calls = calls + 1
        fiber.sleep(2 * box.cfg.replication_synchro_timeout)
        while not has_quorum do fiber.sleep(0.01) end
        box.info.synchro.queue.owner = box.info.id
    end
    local platform = platform_of(box)
    local ok, err = pcall(platform.claim_queue, 0.2)
    equal(ok, false, 'no quorum in time')
    equal(err, 'the queue still belongs to instance 2', 'its words')
    equal(values.replication_synchro_timeout, 60, "the operator's timeout")
    equal(platform.is_claiming(), true, 'it may still claim')
    has_quorum = true
    platform.claim_queue(30)
    equal(platform.is_claiming(), false, 'it has claimed')
    equal(calls, 1, 'the claim that was under way')
    equal(box.info.synchro.queue.owner, box.info.id, 'the owner')
end

function cases.a_claim_ends_with_the_fence()
    local box = like_2_11()
    box.info.synchro.queue.owner = 2
    function box.ctl.promote() fiber.sleep(60) end
    local platform = platform_of(box)
    platform.end_claim()
    pcall(platform.claim_queue, 0.1)
    equal(platform.is_claiming(), true, 'it waits')
    platform.end_claim()
    fiber.sleep(0)
    equal(platform.is_claiming(), false, 'it has ended')
end

function cases.a_rule_of_the_instances_own_is_asked_anew_each_time()
    local box = like_3_8()
    equal(platform_of(box).rule().declared, nil, 'no declarative configuration module')
    local config = {_configdata_applied = {}}
    function config:get(path)
        return self.options[type(path) == 'table' and table.concat(path, '.') or path] or error('not configured', 0)
    end
    local platform = platform_of(box, config)
    config.options = {}
    equal(platform.rule().declared, nil, 'not configured that way')
    for _, mode in ipairs({'supervised', 'manual'}) do
        config.options = {['replication.failover'] = mode}
        equal(platform.rule().declared.failover, mode, 'before it has its name')
    end
    box.info.name, box.info.replicaset = 'a0', {name = 'a'}
    config.options = {
        ['replication.failover'] = 'supervised',
        ['failover.replicasets.a'] = {priority = {a0 = 2.5}, learners = {'a1'}, synchro_mode = true},
    }
    local said = platform.declared()
    equal(said.replicaset, 'a', 'its replica set')
    equal(said.priority, 2, 'its priority')
    equal(said.learner, false, 'another is a learner')
    equal(said.synchro_mode, true, 'the mode')
    equal(said.isolated, false, 'not isolated')
    config.options = {
        ['replication.failover'] = 'manual', isolated = true, ['failover.replicasets.a'] = {learners = {'a1', 'a0'}},
    }
    equal(platform.declared(), said, 'read once for each reload')
    config._configdata_applied = {}
    said = platform.declared()
    equal(said.failover, 'manual', 'after a reload')
    equal(said.isolated, true, 'isolated')
    equal(said.learner, true, 'a learner')
    equal(said.priority, nil, 'no priority')
end

function cases.an_isolated_instance_keeps_its_connections_until_its_agent_was_told()
    local box, told, dropped = like_3_8(), 0, 0
    box.info.name, box.info.replicaset = 'a0', {name = 'a'}
    -- The configuration before, until the configuration that isolates it is applied as a whole.
    local config = {_configdata = {}, _configdata_applied = {}}
    function config:get(path)
        return path == 'replication.failover' and 'supervised' or nil
    end
    platform_of(like_2_6()).before_isolation(error)
    box.iproto = {internal = {drop_connections = function(timeout)
        equal(told, 1, 'told first')
        dropped = dropped + 1
        return timeout
    end}}
    -- Twice, as two guards one after another do.
    platform_of(box, config).before_isolation(function() told = 100 end)
    local platform = platform_of(box, config)
    local said
    platform.before_isolation(function()
        told = told + 1
        said = platform.declared().isolated
        error('anything', 0)
    end)
    equal(platform.declared().isolated, false, 'before')
    equal(box.iproto.internal.drop_connections(10), 10, 'what the drop itself returns')
    equal(dropped, 1, 'dropped in any case')
    equal(said, true, 'what it is told')
    config._configdata = {}
    config._configdata_applied = {}
    equal(platform.declared().isolated, false, 'after a reload')
end

function cases.what_is_lacking_is_named()
    local function lacking(change)
        local box = like_2_11()
        change(box)
        return platform_of(box).lacks()
    end
    local setter = 'box.internal.cfg_set_read_only, to switch read_only without waiting'
    equal(lacking(function(box) box.internal = nil end), setter, 'no box.internal')
    equal(lacking(function(box) box.internal.cfg_set_read_only = nil end), setter, 'no setter')
    equal(lacking(function(box) box.values.read_only = nil end),
        'a table of settings behind box.cfg that has read_only', 'no values')
    equal(lacking(function(box) box.ctl.wait_rw = nil end),
        'box.ctl.wait_rw, to wake when somebody makes it writable', 'nothing wakes')
    equal(lacking(function(box) box.ctl.promote = nil end),
        'box.ctl.promote, to own the queue of synchronous transactions', 'no promotion')
    equal(lacking(function(box) box.ctl.promote, box.info.synchro = nil, nil end), nil, 'and no queue with an owner')
end

-- The real box of the instance that runs this, read-only before and afterwards.
function cases.the_instance_itself()
    local platform = platform_of(box, package.loaded.config)
    equal(platform.lacks(), nil, 'nothing')
    equal(box.info.ro, true, 'before')
    platform.set_read_only(false)
    equal(box.info.ro, false, 'writable')
    box.cfg{read_only = false, too_long_threshold = 0.5}
    platform.set_read_only(true)
    equal(box.info.ro, true, 'read-only')
    box.cfg{read_only = true, too_long_threshold = 0.6}
    equal(platform.is_set_read_only(), true, 'what box.cfg says')
    equal(type(platform.rule()), 'table', 'its rule')
    platform.replicate_from(box.cfg.replication or {})
    equal(box.info.status, 'running', 'after a change of replication')
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
