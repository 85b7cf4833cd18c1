job "web" {
  type = "system"
  group "web" {
    restart {
      interval = "10 minutes"
      delay = 15
      attempts = 2
    }
    task "server" {
      driver = "docker"
      config {
        image = "web:1"
      }
      kill_timeout = 30
    }
  }
}
