job "sensor-gateway" {
  datacenters = ["edge"]
  type        = "service"

  group "gateway" {
    max_client_disconnect = "168h"

    update {
      health_check = "task_states"
    }

    task "gateway" {
      driver = "exec"

      config {
        command = "gateway"
        args    = ["-config", "local/gateway.yml"]
      }

      template {
        source        = "/etc/gateway/gateway.tpl"
        destination   = "local/gateway.yml"
        change_mode   = "signal"
        change_signal = "SIGHUP"
      }

      resources {
        cpu    = 200
        memory = 64
        network {
          mbits = 1
          port "http" {}
        }
      }
    }
  }
}
