job "jellyfin" {
  datacenters = ["home"]

  affinity {
    attribute = "${meta.intel_gpu}"
    value     = "true"
    weight    = 100
  }

  group "jellyfin" {
    network {
      mode = "host"
      port "web" {
        static = 8096
      }
    }

    reschedule {
      delay          = "30s"
      delay_function = "exponential"
      max_delay      = "10m"
      unlimited      = true
    }

    task "jellyfin" {
      driver = "docker"
      user   = "1000:44"

      config {
        image   = "jellyfin/jellyfin:10.9"
        volumes = ["/tank/media:/media:ro", "/opt/jellyfin:/config"]
        devices = [{ host_path = "/dev/dri/renderD128" }]
      }

      kill_timeout = "30s"

      resources {
        cpu        = 2000
        memory     = 1024
        memory_max = 4096
      }
    }
  }
}
