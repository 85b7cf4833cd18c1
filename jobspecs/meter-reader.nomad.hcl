# Three allocations over the fleet, only on nodes with a radio and a recent engine.
job "meter-reader" {
  type        = "service"
  datacenters = ["plant-*", "depot"]

  constraint {
    attribute = attr.cpu.arch
    operator  = "set_contains_any"
    value     = "arm64,amd64"
  }

  constraint {
    attribute = "${meta.radio}"
    is_set    = true
  }

  constraint {
    attribute = "${attr.driver.docker.version}"
    version   = ">= 20.10"
  }

  group "reader" {
    count = 3

    constraint {
      attribute = "${node.unique.name}"
      operator  = "regexp"
      value     = "^meter-[0-9]+$"
    }

    network {
      port "status" {}
    }

    task "reader" {
      driver = "docker"

      config {
        image = "meter-reader:0.9"
        ports = ["status"]
        args  = ["--status", "0.0.0.0:${NOMAD_PORT_status}"]
      }

      resources {
        memory = 48
      }
    }
  }
}
