job "web" {
  type = "system"
  group "web" {
    ephemeral_disk {
      size   = 300
      sticky = true
      migrate = true
    }
    affinity {
      weight = 1
    }
    task "server" {
      driver = "docker"
      config {
        image = "web:1"
      }
    }
  }
}
