job "web" {
  update {
    min_healthy_time = "5m"
    max_parallel     = 2
    auto_promote     = true
  }
  group "web" {
    network {
      port "http" {}
    }
    update {
      health_check     = "manual"
      healthy_deadline = "1m"
      lock_limit       = "999999h"
      on_delta_failure = "panic"
      canary           = 1
    }
    service {
      port = "http"
      check {
        type     = "tcp"
        interval = "2m"
        timeout  = "3m"
      }
    }
    task "server" {
      driver = "docker"
      config {
        image = "web:1"
      }
    }
  }
}
