job "zigbee2mqtt" {
  datacenters = ["home"]

  constraint {
    attribute = "${meta.zigbee}"
    operator  = "="
    value     = "true"
  }

  group "zigbee2mqtt" {
    restart {
      attempts = 10
      interval = "5m"
      delay    = "25s"
      mode     = "delay"
    }

    task "zigbee2mqtt" {
      driver = "docker"

      config {
        image = "koenkk/zigbee2mqtt:1.38"
        devices = [
          {
            host_path          = "/dev/serial/by-id/usb-stick"
            container_path     = "/dev/ttyACM0"
            cgroup_permissions = "rw"
          }
        ]
        mount {
          type   = "bind"
          source = "/opt/zigbee"
          target = "/app/data"
        }
      }
    }
  }
}
