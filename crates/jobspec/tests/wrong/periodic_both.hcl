job "web" {
  type = "sysbatch"
  periodic {
    cron  = "0 1 * * *"
    crons = ["0 2 * * *"]
    time_zone = "Local"
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
