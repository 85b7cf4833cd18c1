job "bookings" {
  datacenters = ["dc1"]

  group "bookings" {
    network {
      port "http" {
        to = 3000
      }
    }

    task "migrate" {
      driver = "docker"
      lifecycle {
        hook    = "prestart"
        sidecar = false
      }
      config {
        image   = "bookings:5"
        command = "bin/migrate"
      }
    }

    task "web" {
      driver = "docker"
      leader = true
      config {
        image = "bookings:5"
        ports = ["http"]
      }
      restart {
        attempts = 5
        interval = "5m"
        delay    = "10s"
        mode     = "delay"
      }
    }

    task "ship-logs" {
      driver = "docker"
      lifecycle {
        hook    = "poststart"
        sidecar = true
      }
      config {
        image = "fluent-bit:3"
        args  = ["-i", "tail", "-p", "path=${NOMAD_ALLOC_DIR}/logs/*"]
      }
    }

    stop_after_client_disconnect = "10m"
  }
}
