job "webapp" {
  datacenters = ["dc1", "dc2"]
  type        = "service"

  spread {
    attribute = "${node.datacenter}"
  }

  group "webapp" {
    count = 4

    scaling {
      min = 2
      max = 10
    }

    network {
      port "http" {
        to = -1
      }
    }

    service {
      name = "${JOB}-http"
      port = "http"
      check {
        name                   = "health"
        type                   = "http"
        path                   = "/health"
        interval               = "5s"
        timeout                = "2s"
        success_before_passing = 2
        header {
          Authorization = ["Basic Zm9vOmJhcg=="]
        }
      }
    }

    task "server" {
      driver = "docker"
      config {
        image = "webapp:1.4"
        ports = ["http"]
      }
      env {
        PORT = "${NOMAD_PORT_http}"
      }
    }
  }
}
