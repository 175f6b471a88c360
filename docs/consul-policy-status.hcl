# The least that `tarsec status` and `tarsec history` need. Put your own CONSUL_KV_PREFIX and CLUSTER_NAME in.
# With CONSUL_LOCK_KEY set, that key needs the same.
# "list" is for a Consul with enable_key_list_policy; without it "read" will do.
key_prefix "tarsec/default/" { policy = "list" }
# For `status` to see which agents live. Without these it says nothing of that.
service_prefix "tarantool" { policy = "read" }
node_prefix "" { policy = "read" }
