job "mosquitto" {
  datacenters = ["home"]
  type        = "service"

  group "broker" {
    network {
      port "mqtt" {
        static = 1883
      }
    }

    service {
      name     = "mqtt"
      port     = "mqtt"
      provider = "nomad"

      check {
        type     = "tcp"
        interval = "10s"
        timeout  = "2s"
      }
    }

    task "mosquitto" {
      driver = "docker"

      config {
        image = "eclipse-mosquitto:2.0"
        ports = ["mqtt"]
        volumes = [
          "local/mosquitto.conf:/mosquitto/config/mosquitto.conf",
          "/opt/mosquitto/data:/mosquitto/data",
        ]
      }

      template {
        destination = "local/mosquitto.conf"
        data        = <<EOF
listener {{ env "NOMAD_PORT_mqtt" }}
allow_anonymous true
persistence true
EOF
      }

      resources {
        cpu    = 100
        memory = 64
      }
    }
  }
}
