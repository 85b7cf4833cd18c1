job "sync" {
  type = "service"
  periodic {
    cron = "0 3 * * *"
  }
  group "web" {
    max_run_duration = "1h"
    task "server" {
      driver = "docker"
      config {
        image = "web:1"
      }
    }
  }
}
