job "web" {
  type = "system"
  group "web" {
    restart {
      interval = "1s"
      mode = "dely"
    }
    task "server" {
      driver = "docker"
      config {
        image = "web:1"
      }
      restart {
        render_templates = true
        interval = "2s"
      }
    }
  }
}
