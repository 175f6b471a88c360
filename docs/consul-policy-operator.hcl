# The least that `tarsec switchover`, `pause` and `resume` need, with CLUSTER_NAME=shop. Put the UUIDs of your replica sets in
# (`tarsec status`): two keys for each, which hold orders and nothing else.
# "list" is for a Consul with enable_key_list_policy; without it "read" will do.
key_prefix "tarsec/shop/" { policy = "list" }
key "tarsec/shop/pause" { policy = "write" }
key "tarsec/shop/5f6a3c1e-0000-4000-8000-000000000001/pause" { policy = "write" }
key "tarsec/shop/5f6a3c1e-0000-4000-8000-000000000001/switchover" { policy = "write" }
# `tarsec resume --master-is-down` alone writes the lock, and what writes the lock decides who is master. Grant it when it is
# needed; and the other two for `tarsec forget`, since what writes a member's key speaks for it:
# key "tarsec/shop/5f6a3c1e-0000-4000-8000-000000000001/leader" { policy = "write" }
# key_prefix "tarsec/shop/5f6a3c1e-0000-4000-8000-000000000001/members/" { policy = "write" }
# key_prefix "tarsec/shop/5f6a3c1e-0000-4000-8000-000000000001/ballots/" { policy = "write" }
