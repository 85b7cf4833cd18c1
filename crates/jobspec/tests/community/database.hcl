job "postgres" {
  datacenters = ["dc1"]

  group "db" {
    volume "pgdata" {
      type      = "host"
      source    = "pgdata"
      read_only = false
    }

    network {
      mode = "bridge"
      port "pg" {
        static = 5432
        to     = 5432
      }
    }

    task "postgres" {
      driver = "docker"

      volume_mount {
        volume      = "pgdata"
        destination = "/var/lib/postgresql/data"
      }

      env = {
        "POSTGRES_USER"     = "app"
        "POSTGRES_PASSWORD" = "change-me"
      }

      config {
        image    = "postgres:16"
        ports    = ["pg"]
        shm_size = 268435456
      }
    }
  }
}
