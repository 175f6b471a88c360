-- For PEER_USER: a user that may ask a guard for its promise, and nothing else. With it, the login that agents send to
-- each other's instances is good for nothing but that. Once, as admin, on the master or where the replica set is born;
-- the members get it by replication. Put your own password in.
box.schema.user.create('tarsec_peer', {password = 'secret', if_not_exists = true})
-- Where there is no guard it says itself whether the instance is read-only, so that this user needs no eval.
box.schema.func.create('tarsec_promise', {language = 'LUA', setuid = true, if_not_exists = true, body = [[
    function(...)
        local guard = rawget(_G, 'tarsec_guard')
        if guard ~= nil then
            return guard.promise(...)
        end
        return {uuid = box.info.uuid, ro = box.info.ro}
    end
]]})
box.schema.user.grant('tarsec_peer', 'execute', 'function', 'tarsec_promise', {if_not_exists = true})
-- In 2.6.0 every user, guest as well, may call LUA, a function of SQL that evaluates its argument as admin. 2.11 and
-- later grant it to nobody; a database that was born under an older version keeps the grant.
if box.space._func.index.name:get('LUA') ~= nil then
    box.schema.role.revoke('public', 'execute', 'function', 'LUA', {if_exists = true})
end
