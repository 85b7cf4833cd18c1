# A web application on every node of the pool `default`.
# Publish its image first:  skerry image publish shop.tar --name shop/till --tag 1.0
job "till" {
  type = "system"

  group "web" {
    network {
      port "http" {
        static = 8080
        to     = 80
      }
    }

    restart {
      attempts = 3
      interval = "10m"
      delay    = "15s"
      mode     = "delay"
    }

    task "app" {
      driver = "docker"

      config {
        image = "shop/till:1.0"
        ports = ["http"]
      }

      env {
        SITE = "${node.unique.name}"
      }

      resources {
        cpu    = 100
        memory = 64
      }
    }
  }
}
