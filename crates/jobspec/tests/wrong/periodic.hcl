job "web" {
  type = "system"
  periodic {
    cron = "@daily"
  }
  group "web" {
    task "server" {
      driver = "docker"
      config {
        image = "web:1"
      }
    }
  }
}
