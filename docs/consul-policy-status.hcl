# The least that `tarsec status` and `tarsec history` need, with CLUSTER_NAME=shop and CONSUL_SERVICE_PREFIX=tarantool-{cluster}.
# With CONSUL_LOCK_KEY set, that key needs the same.
# "list" is for a Consul with enable_key_list_policy; without it "read" will do.
key_prefix "tarsec/shop/" { policy = "list" }
# For `status` to see which agents live, on the nodes that their Consul agents have. Without these it says nothing of that.
service "tarantool-shop-master" { policy = "read" }
service "tarantool-shop-replica" { policy = "read" }
service "tarantool-shop-router" { policy = "read" }
node "db-1" { policy = "read" }
