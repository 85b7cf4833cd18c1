job "home-assistant" {
  datacenters = ["home"]
  type        = "service"
  priority    = 75

  constraint {
    attribute = "${attr.unique.hostname}"
    value     = "pi4-livingroom"
  }

  group "home-assistant" {
    network {
      port "http" {
        static = 8123
      }
    }

    task "home-assistant" {
      driver = "docker"

      config {
        image      = "ghcr.io/home-assistant/home-assistant:2024.6"
        privileged = true
        volumes    = ["/opt/home-assistant:/config", "/etc/localtime:/etc/localtime:ro"]
      }

      env {
        TZ = "Europe/Amsterdam"
      }

      resources {
        cpu        = 800
        memory     = 512
        memory_max = 1024
      }

      service {
        name = "home-assistant"
        port = "http"
        tags = ["traefik.enable=true", "traefik.http.routers.ha.rule=Host(`ha.lan`)"]

        check {
          type     = "http"
          path     = "/manifest.json"
          interval = "30s"
          timeout  = "5s"

          check_restart {
            limit           = 5
            grace           = "3m"
            ignore_warnings = false
          }
        }
      }
    }
  }
}
