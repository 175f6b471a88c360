# The least that `tarsec switchover`, `pause` and `resume` need. Put your own CONSUL_KV_PREFIX and CLUSTER_NAME in.
# With CONSUL_LOCK_KEY set, that key needs the same, for `tarsec resume --master-is-down`.
key_prefix "tarsec/default/" { policy = "write" }
