# A web application on every node, reachable on port 8080 of the node.
job "web" {
  type      = "system"
  node_pool = "default"
  priority  = 70

  meta {
    owner = "shop-systems"
  }

  group "web" {
    network {
      mode = "bridge"

      port "http" {
        static = 8080 # on the node
        to     = 80   # in the container
      }
    }

    # Never give up: three tries in ten minutes, then on with the next ten minutes.
    restart {
      attempts = 3
      interval = "10m"
      delay    = "10s"
      mode     = "delay"
    }

    task "server" {
      driver       = "docker"
      kill_timeout = "20s"

      config {
        image = "shop-web:2.4.1"
        args  = ["--listen", ":80", "--site", "${meta.site}"]
        ports = ["http"]
      }

      env {
        NODE_NAME = "${node.unique.name}"
        LOG_LEVEL = "info"
      }

      resources {
        cpu        = 200
        memory     = 64
        memory_max = 128
      }
    }
  }
}
