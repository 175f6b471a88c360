# A replica set of three Tarantool instances, each with its agent beside it in one allocation.
#
#   nomad job run nomad/tarsec.nomad
#
# Before that, on every client:
#   * a host volume "tarantool" that belongs to 10001:10001 (the data must outlive the allocation);
#   * plugin "docker" { config { allow_privileged = true } }, which Nomad asks for before it allows pid_mode = "host".
# And once, the passwords:
#   nomad var put nomad/jobs/tarantool agent_password=… replication_password=…
#
# The PID namespace decides what the agent can do about a hung instance:
#   * pid_mode = "host" for both tasks and the same user (below), or both under raw_exec as the same user: the agent
#     sees the instance's process. Its death is proven at once, and a hung instance is killed when its lease has passed.
#   * Otherwise (docker without pid_mode, or exec, where each task has its own namespace) the agent can do neither.
#     A death that shows as a refused connection is still seen. But an instance that hung and wakes up after its lease
#     may still run writes that were queued in it, before its guard gets the processor. The agent says so in its check
#     and in its dumps. Set HUNG_INSTANCE_ACTION=wait there, to say that you know: failing over is as safe as
#     before for clients that follow the catalog, and not for those that kept a connection to the old master.
job "tarantool" {
  datacenters = ["dc1"]
  type        = "service"

  # One instance at a time, and the next only when this one is back.
  update {
    max_parallel     = 1
    health_check     = "task_states"
    min_healthy_time = "15s"
    healthy_deadline = "5m"
  }

  group "storage" {
    count = 3

    constraint {
      operator = "distinct_hosts"
      value    = "true"
    }

    network {
      # Tasks of a group share the network namespace; others reach them through the host's port.
      mode = "bridge"
      port "iproto" {
        static = 3301
        to     = 3301
      }
    }

    volume "data" {
      type            = "host"
      source          = "tarantool"
      access_mode     = "single-node-writer"
      attachment_mode = "file-system"
    }

    # In place and without end: an allocation that moves leaves its data behind.
    restart {
      attempts = 10
      interval = "1m"
      delay    = "1s"
      mode     = "delay"
    }

    reschedule {
      attempts  = 0
      unlimited = false
    }

    task "tarantool" {
      driver = "docker"
      user   = "10001:10001"

      config {
        image      = "tarantool/tarantool:2.11.4"
        entrypoint = ["tarantool", "/local/init.lua"]
        ports      = ["iproto"]
        pid_mode   = "host"
      }

      volume_mount {
        volume      = "data"
        destination = "/data"
      }

      # Nomad ends main tasks before their sidecars, so a stop looks to the agent like a death that it can prove: it
      # releases the lock, and the next master is writable in tens of milliseconds.
      kill_timeout = "30s"

      # Put your own init.lua here; docker/init.lua shows what it has to do: start read-only, be born once, and never
      # wait for a peer that is dead.
      template {
        destination = "local/init.lua"
        data        = file("docker/init.lua")
      }

      template {
        destination = "secrets/tarantool.env"
        env         = true
        # A restart of every instance at once is the one thing to avoid.
        change_mode = "noop"
        data        = <<-EOT
          {{ with nomadVar "nomad/jobs/tarantool" }}
          AGENT_PASSWORD={{ .agent_password }}
          REPLICATION_PASSWORD={{ .replication_password }}
          {{ end }}
          WORK_DIR=/data
          LISTEN=0.0.0.0:3301
          REPLICASET_UUID=bbbbbbbb-0000-4000-8000-000000000000
          INSTANCE_UUID=aaaaaaaa-0000-4000-8000-00000000000{{ env "NOMAD_ALLOC_INDEX" }}
          PEERS=${var.peers}
          {{ if eq (env "NOMAD_ALLOC_INDEX") "0" }}BOOTSTRAP=${var.bootstrap}{{ end }}
        EOT
      }

      resources {
        cpu    = 500
        memory = 1024
      }
    }

    task "tarsec" {
      # Starts after the instance, and is restarted on its own.
      lifecycle {
        hook    = "poststart"
        sidecar = true
      }

      driver = "docker"
      # The instance's user: only that one may signal it.
      user = "10001:10001"

      config {
        image    = "tarsec:0.1.0"
        pid_mode = "host"
      }

      # A holder fences, lets a replica catch up, releases and deregisters. The client's max_kill_timeout must allow it.
      kill_signal  = "SIGTERM"
      kill_timeout = "75s"

      # Back within the lease, the agent takes up where it left off.
      restart {
        attempts = 60
        interval = "1m"
        delay    = "200ms"
        mode     = "delay"
      }

      template {
        destination = "secrets/tarantool.password"
        change_mode = "restart"
        data        = "{{ with nomadVar \"nomad/jobs/tarantool\" }}{{ .agent_password }}{{ end }}"
      }

      env {
        TARANTOOL_ADDR          = "127.0.0.1:3301"
        TARANTOOL_USER          = "tarsec"
        TARANTOOL_PASSWORD_FILE = "/secrets/tarantool.password"
        ANNOUNCE_ADDR           = "${NOMAD_ADDR_iproto}"
        CLUSTER_NAME            = "example"
        # tarantool-example-master and so on: no other cluster's master is found under that name.
        CONSUL_SERVICE_PREFIX   = "tarantool-{cluster}"
        MASTER_LEASE            = "10s"
        # The client's own Consul agent, as seen from the bridge.
        CONSUL_HTTP_ADDR     = "${attr.unique.network.ip-address}:8500"
        HUNG_INSTANCE_ACTION = "kill"
        LOG_FORMAT           = "json"
      }

      resources {
        cpu    = 100
        memory = 64
      }
    }
  }
}

variable "peers" {
  type        = string
  description = "Every member: uuid=host:port, separated by commas; the last digit is the allocation's index."
  default     = "aaaaaaaa-0000-4000-8000-000000000000=10.0.0.1:3301,aaaaaaaa-0000-4000-8000-000000000001=10.0.0.2:3301,aaaaaaaa-0000-4000-8000-000000000002=10.0.0.3:3301"
}

variable "bootstrap" {
  type        = string
  description = "true for the run in which the replica set is born; false ever after."
  default     = "false"
}
