job "web" {
  type = "system"
  group "web" {
    network {
      port "http" {}
      port "admin" {}
    }
    service {
      name = "web"
      port = "http"
      provider = "consul"
      check {
        type     = "tcp"
        interval = "10s"
        timeout  = "2s"
      }
      check {
        type     = "tcp"
        port     = "admin"
        interval = "10s"
        timeout  = "2s"
        check_restart {
          grace = "10s"
        }
        on_update = "ignore"
        initial_status = "passing"
        failures_before_critical = 100000
      }
    }
    task "a" {
      driver = "docker"
      config {
        image = "web:1"
      }
      service {
        name         = "a"
        address_mode = "driver"
        tags         = ["a\nb"]
        check {
          type     = "script"
          command  = "/bin/${NOMAD_TASK_NAME}"
          task     = "b"
          interval = "10s"
          timeout  = "2s"
        }
      }
    }
    task "b" {
      driver = "docker"
      config {
        image = "web:1"
      }
    }
  }
}
