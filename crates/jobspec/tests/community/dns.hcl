job "pihole" {
  datacenters = ["home"]
  type        = "system"

  group "pihole" {
    network {
      mode = "bridge"
      dns {
        servers = ["1.1.1.1"]
      }
      port "dns" {
        static = 53
        to     = 53
      }
      port "http" {
        to = 80
      }
    }

    task "pihole" {
      driver = "docker"

      config {
        image   = "pihole/pihole:2024.05.0"
        ports   = ["dns", "http"]
        cap_add = ["net_admin", "net_bind_service"]
      }

      env {
        TZ = "UTC"
      }

      logs {
        max_files     = 2
        max_file_size = 5
      }
    }
  }
}
