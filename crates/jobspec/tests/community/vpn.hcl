job "wireguard" {
  datacenters = ["edge"]
  type        = "system"

  group "wireguard" {
    network {
      mode = "bridge"
      port "vpn" {
        static = 51820
      }
    }

    task "wireguard" {
      driver = "docker"
      config {
        image   = "linuxserver/wireguard:1.0"
        ports   = ["vpn"]
        cap_add = ["NET_ADMIN", "SYS_MODULE"]
        sysctl = {
          "net.ipv4.conf.all.src_valid_mark" = "1"
        }
      }
    }
  }
}
