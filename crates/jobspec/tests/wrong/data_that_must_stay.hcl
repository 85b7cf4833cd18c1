job "web" {
  type = "system"
  group "web" {
    ephemeral_disk {
      size   = 300
      sticky = true
    }
    disconnect {
      stop_on_client_after = "1h"
    }
    task "server" {
      driver = "docker"
      config {
        image = "web:1"
      }
    }
  }
}
