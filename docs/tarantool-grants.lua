-- Once, as admin, where the replica set is born or on its master; the members get it by replication.
-- Nothing less will do: the agent installs its guard by evaluating it, which needs `execute` on the universe.
box.schema.user.create('tarsec', {password = 'secret', if_not_exists = true})
box.schema.user.grant('tarsec', 'execute', 'universe', nil, {if_not_exists = true})
-- With REPLICATION=follow replicas log in to the master as this user, which needs one more. Its name and password are
-- then part of a URI, of which Tarantool decodes nothing: letters, digits, - . _ ~ ! $ & ' ( ) * + , ; = and %41 fit.
-- box.schema.user.grant('tarsec', 'replication')
