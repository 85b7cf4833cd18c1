# Several groups, and several tasks in one group: a group is switched as a whole.
job "gateway" {
  type = "system"

  group "broker" {
    network {
      mode = "bridge"

      port "mqtt" {
        static = 1883
      }
    }

    task "broker" {
      driver = "docker"

      config {
        image   = "broker:2.0"
        ports   = ["mqtt"]
        volumes = ["/srv/broker/data:/data"]
      }
    }
  }

  group "bridges" {
    task "modbus" {
      driver = "docker"

      config {
        image   = "bridge:1.3"
        command = "modbus-bridge"
        args    = ["--broker", "mqtt://${attr.unique.network.ip-address}:1883"]
      }
    }

    task "opcua" {
      driver = "docker"

      config {
        image   = "bridge:1.3"
        command = "opcua-bridge"
        args    = ["--broker", "mqtt://${attr.unique.network.ip-address}:1883"]
      }

      constraint {
        attribute = "${meta.opcua}"
        value     = "yes"
      }
    }
  }
}
