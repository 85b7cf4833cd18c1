# A web application on every node of the pool `default`. Everything that can be written here: docs/jobspec.md
# Publish its image first:  skerry image publish shop.tar --name shop/till --tag 1.0
job "till" {
  # "system" and "service" run for ever, on every node and `count` times over the fleet;
  # "sysbatch" and "batch" the same, but run to their end.
  type = "system"

  # Only nodes that meet all constraints get it.
  # constraint {
  #   attribute = "${meta.site}"
  #   operator  = "regexp"
  #   value     = "^shop-"
  # }

  # For batch and sysbatch: when the nodes run it, by their own clocks, with or without a server.
  # periodic {
  #   crons            = ["30 3 * * *"]
  #   time_zone        = "Europe/Lisbon"
  #   prohibit_overlap = true
  # }

  group "web" {
    network {
      port "http" {
        static = 8080 # on the node
        to     = 80   # in the container
      }
    }

    # A task that ends is started again. What runs for ever never gives up.
    restart {
      attempts = 3
      interval = "10m"
      delay    = "15s"
      mode     = "delay"
    }

    # A new version that is not healthy in time goes back to the last good one, without asking a server.
    update {
      min_healthy_time = "10s"
      healthy_deadline = "5m"
      auto_revert      = true
    }

    # A dead-man switch: stop after so long without a word from the server. Without it nothing ever stops.
    # disconnect {
    #   stop_on_client_after = "12h"
    # }

    task "app" {
      # "docker", or a program of the node: "exec" as an ordinary user, "raw_exec" as root.
      driver       = "docker"
      kill_timeout = "10s"

      config {
        image = "shop/till:1.0"
        ports = ["http"]
        # volumes = ["/srv/till:/data"]
        # devices = [{ host_path = "/dev/ttyUSB0" }]
      }

      env {
        SITE = "${node.unique.name}"
      }

      # A file that the node makes from values that it has.
      # template {
      #   destination = "local/till.conf"
      #   change_mode = "restart"
      #   data        = "site = {{ meta \"site\" }}\n"
      # }

      # The node itself runs the checks: they say whether a version is healthy.
      service {
        port = "http"

        check {
          type     = "http"
          path     = "/"
          interval = "15s"
          timeout  = "3s"

          # check_restart {
          #   limit = 3
          #   grace = "1m"
          # }
        }
      }

      resources {
        cpu    = 100 # MHz
        memory = 64  # MiB
      }
    }
  }
}
