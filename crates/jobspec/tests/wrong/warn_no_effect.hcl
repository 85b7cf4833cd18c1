job "web" {
  type = "system"
  affinity {
    attribute = "${meta.x}"
  }
  update {
    max_parallel = 1
  }
  meta {
    arch = attr.cpu.arch
  }
  ui {
    description = "x"
  }
  group "web" {
    service {
      name = "web"
    }
    ephemeral_disk {
      size = 300
    }
    disconnect {
      lost_after = "6h"
    }
    restart {
      attempts = 10
      interval = "30s"
      delay    = "15s"
    }
    task "server" {
      driver = "docker"
      config {
        image = "web:1"
      }
      env {
        NOMAD_X = "1"
        NAME    = "${node.unique.nam}"
      }
      logs {
      }
    }
  }
}
