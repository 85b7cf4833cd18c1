job "web" {
  type = "system"
  group "web" {
    shutdown_delay = "48h"
    ephemeral_disk {
      size = 300
    }
    task "server" {
      driver      = "docker"
      kill_signal = "term"
      user        = "${NOMAD_META_user}"
      shutdown_delay = "25h"
      config {
        image = "web:1"
      }
      logs {
        max_files     = 0
        max_file_size = 100000
        enabled       = true
      }
      resources {
        disk = 100
      }
      restart {
        attempts = 100000
      }
    }
  }
}
