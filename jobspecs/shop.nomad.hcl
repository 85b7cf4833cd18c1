# A service with checks, and a configuration file made on the node from variables: no server is asked for either.
job "shop" {
  type = "service"

  group "shop" {
    count = 2

    network {
      mode = "bridge"

      port "http" {
        to = 8080
      }
    }

    # A version that is not healthy within ten minutes of its switch goes back by itself, online or not.
    update {
      min_healthy_time = "30s"
      healthy_deadline = "10m"
      auto_revert      = true
    }

    # When the restarts are spent, the allocation is made anew on the same node, with growing waits.
    reschedule {
      delay          = "30s"
      delay_function = "fibonacci"
      max_delay      = "30m"
      unlimited      = true
    }

    task "app" {
      driver         = "docker"
      kill_signal    = "SIGINT"
      shutdown_delay = "2s"

      config {
        image = "shop:3.1"
        ports = ["http"]
        args  = ["--config", "/local/shop.toml"]
      }

      template {
        destination     = "local/shop.toml"
        change_mode     = "signal"
        change_signal   = "SIGHUP"
        left_delimiter  = "[["
        right_delimiter = "]]"

        data = <<-EOT
          listen = "0.0.0.0:8080"
          site = "[[ meta "site" ]]"
          [[ if keyExists "nomad/jobs/shop/banner" ]]
          banner = "[[ key "nomad/jobs/shop/banner" ]]"
          [[ end ]]
        EOT
      }

      template {
        destination          = "secrets/shop.env"
        env                  = true
        perms                = "0600"
        error_on_missing_key = true
        data                 = "PAYMENT_KEY={{ key \"nomad/jobs/shop/payment_key\" }}\n"
      }

      service {
        name = "shop"
        port = "http"
        tags = ["till"]

        check {
          name     = "answers"
          type     = "http"
          path     = "/health"
          interval = "15s"
          timeout  = "3s"

          header {
            Accept = ["application/json"]
          }

          failures_before_critical = 2

          check_restart {
            limit = 3
            grace = "1m"
          }
        }

        check {
          name     = "database"
          type     = "script"
          command  = "/usr/bin/shop-db"
          args     = ["check", "--node", "${node.unique.name}"]
          interval = "1m"
          timeout  = "10s"
        }
      }

      logs {
        max_files     = 3
        max_file_size = 2
      }

      resources {
        memory = 128
        disk   = 50
      }
    }
  }
}
