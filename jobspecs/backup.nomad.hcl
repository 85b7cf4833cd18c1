# A backup every night, on one node with the storage, by that node's own clock: it runs without a server too.
job "backup" {
  type = "batch"

  constraint {
    attribute = "${meta.storage}"
    is_set    = true
  }

  periodic {
    crons            = ["30 2 * * *"]
    time_zone        = "Europe/Berlin"
    prohibit_overlap = true

    # Off at half past two: one run as soon as the node is there again.
    missed = "once"

    # A backup in the middle of the day does harm: while the time is not known there is none.
    unknown_time = "closed"
  }

  group "backup" {
    max_run_duration = "2h"

    restart {
      attempts = 2
      interval = "1h"
      delay    = "1m"
      mode     = "fail"
    }

    reschedule {
      attempts = 0
    }

    task "backup" {
      driver = "docker"

      config {
        image      = "backup:1.4"
        entrypoint = ["/usr/bin/backup"]
        args       = ["--to", "/backup/${node.unique.name}"]
        volumes    = ["/srv/data:/data:ro", "/mnt/backup:/backup"]
      }

      resources {
        memory     = 64
        memory_max = 256
      }
    }
  }
}
