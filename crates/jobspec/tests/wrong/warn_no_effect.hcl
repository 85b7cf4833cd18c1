job "web" {
  type = "system"
  affinity {
    attribute = "${meta.x}"
  }
  update {
    max_parallel = 1
  }
  meta {
    arch = attr.cpu.arch
  }
  ui {
    description = "x"
  }
  group "web" {
    network {
      port "http" {}
    }
    service {
      name = "web"
      check_restart {
        limit           = 3
        ignore_warnings = true
      }
    }
    disconnect {
      lost_after = "1m"
      reconcile  = "best_score"
    }
    prevent_reschedule_on_lost = true
    restart {
      attempts = 10
      interval = "30s"
      delay    = "15s"
    }
    task "server" {
      driver = "docker"
      leader = true
      config {
        image      = "web:1"
        privileged = true
        cap_add    = ["net_admin"]
      }
      env {
        NOMAD_X = "1"
        NAME    = "${node.unique.nam}"
      }
      action "x" {
        command = "/x"
      }
    }
  }
  group "moved" {
    disconnect {
      lost_after = "12h"
      replace    = true
    }
    task "server" {
      driver = "docker"
      config {
        image = "web:1"
      }
    }
  }
}
