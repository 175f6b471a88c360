# The least that an agent needs. Put your own CONSUL_KV_PREFIX, CLUSTER_NAME and CONSUL_SERVICE_PREFIX in.
# The lock and the members' keys. With CONSUL_LOCK_KEY set, that key needs the same.
key_prefix "tarsec/default/" { policy = "write" }
# The session that holds the lock. A node's name instead of "" narrows it to that node's Consul agent.
session_prefix "" { policy = "write" }
# The catalog. With CONSUL_SERVICE_NAME set, one rule for that name; with {cluster} in it, the name that comes of it.
service "tarantool-master" { policy = "write" }
service "tarantool-replica" { policy = "write" }
service "tarantool-router" { policy = "write" }
