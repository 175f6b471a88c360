# The least that an agent needs, with CLUSTER_NAME=shop, CONSUL_SERVICE_PREFIX=tarantool-{cluster} and a Consul agent whose
# node is called db-1. Put your own names in, and keep the slash and the hyphen behind shop.
# The lock and all keys beside it. With CONSUL_LOCK_KEY set, that key needs the same.
key_prefix "tarsec/shop/" { policy = "write" }
# The session that holds the lock. One token for each host; a token that serves more hosts needs a rule for each node.
session "db-1" { policy = "write" }
# The catalog. With CONSUL_SERVICE_NAME set, one rule for the name that comes of it; the last one is for vshard routers.
service "tarantool-shop-master" { policy = "write" }
service "tarantool-shop-replica" { policy = "write" }
service "tarantool-shop-router" { policy = "write" }
